// The presenter's bar: one press is one crash, and a press that comes while the next server starts is kept for
// that one. What a crash did is said across the top, where it was pressed and on every other page that has the bar.
"use strict";
(() => {
  const AGAIN_MS = 40; // between two questions to a server that is not there
  const SHOWN_MS = 5000;
  const STORY_MS = 3000; // how long the story of a crash may take to be written down

  let presses = 0; // not carried out yet
  let isCrashing = false;
  let last = 0; // the number of the server that answered last
  let hiding;

  const pause = (ms) => new Promise((resume) => setTimeout(resume, ms));
  const form = () => document.getElementById("crash");

  function say(words, isDead = false) {
    const news = document.getElementById("crash-news");
    if (!news) return;
    clearTimeout(hiding);
    news.textContent = words;
    news.classList.toggle("dead", isDead);
    if (!isDead) hiding = setTimeout(() => { news.textContent = ""; }, SHOWN_MS);
  }

  // The first server with a number above `before` that answers: its number and process, and what it took over.
  async function serverAfter(before) {
    const address = form().dataset.now;
    for (;;) {
      const answer = await fetch(address, { headers: { Accept: "application/json" } }).catch(() => null);
      const server = answer?.ok ? await answer.json().catch(() => null) : null;
      if (server && server.number > before) return server;
      await pause(AGAIN_MS);
    }
  }

  // The same once it has written down what it took over.
  async function storyOf(before) {
    const deadline = performance.now() + STORY_MS;
    for (;;) {
      const server = await serverAfter(before);
      if (server.story || performance.now() > deadline) return server;
      await pause(AGAIN_MS);
    }
  }

  async function crashOnce() {
    const { number, process } = await serverAfter(0);
    const began = performance.now();
    const kept = () => (presses ? ` (${presses} more to come)` : "");
    const tell = () => say(`Server ${number} (process ${process}) is dead: ${Math.round(performance.now() - began)} ms${kept()}`, true);
    const telling = setInterval(tell, 50);
    tell();
    try {
      await fetch(form().action, { method: "POST", body: new URLSearchParams({ executor: number }) }).catch(() => null);
      const { number: next } = await serverAfter(number);
      last = next;
    } finally {
      clearInterval(telling);
    }
    const next = await storyOf(number);
    say(next.story || `Server ${next.number} took over.`);
  }

  async function press() {
    presses += 1;
    if (isCrashing) return;
    isCrashing = true;
    say("Crashing the server …", true);
    while (presses) {
      presses -= 1;
      await crashOnce();
    }
    isCrashing = false;
  }

  document.addEventListener("submit", (event) => {
    if (event.target.id !== "crash") return;
    event.preventDefault();
    event.stopImmediatePropagation(); // htmx would send it as well
    press();
  }, true);

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key.toLowerCase() !== "c" || event.repeat || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    if (form()) press();
  });

  // Somebody else's crash, or a kill from a terminal: an answer comes from another server than the last one.
  document.addEventListener("store:server", async (event) => {
    const before = last;
    last = event.detail;
    if (!before || event.detail <= before || isCrashing || !form()) return;
    const { story } = await storyOf(before);
    if (story && !isCrashing) say(story);
  });
})();
