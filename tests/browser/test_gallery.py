"""Every page in every state: whole on every screen, for everybody, and a picture of it for whoever judges.

WIDGET_STORE_SCREENSHOTS=docs/screenshots make test ARGS="tests/browser/test_gallery.py"
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Visit
from tests.browser.gallery import NOT_FOUND_OR_AWAY, VIEWS, Gallery
from tests.browser.inspection import DESKTOP, PHONE, Inspection
from tests.conftest import Often
from tests.support.markup import Markup

PICTURES: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": DESKTOP},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "device_scale_factor": 2, "is_mobile": True},
    "phone-dark": {"viewport": PHONE, "device_scale_factor": 2, "color_scheme": "dark"},
    "projector": {"viewport": {"width": 1920, "height": 1080}},
}
Inspect = Callable[[str], Inspection]
# The first of these tests builds the gallery, and walks through it.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def inspect(browser: Browser, gallery: Gallery, often: Often) -> Inspect:
    """Gives what was found on a screen; one walk, however many tests ask for it."""
    made: dict[str, Inspection] = {}

    def inspect(screen: str) -> Inspection:
        if screen not in made:
            made[screen] = Inspection(browser, gallery, screen, axe_every=often(3, 1))
        return made[screen]

    return inspect


def walk(visit: Visit, gallery: Gallery, names: Iterable[str], **options: Any) -> Iterator[tuple[str, Page]]:
    """One window, led through some views; each by its name, with all that can be opened open."""
    reader = visit(gallery["store"].shop, None, tolerated=NOT_FOUND_OR_AWAY, **options)
    for name in names:
        reader.look_at(gallery[name])
        if name.startswith("order-"):
            reader.page.get_by_text("What the database remembers, step by step").click()
        yield name, reader.page


# --- every view -------------------------------------------------------------------------


def test_every_page_is_well_formed(gallery: Gallery) -> None:
    """Closed tags, no id twice, a name for whatever is pressed, filled in or read."""
    faults = {
        name: found
        for name in VIEWS
        if (found := list(Markup(gallery[name].shop.shopper.page(gallery[name].path).text).faults()))
    }
    assert not faults


@pytest.mark.sampled(1)  # the desktop
@pytest.mark.parametrize("screen", ["desktop", "phone", "dark"])
def test_axe_finds_nothing(inspect: Inspect, screen: str) -> None:
    """WCAG 2.2 AA, as far as a program can tell: in `make torture` in every view, here in every third."""
    assert not inspect(screen).faults("axe")


@pytest.mark.sampled(1)  # the desktop
@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_every_page_has_its_landmarks_one_heading_and_one_live_region(inspect: Inspect, screen: str) -> None:
    """What a screen reader moves by, and the one thing that it speaks of by itself."""
    assert not inspect(screen).faults("landmarks")


@pytest.mark.sampled(1)  # a window of the desktop that is as narrow
@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_everything_to_touch_is_large_enough_on_a_phone(inspect: Inspect, screen: str) -> None:
    """44 pixels high and wide at least."""
    assert not inspect(screen).faults("touched")
    assert inspect(screen).targets > 5 * len(VIEWS)


def test_every_page_is_drawn_whole_on_every_screen(inspect: Inspect, gallery: Gallery, visit: Visit) -> None:
    """Nothing is missing, sticks out of its frame or scrolls sideways."""
    if folder := os.environ.get("WIDGET_STORE_SCREENSHOTS"):
        take_pictures(Path(folder), gallery, visit)
    assert not inspect("desktop").faults("drawn")


def take_pictures(folder: Path, gallery: Gallery, visit: Visit) -> None:
    """Of every view on every screen."""
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
            photographer.page.screenshot(path=folder / f"{name}-{screen}.png", full_page=True)


def test_every_page_can_be_bookmarked(inspect: Inspect) -> None:
    """It has a title; opened again, it is the same page."""
    assert not inspect("desktop").faults("bookmarked")


@pytest.mark.sampled(1)  # the desktop
@pytest.mark.parametrize("screen", ["desktop", "phone", "dark"])
def test_no_page_asks_another_host_or_complains(inspect: Inspect, screen: str) -> None:
    """Nor does the browser, of what the page does."""
    assert not inspect(screen).faults("window")


# --- some views -------------------------------------------------------------------------


def test_the_address_of_a_payment_leads_to_its_settled_order(gallery: Gallery, visit: Visit) -> None:
    """And the address of an order that is not there yet leads to where it is awaited."""
    shop, order, heading = gallery["order-dispatched"]
    reader = visit(shop, order.replace("/orders/", "/pay/"))
    reader.sees(heading)
    assert reader.path == order
    shop, payment, heading = gallery["pay-reserving"]
    reader.open(payment.replace("/pay/", "/orders/")).sees(heading)
    assert reader.path == payment


def test_a_page_of_a_final_state_never_asks(gallery: Gallery, visit: Visit) -> None:
    """Opened by a bookmark, there is nothing to wait for, with JavaScript or without."""
    views = [gallery[name] for name in ("order-dispatched", "order-declined", "order-expired", "not-found")]
    reader = visit(views[0].shop, None, patient=True, tolerated="404")
    reader.page.clock.install()
    plain = visit(views[0].shop, None, tolerated="404", java_script_enabled=False)
    for view in views:
        reader.look_at(view)
        asked = len(reader.requests)
        reader.let_pass(seconds=60)
        assert reader.asked_for_the_shopper(asked) == [view.shop.server.url + "/health"]
        plain.look_at(view)
        expect(plain.page.locator("meta[http-equiv=refresh]")).to_have_count(0)


def test_nothing_moves_for_whoever_asked_for_less_motion(gallery: Gallery, visit: Visit) -> None:
    """No transition of more than 10 ms and no animation, not even inside the browser's own bar."""
    views = ("store", "pay", "pay-reserving", "order-under-way")
    calm = {
        name: moving_elements(page) for name, page in walk(visit, gallery, views, reduced_motion="reduce")
    }
    assert not any(calm.values()), calm


