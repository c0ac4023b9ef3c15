// Counts down to the deadline that the database has, between two polls and without them: the server
// says how many milliseconds are left, and from then on the clock of the wall counts, so that neither an
// outage nor a tab that slept makes the time look longer than it is. At zero there is nothing to press.
// What became of the order is brought by the poll, which goes on.
"use strict";
(() => {
  const STEP_MS = 200;
  const deadlines = new WeakMap(); // of each timer: what it was told, and when that ends by our clock

  function deadlineOf(timer) {
    const told = timer.dataset.leftMs;
    let known = deadlines.get(timer);
    if (known?.told !== told) {
      known = { told, endsAt: Date.now() + Number(told) };
      deadlines.set(timer, known);
    }
    return known.endsAt;
  }

  function count() {
    for (const timer of document.querySelectorAll("[data-left-ms]")) {
      const seconds = Math.max(0, Math.ceil((deadlineOf(timer) - Date.now()) / 1000));
      const shown = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
      if (timer.textContent !== shown) timer.textContent = shown;
      const payment = timer.closest("#payment");
      payment.querySelector("progress").value = seconds;
      if (seconds === 0) payment.querySelectorAll("form button").forEach((button) => { button.disabled = true; });
    }
  }

  setInterval(count, STEP_MS);
  // A page that comes back from the browser's memory, or a tab from its sleep, does not wait for the next step.
  addEventListener("pageshow", count);
  document.addEventListener("visibilitychange", count);
})();
