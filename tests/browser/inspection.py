"""One walk through the gallery with one window: each view is opened once, and there all is looked at."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Browser, Page, ViewportSize

from tests.browser.gallery import NOT_FOUND_OR_AWAY, VIEWS, Gallery
from tests.browser.visitor import Visitor

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
WIDTHS = (320, 390, 1280, 1920)
SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "phone": {"viewport": PHONE, "has_touch": True, "is_mobile": True},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
}
# A timer is one too, but keeps silent by itself.
# But for those that speak of an outage and of a crash: they are on every page, and empty.
LIVE_REGIONS = (
    ":is([role=status], [role=alert], [role=log], output, [aria-live]:not([aria-live=off]))"
    ":not(#outage, #crash-news)"
)
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_COLOURS = ["color-contrast"]
_DRAWN = """() => Array.from(document.images).every(image => image.complete && image.naturalWidth > 0) &&
  getComputedStyle(document.documentElement).getPropertyValue('--paper') !== '' &&
  document.querySelector('h1').getBoundingClientRect().bottom <= innerHeight
"""
_STICKING_OUT = """() => {
  const page = document.documentElement;
  const faults = page.scrollWidth > page.clientWidth ? [`the page needs ${page.scrollWidth}`] : [];
  for (const inner of document.querySelectorAll('.stage img, .card *, .orders *, .presenter *')) {
    const frame = inner.closest('.stage, .card, .orders, .presenter').getBoundingClientRect();
    const box = inner.getBoundingClientRect();
    if (box.width && (box.left < frame.left - 1 || box.right > frame.right + 1 ||
                      box.top < frame.top - 1 || box.bottom > frame.bottom + 1)) {
      faults.push(`out of its frame: ${inner.outerHTML.slice(0, 60)}`);
    }
  }
  return faults;
}"""
_TARGETS = "button:visible, a:not(.skip):visible, summary:visible"
_TOO_SMALL = """targets => targets.map(target => [target.innerText, target.getBoundingClientRect()])
  .filter(([, box]) => Math.min(box.width, box.height) < 44)
  .map(([text, box]) => `${JSON.stringify(text)} is ${box.width} x ${box.height}`)
"""


class Inspection:
    """What was found on one screen, by what was looked for; each fault with the name of its view."""

    def __init__(self, browser: Browser, gallery: Gallery, screen: str, *, axe_every: int) -> None:
        """Open every view; have axe look at one of so many, for it takes as long as all the rest."""
        self.views: list[str] = []
        self._for_axe = VIEWS[::axe_every]
        self.targets = 0
        self._gallery, self._screen = gallery, screen
        self._faults: defaultdict[str, list[str]] = defaultdict(list)
        self._window = Visitor(browser.new_context(**SCREENS[screen]).new_page(), gallery["store"].shop)
        try:
            for name in VIEWS:
                self._look_at(name)
        finally:
            self._window.leave()
        self._faults["window"] += self._window.faults(NOT_FOUND_OR_AWAY)

    def faults(self, what: str) -> list[str]:
        """Of every view; there is nothing to say of views that were not looked at."""
        assert self.views == list(VIEWS)
        return self._faults[what]

    def _note(self, what: str, name: str, faults: list[str]) -> None:
        self._faults[what] += [f"{name}: {fault}" for fault in faults]

    def _look_at(self, name: str) -> None:
        page = self._window.page
        self._window.look_at(self._gallery[name])
        if self._screen == "desktop":
            self._is_drawn(name, page)
            self._can_be_bookmarked(name, page)
        if name.startswith("order-"):
            page.get_by_text("What the database remembers, step by step").click()
        self._has_landmarks(name, page)
        if self._screen != "dark":
            self._can_be_touched(name, page)
        if name in self._for_axe:
            self._is_accessible(name, page)
        self.views.append(name)

    def _is_drawn(self, name: str, page: Page) -> None:
        if not page.evaluate(_DRAWN):
            self._note("drawn", name, ["style or pictures are missing"])
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 1000})
            self._note("drawn", f"{name}, {width} wide", page.evaluate(_STICKING_OUT))
        page.set_viewport_size(DESKTOP)

    def _can_be_touched(self, name: str, page: Page) -> None:
        targets = page.locator(_TARGETS)
        page.set_viewport_size(PHONE)
        self.targets += targets.count()
        self._note("touched", name, targets.evaluate_all(_TOO_SMALL))
        page.set_viewport_size(SCREENS[self._screen]["viewport"])

    def _can_be_bookmarked(self, name: str, page: Page) -> None:
        title = page.title()
        if not title.endswith(" · The Widget Store"):
            self._note("bookmarked", name, [f"its title is {title!r}"])
        page.reload()
        self._window.sees(self._gallery[name].heading)
        again = self._window.path, page.title()
        if again != (self._gallery[name].path, title):
            self._note("bookmarked", name, [f"opened again, it is {again}"])

    def _has_landmarks(self, name: str, page: Page) -> None:
        once = {landmark: page.get_by_role(landmark) for landmark in ("banner", "main", "contentinfo")} | {
            "heading": page.get_by_role("heading", level=1, name=self._gallery[name].heading),
            "live region": page.locator(LIVE_REGIONS),
        }
        counts = {what: each.count() for what, each in once.items()}
        self._note("landmarks", name, [f"{n} x {what}" for what, n in counts.items() if n != 1])
        nameless = page.locator("progress:not([aria-label])").count()
        self._note("landmarks", name, ["a bar without a name"] * nameless)

    def _is_accessible(self, name: str, page: Page) -> None:
        rules = _COLOURS if self._screen == "dark" else _RULES  # nothing else is another in the dark
        page.emulate_media(reduced_motion="reduce")  # or it would look at colours half way to others
        # Of what passes, one example is enough to see that axe looked.
        result = Axe().run(page, options={"runOnly": rules, "resultTypes": ["violations"]}).response
        page.emulate_media(reduced_motion="no-preference")
        assert len(result["passes"]) >= (10 if rules is _RULES else 1), "axe did not look"
        self._note(
            "axe",
            name,
            [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in result["violations"]],
        )