def test_less_motion_is_not_a_flicker(gallery: Gallery, visit: Visit) -> None:
    """Not even the shortest transition begins, or every element would take a frame of its own to settle."""
    begun = """() => {
      document.documentElement.style.fontSize = '30px';
      return document.getAnimations().map(each => each.effect.target.localName);
    }"""
    for name, page in walk(visit, gallery, ["store", "order-under-way"], reduced_motion="reduce"):
        assert page.evaluate(begun) == [], name


def test_a_bar_glides_for_everybody_else(gallery: Gallery, visit: Visit) -> None:
    """Which also shows that the test above looks in the right places."""
    for _, page in walk(visit, gallery, ["order-under-way"]):
        assert {"g", "rect"} <= moving_elements(page), "the widget, and the rail behind it"


def test_a_bar_can_be_read_where_the_system_chooses_all_colours(gallery: Gallery, visit: Visit) -> None:
    """With forced colours, what is filled still differs from what is not, and both have an outline."""
    for name, page in walk(visit, gallery, ["greeting-signed", "order-under-way"], forced_colors="active"):
        style = dict(styles(page))
        filled, track = style["progress::-webkit-progress-value"], style["progress::-webkit-progress-bar"]
        assert filled["background-color"] != track["background-color"], name
        assert style["progress"]["border-top-style"] != "none", name


def test_a_track_can_be_read_where_the_system_chooses_all_colours(gallery: Gallery, visit: Visit) -> None:
    """What is done is filled otherwise than what is not, and every bead and rail has an edge."""
    for _, page in walk(visit, gallery, ["order-under-way"], forced_colors="active"):
        for part in ("rail", "bead"):
            done, to_do = (
                page.locator(f"#order .{part}.done").first,
                page.locator(f"#order .{part}:not(.done)").first,
            )
            assert paint_of(done, "fill") != paint_of(to_do, "fill"), part
            assert {paint_of(each, "stroke") for each in (done, to_do)} & {"none"} == set(), part


def paint_of(element: Locator, what: str) -> str:
    """How a shape is filled, or its edge drawn."""
    return str(element.evaluate("(element, what) => getComputedStyle(element)[what]", what))


def moving_elements(page: Page) -> set[str]:
    """Every element with a transition or an animation of more than 10 ms."""
    moving = set()
    for name, style in styles(page):
        animated = style["animation-duration"] if style["animation-name"] != "none" else "0s"
        if any(seconds(each) > 0.01 for each in f"{style['transition-duration']},{animated}".split(",")):
            moving.add(name)
    return moving


_STYLES = """properties => Array.from(document.querySelectorAll('*'), element => {
  const style = getComputedStyle(element);
  const said = properties.map(each => [each, style.getPropertyValue(each)]);
  return [element.localName, Object.fromEntries(said)];
})"""
_PROPERTIES = [
    "transition-duration",
    "animation-name",
    "animation-duration",
    "background-color",
    "border-top-style",
]


def styles(page: Page) -> Iterator[tuple[str, dict[str, str]]]:
    """The computed style of every element, and of the parts that the browser itself makes a bar of."""
    yield from page.evaluate(_STYLES, _PROPERTIES)
    # A page cannot see into these, so they are asked for one by one.
    tools = page.context.new_cdp_session(page)
    tools.send("DOM.enable")
    tools.send("CSS.enable")
    nodes = [(tools.send("DOM.getDocument", {"depth": -1, "pierce": True})["root"], False)]
    while nodes:
        node, is_inside = nodes.pop()
        nodes += [(child, is_inside) for child in node.get("children", [])]
        nodes += [(root, True) for root in node.get("shadowRoots", [])]
        if node["nodeType"] != 1 or not is_inside:
            continue
        computed = tools.send("CSS.getComputedStyleForNode", {"nodeId": node["nodeId"]})["computedStyle"]
        attributes = node.get("attributes", [])
        part = dict(zip(attributes[::2], attributes[1::2], strict=True)).get("pseudo")
        yield (
            f"progress::{part}" if part else node["localName"],
            {each["name"]: each["value"] for each in computed},
        )
    tools.detach()


def seconds(duration: str) -> float:
    """A CSS time; nothing for what is not drawn at all."""
    number = duration.strip().removesuffix("s")
    return float(number.removesuffix("m")) / 1000 if number.endswith("m") else float(number or 0)
