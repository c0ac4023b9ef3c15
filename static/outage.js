// Keeps the shop's promise while its server is away: what the shopper clicked is asked again, with the same key,
// until somebody answers. What polls by itself goes on polling. Nothing on the page is replaced by an error.
"use strict";
(() => {
  const LOST_MS = 15000; // an answer that takes this long will not come: no page takes longer than two seconds
  const PAUSES_MS = [100, 250, 500, 1000, 2000];
  const AWAY = new Set([502, 503, 504]); // what a proxy, or the shop itself, says meanwhile
  const { contact } = window;
  if (!contact) return; // it was lost on the way: htmx asks by itself

  // One try. It ends with an answer, or when nobody wants one any more, or when it is lost.
  async function ask(action, request, isClick = false) {
    const wanted = request.signal, began = performance.now();
    wanted.throwIfAborted();
    const lost = new AbortController();
    const giveUp = () => lost.abort();
    wanted.addEventListener("abort", giveUp);
    const losing = setTimeout(giveUp, LOST_MS);
    contact.asked(request, isClick);
    try {
      const answer = await fetch(action, { ...request, signal: lost.signal });
      const server = Number(answer.headers.get("Store-Server"));
      if (server) document.dispatchEvent(new CustomEvent("store:server", { detail: server }));
      if (AWAY.has(answer.status)) contact.failed(request, server > 0);
      else contact.heard(server, began);
      await answer.clone().text(); // a server can die in the middle of its answer, too
      return answer;
    } catch (error) {
      if (wanted.aborted) contact.forget(request);
      else contact.failed(request);
      throw error;
    } finally {
      clearTimeout(losing);
      wanted.removeEventListener("abort", giveUp);
    }
  }

  async function askUntilAnswered(action, request) {
    try {
      for (let tries = 0; ; tries += 1) {
        const answer = await ask(action, request, true).catch(() => null);
        if (answer && !AWAY.has(answer.status)) return answer;
        if (request.signal.aborted) throw new DOMException("nobody wants it any more", "AbortError");
        const pause = PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)];
        await new Promise((resume) => setTimeout(resume, pause));
      }
    } finally {
      contact.settled(request);
    }
  }

  document.addEventListener("htmx:before:request", (event) => {
    const { ctx } = event.detail;
    // The body asks when somebody goes back in the history; the timeline, when it is opened.
    const isClick = ctx.sourceElement.matches("a, form, body, #timeline") && !ctx.sourceElement.matches("[data-once]");
    if (isClick) clearTimeout(ctx.requestTimeout); // htmx would give up after a minute
    ctx.fetch = isClick ? askUntilAnswered : ask;
  });
})();
