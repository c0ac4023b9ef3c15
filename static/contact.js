// Tells lost contact from a slow network, and says so in a banner: what counts as late goes by the answers before.
// outage.js tells it of every request.
"use strict";
window.contact ??= (() => {
  const LATE_MS = 900; // nobody has answered for this long, though one was asked
  const MANY_TIMES = 3; // or, where that is more, so many times what an answer usually takes
  const LAST_ANSWERS = 5; // by which "usually" is told
  const READABLE_MS = 1500; // a banner that flickers is read by nobody
  const LOST = "We lost contact with the shop.";
  const BREATHLESS = "The shop is catching its breath."; // it answers itself, that it cannot now
  const SAFE = "Your order is safe; we are trying again.";
  const KEPT = "Your click is kept, and is being sent again until it is answered.";

  const visit = performance.getEntriesByType("navigation")[0];
  const took = visit ? [visit.responseEnd - visit.requestStart] : []; // ms, of the last answers
  const unanswered = new Map(); // each request since the last answer: when it was made, and what will say that it is late
  const clicks = new Set(); // requests that a shopper made
  const failed = new Set(); // those of them that a dead server did not answer
  let isThere = false;
  let shownAt = 0;
  let hiding;

  // The lower of the middle ones: one that waited for the next server does not make the network a slow one.
  function usualMs() {
    return [...took].sort((one, other) => one - other)[(took.length - 1) >> 1] ?? 0;
  }

  function show() {
    const banner = document.getElementById("outage");
    const words = `${isThere ? BREATHLESS : LOST} ${clicks.size ? KEPT : SAFE}`;
    clearTimeout(hiding);
    hiding = undefined;
    if (banner.textContent === words) return;
    if (!banner.textContent) shownAt = performance.now();
    banner.textContent = words;
  }

  function hide() {
    if (hiding || failed.size) return;
    const readable = shownAt + READABLE_MS - performance.now();
    hiding = setTimeout(() => { document.getElementById("outage").textContent = ""; }, Math.max(0, readable));
  }

  function wait(request, patience) {
    const { since = performance.now(), late } = unanswered.get(request) ?? {};
    clearTimeout(late);
    unanswered.set(request, { since, late: setTimeout(show, since + patience - performance.now()) });
  }

  function forget(request) {
    clearTimeout(unanswered.get(request)?.late);
    unanswered.delete(request);
  }

  addEventListener("offline", () => { isThere = false; show(); });
  addEventListener("online", () => { if (!unanswered.size) hide(); });

  return {
    forget,
    asked(request, isClick) {
      if (isClick) clicks.add(request);
      if (!failed.has(request)) wait(request, Math.max(LATE_MS, MANY_TIMES * usualMs()));
    },
    // A dead server is no slow network.
    failed(request, byTheShop = false) {
      isThere = byTheShop;
      if (clicks.has(request)) failed.add(request);
      wait(request, navigator.onLine ? LATE_MS : 0);
    },
    // Whoever else waits may be waiting for something slow: the shop is there.
    heard(milliseconds) {
      took.push(milliseconds);
      if (took.length > LAST_ANSWERS) took.shift();
      for (const request of [...unanswered.keys()]) if (!failed.has(request)) forget(request);
      hide();
    },
    settled(click) {
      clicks.delete(click);
      failed.delete(click);
      forget(click);
      hide();
    },
  };
})();
