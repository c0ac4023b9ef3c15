// A timeline that is open looks every second whether there is more of it, while there may be. One that nobody
// sees asks nothing.
"use strict";
setInterval(() => {
  const timeline = document.querySelector("details[open] #timeline[data-live]");
  if (timeline && !document.hidden) timeline.dispatchEvent(new Event("look"));
}, 1000);
