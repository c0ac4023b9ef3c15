// The keys of the talk: each presses the button or follows the link that has it. A key that is held down is one press.
"use strict";
(() => {
  const KEYS = { ArrowRight: "on", PageDown: "on", " ": "on", ArrowLeft: "back", PageUp: "back" };

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input:not([type=hidden]), textarea, select");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    const key = KEYS[event.key] ?? event.key.toLowerCase();
    const button = document.querySelector(`#stage [data-key="${CSS.escape(key)}"]`);
    if (!button) return;
    event.preventDefault(); // or Space would press the button that has the focus, too
    if (!event.repeat) button.click();
  });
})();
