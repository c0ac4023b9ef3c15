// The presenter's bar: one press is one crash, and a press that comes while the next server starts is kept for
// that one. What a crash did is said across the top, where it was pressed and on every other page that has the bar.
"use strict";
(() => {
  if (window.hasStage) return; // a page that htmx brings has this script again
  window.hasStage = true;
  // By way of `window.servers` each time: of scripts that htmx brings, either may come first.
  const PATIENCE_MS = 60000; // for the server after one that was crashed here
  const SURELY_DEAD_MS = 1000;
  const SILENT_MS = 100; // a server that refuses to crash has said so by then, or by twice what it takes to ask
  const SEEN_MS = 500; // a death is on the screen for so long, however soon the next server is there
  const SHOWN_MS = 5000;

  let presses = 0, isCrashing = false; // presses that are not carried out yet
  let last = 0; // the number of the server that answered last
  let hiding;

  // `count` changes many times a second, so it is for the eyes alone.
  function say(words, { isDead = false, count = "" } = {}) {
    const news = document.getElementById("crash-news");
    if (!news) return;
    clearTimeout(hiding);
    if (!words) return news.replaceChildren();
    if (news.firstChild?.textContent !== words) {
      news.replaceChildren(words, Object.assign(document.createElement("span"), { ariaHidden: "true" }));
    }
    news.lastChild.textContent = count;
    news.classList.toggle("dead", isDead);
    if (!isDead) hiding = setTimeout(() => say(""), SHOWN_MS);
  }

  // Whether the next press may follow.
  async function crashOnce(address, action, isForAll) {
    const server = await window.servers.anyServer(address, PATIENCE_MS);
    if (!server) return say("No server answers that could be crashed.");
    const began = performance.now(), silent = Math.min(Math.max(SILENT_MS, 2 * window.servers.roundTrip()), SURELY_DEAD_MS);
    const words = `Server ${server.number} (process ${server.process}) is dead: `;
    let saidAt = 0;
    const tell = () => {
      saidAt ||= performance.now();
      say(words, { isDead: true, count: `${Math.round(performance.now() - began)} ms${presses ? `, ${presses} more to come` : ""}` });
    };
    const telling = setInterval(() => performance.now() - began > silent && tell(), 50);
    // A browser may send it again, to the next server, which knows that it was not meant: only that one answers then.
    const answer = await fetch(action, { method: "POST", body: new URLSearchParams({ executor: server.number, ...(isForAll && { all: "yes" }) }) }).catch(() => null);
    if (answer && !answer.ok && answer.status < 500) {
      clearInterval(telling);
      return say(`The shop has refused to crash (${answer.status}).`);
    }
    tell();
    const next = await window.servers.successorOf(server.number, address, PATIENCE_MS).finally(() => clearInterval(telling));
    if (!next) return say(`No server has come after server ${server.number}.`);
    last = next.number;
    await new Promise((resume) => setTimeout(resume, saidAt + SEEN_MS - performance.now()));
    say(`Server ${next.number} took over.`);
    say((await window.servers.storyAfter(server.number, address))?.story || `Server ${next.number} took over.`);
    return true;
  }

  async function press(form, times = 1, isForAll = false) {
    if (times > 1 && presses) presses = 0; // "ten crashes" again: no more of them
    else presses += times;
    if (isCrashing) return;
    isCrashing = true;
    try {
      const { dataset: { now: address }, action } = form; // whatever page is shown meanwhile
      say("Crashing the server …", { isDead: true });
      do presses -= 1; while (await crashOnce(address, action, isForAll) && presses);
    } finally {
      presses = 0;
      isCrashing = false;
    }
  }

  document.addEventListener("submit", (event) => {
    if (event.target.id !== "crash" || !window.servers) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // htmx would send it as well
    press(event.target, Number(event.submitter?.dataset.times ?? 1), event.submitter?.name === "all");
  }, true);

  document.addEventListener("keydown", (event) => {
    const form = document.getElementById("crash");
    const isTyping = event.target.closest?.("input, textarea, select, [contenteditable]");
    const times = { c: 1, x: 10 }[event.key?.toLowerCase()];
    const canTimes = times === 1 || form?.querySelector("[data-times]");
    if (form && window.servers && times && canTimes && !event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey && !isTyping) press(form, times);
  });

  // Somebody else's crash, or a kill from a terminal: an answer comes from another server than the last one.
  document.addEventListener("store:server", async (event) => {
    const before = last, form = document.getElementById("crash");
    last = event.detail;
    if (!before || last <= before || !form) return;
    if (isCrashing) return; // whoever pressed tells of it
    const server = await window.servers.storyAfter(before, form.dataset.now);
    if (server?.story && !isCrashing) say(server.story);
  });
})();
