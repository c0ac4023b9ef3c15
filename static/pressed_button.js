// A button that was pressed says what it is doing ("Paying…") until there is an answer. Only that one changes.
"use strict";
(() => {
  let pressed;
  document.addEventListener("submit", (event) => { pressed = event.submitter; }, true);

  document.addEventListener("htmx:before:request", (event) => {
    const { ctx } = event.detail, form = ctx.sourceElement, button = pressed;
    if (!form.matches("form") || !form.contains(button) || !button.dataset.doing) return;
    const words = button.textContent;
    button.style.minWidth = `${button.offsetWidth}px`; // or what is beside it would move
    button.textContent = button.dataset.doing;
    form.setAttribute("aria-busy", "true");
    button.classList.add("pressed");
    const fetched = ctx.fetch ?? fetch;
    ctx.fetch = (...asked) => fetched(...asked).finally(() => {
      button.textContent = words;
      button.style.minWidth = "";
      button.classList.remove("pressed");
      form.removeAttribute("aria-busy");
    });
  });
})();
