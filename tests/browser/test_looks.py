"""How every page looks: it is drawn whole on every screen, and a picture of it for whoever judges.

WIDGET_STORE_SCREENSHOTS=docs/screenshots make test ARGS="tests/browser/test_looks.py"
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Visit
from tests.browser.gallery import NOT_FOUND_OR_AWAY, VIEWS, Gallery
from tests.support.markup import Markup

WIDTHS = (320, 390, 1280, 1920)
PICTURES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True},
    "phone-dark": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "color_scheme": "dark",
    },
    "projector": {"viewport": {"width": 1920, "height": 1080}},
}


def test_every_page_is_well_formed(gallery: Gallery) -> None:
    """Closed tags, no id twice, a name for whatever is pressed, filled in or read."""
    faults = {
        name: found
        for name in VIEWS
        if (found := list(Markup(gallery[name].shop.shopper.page(gallery[name].path).text).faults()))
    }
    assert not faults


@pytest.mark.timeout(600)  # two visits to each of many views; with pictures it takes its time
def test_every_page_is_drawn_whole_on_every_screen_and_can_be_bookmarked(
    gallery: Gallery, visit: Visit
) -> None:
    """Nothing is missing, sticks out of its frame or scrolls sideways; opened again, it is the same page."""
    viewer = visit(gallery["store"].shop, None, patient=True, tolerated=NOT_FOUND_OR_AWAY)
    faults = []
    for name in VIEWS:
        viewer.look_at(gallery[name])
        if not viewer.page.evaluate(_DRAWN):
            faults.append(f"{name}: style or pictures are missing")
        for width in WIDTHS:
            viewer.page.set_viewport_size({"width": width, "height": 1000})
            faults += [f"{name}, {width} wide: {fault}" for fault in viewer.page.evaluate(_STICKING_OUT)]
        title = viewer.page.title()
        assert title.endswith(" · The Widget Store"), name
        viewer.page.reload()
        viewer.sees(gallery[name].heading)
        assert (viewer.path, viewer.page.title()) == (gallery[name].path, title)

    if folder := os.environ.get("WIDGET_STORE_SCREENSHOTS"):
        for screen, options in PICTURES.items():
            photographer = visit(
                gallery["store"].shop,
                None,
                patient=True,
                tolerated=NOT_FOUND_OR_AWAY,
                reduced_motion="reduce",
                **options,
            )
            for name in VIEWS:
                photographer.look_at(gallery[name])
                photographer.page.screenshot(path=Path(folder) / f"{name}-{screen}.png", full_page=True)
    assert not faults


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
