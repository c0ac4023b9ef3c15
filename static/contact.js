// Tells lost contact from a slow network, and says so in a banner: what counts as late goes by the answers before.
// outage.js tells it of every request.
"use strict";
window.contact ??= (() => {
  const LATE_MS = 900; // nobody has answered for this long, though one was asked
  const CLICK_LATE_MS = 1900; // a click may take longer than a look, and no page takes longer than two seconds
  const SILENT_MS = 1900; // and nobody has answered anything else for this long
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
  let heardAt = 0, server = 0, serverSince = 0; // the last answer, who gave it, and since when they do
  let isThere = false;
  let shownAt = 0;
  let hiding;

  // The lower of the middle ones, because one slow answer does not make the network a slow one.
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
    hiding = setTimeout(() => {
      hiding = undefined;
      if (!failed.size) document.getElementById("outage").textContent = "";
    }, Math.max(0, readable));
  }

  function wait(request, patience, silence = 0) {
    const { since = performance.now(), late } = unanswered.get(request) ?? {};
    clearTimeout(late);
    const until = Math.max(since + patience, heardAt + silence) - performance.now();
    const tell = () => {
      if (!clicks.has(request)) unanswered.delete(request);
      show();
    };
    unanswered.set(request, { since, late: setTimeout(tell, until) });
  }

  function forget(request) {
    clearTimeout(unanswered.get(request)?.late);
    unanswered.delete(request);
  }

  return {
    forget,
    asked(request, isClick) {
      if (isClick) clicks.add(request);
      if (failed.has(request)) return;
      wait(request, Math.max(isClick ? CLICK_LATE_MS : LATE_MS, MANY_TIMES * usualMs()), SILENT_MS);
    },
    // A dead server is no slow network.
    failed(request, byTheShop = false) {
      isThere = byTheShop;
      if (clicks.has(request)) failed.add(request);
      wait(request, navigator.onLine ? LATE_MS : 0);
    },
    // Whoever else waits may be waiting for something slow: the shop is there.
    heard(from, askedAt) {
      heardAt = performance.now();
      isThere = false;
      if (from > server) [server, serverSince] = [from, heardAt];
      // Whoever was asked while a server started has waited for that, and not for the network.
      if (askedAt >= serverSince || !took.length) took.push(heardAt - askedAt);
      if (took.length > LAST_ANSWERS) took.shift();
      for (const request of [...unanswered.keys()]) if (!failed.has(request)) forget(request);
      hide();
    },
    settled(click) {
      clicks.delete(click);
      failed.delete(click);
      forget(click);
      if (!unanswered.size) hide();
    },
  };
})();
