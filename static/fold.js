// The presenter's bar can be folded away; whether it is, is remembered on this machine.
"use strict";
(() => {
  if (window.hasFold) return; // a page that htmx brings has this script again
  window.hasFold = true;
  const fold = (isFolded) => {
    document.documentElement.classList.toggle("folded", isFolded);
    document.querySelector(".presenter .fold")?.setAttribute("aria-expanded", String(!isFolded));
  };
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".presenter .fold")) return;
    const isFolded = !document.documentElement.classList.contains("folded");
    localStorage.setItem("presenter-folded", isFolded ? "yes" : "");
    fold(isFolded);
  });
  const foldAsBefore = () => fold(Boolean(localStorage.getItem("presenter-folded")));
  document.addEventListener("htmx:after:swap", foldAsBefore); // what comes in is unfolded
  foldAsBefore();
})();
