// Shows times in the zone of whoever reads them, and names it. The truth is in `<time datetime>`; without
// this script the text says the same in UTC.
"use strict";
(() => {
  const TIME = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  const format = (options) => new Intl.DateTimeFormat("en-GB", options);
  const clock = format({ ...TIME, timeZoneName: "short" });
  const exact = format({ ...TIME, fractionalSecondDigits: 3 });
  const day = format({ day: "numeric", month: "long", year: "numeric" });
  const FORMS = {
    clock: (at) => clock.format(at),
    exact: (at) => exact.format(at),
    day: (at) => `${day.format(at)}, ${clock.format(at)}`,
  };

  function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function localise() {
    for (const time of document.querySelectorAll("time[data-form]")) {
      say(time, FORMS[time.dataset.form](new Date(time.dateTime)));
    }
    const zone = clock.formatToParts(new Date()).find((part) => part.type === "timeZoneName").value;
    for (const name of document.querySelectorAll("[data-zone]")) say(name, zone);
  }

  localise();
  document.addEventListener("htmx:after:swap", localise);
})();
