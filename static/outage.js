// Keeps the shop's promise while its server is away: a banner says so, and what the shopper
// clicked is asked again, with the same key, until somebody answers. What polls by itself goes
// on polling. Nothing on the page is replaced by an error.
"use strict";
(() => {
  const LATE_MS = 1200; // an answer that takes this long is worth a word
  const LOST_MS = 15000; // and this long, it will not come: no page takes longer than two seconds
  const READABLE_MS = 1500; // a banner that flickers is read by nobody
  const PAUSES_MS = [100, 250, 500, 1000, 2000];
  const AWAY = new Set([502, 503, 504]); // what a proxy, or the shop itself, says meanwhile
  const CALM = "The shop is catching its breath. Nothing is lost, and this page goes on by itself.";
  const KEPT = "The shop is catching its breath. Your click is kept, and is being sent again until it is answered.";

  let kept = 0; // clicks that met a dead server and have not been answered yet
  let shownAt = 0;
  let hiding;

  function showOutage() {
    const banner = document.getElementById("outage");
    const words = kept ? KEPT : CALM;
    clearTimeout(hiding);
    hiding = undefined;
    if (banner.textContent === words) return;
    if (!banner.textContent) shownAt = performance.now();
    banner.textContent = words;
  }

  function hideOutage() {
    if (kept || hiding) return;
    const readable = shownAt + READABLE_MS - performance.now();
    hiding = setTimeout(() => { document.getElementById("outage").textContent = ""; }, Math.max(0, readable));
  }

  // One try. It ends with an answer, or when nobody wants one any more, or when it is lost.
  async function ask(action, request) {
    const wanted = request.signal;
    const lost = new AbortController();
    const giveUp = () => lost.abort();
    wanted.addEventListener("abort", giveUp);
    const timers = [setTimeout(showOutage, LATE_MS), setTimeout(giveUp, LOST_MS)];
    try {
      const answer = await fetch(action, { ...request, signal: lost.signal });
      await answer.clone().text(); // a server can die in the middle of its answer, too
      const server = Number(answer.headers.get("Store-Server"));
      if (server) document.dispatchEvent(new CustomEvent("store:server", { detail: server }));
      if (AWAY.has(answer.status)) showOutage();
      else hideOutage();
      return answer;
    } catch (error) {
      if (!wanted.aborted) showOutage();
      throw error;
    } finally {
      timers.forEach(clearTimeout);
      wanted.removeEventListener("abort", giveUp);
    }
  }

  async function askUntilAnswered(element, action, request) {
    let isKept = false;
    try {
      for (let tries = 0; ; tries += 1) {
        const answer = await ask(action, request).catch(() => null);
        if (answer && !AWAY.has(answer.status)) return answer;
        if (request.signal.aborted) throw new DOMException("nobody wants it any more", "AbortError");
        if (!isKept) {
          isKept = true;
          kept += 1;
          element.setAttribute("aria-busy", "true");
        }
        showOutage();
        const pause = PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)];
        await new Promise((resume) => setTimeout(resume, pause));
      }
    } finally {
      element.removeAttribute("aria-busy");
      if (isKept) {
        kept -= 1;
        hideOutage();
      }
    }
  }

  document.addEventListener("htmx:before:request", (event) => {
    const { ctx } = event.detail;
    // The body asks when somebody goes back in the history.
    const isClick = ctx.sourceElement.matches("a, form, body") && !ctx.sourceElement.matches("[data-once]");
    if (isClick) clearTimeout(ctx.requestTimeout); // htmx would give up after a minute
    ctx.fetch = isClick ? askUntilAnswered.bind(null, ctx.sourceElement) : ask;
  });
})();
