"""Every page, for people who use a keyboard, a screen reader, a phone, or less motion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Locator, Page, ViewportSize, expect

from tests.browser.conftest import OpenShop, Visit
from tests.browser.gallery import NOT_FOUND_OR_AWAY, VIEWS, Gallery, move
from tests.browser.visitor import Visitor, is_marked, mark
from tests.support.shop import Shop

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
# A timer is one too, but keeps silent by itself.
# But for those that speak of an outage and of a crash: they are on every page, and empty.
LIVE_REGIONS = (
    ":is([role=status], [role=alert], [role=log], output, [aria-live]:not([aria-live=off]))"
    ":not(#outage, #crash-news)"
)
_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
_COLOURS = {"runOnly": ["color-contrast"]}


def walk(
    visit: Visit, gallery: Gallery, names: Iterable[str] = VIEWS, **options: Any
) -> Iterator[tuple[str, Page]]:
    """One window, led through the views; each by its name, with all that can be opened open."""
    reader = visit(gallery["store"].shop, None, tolerated=NOT_FOUND_OR_AWAY, **options)
    for name in names:
        reader.look_at(gallery[name])
        if name.startswith("order-"):
            reader.page.get_by_text("What the database remembers, step by step").click()
        yield name, reader.page


@pytest.mark.timeout(300)  # there are many views
@pytest.mark.sampled(1)  # the desktop
@pytest.mark.parametrize(
    ("screen", "theme", "rules"),
    [
        (DESKTOP, "light", _RULES),
        (PHONE, "light", _RULES),
        (DESKTOP, "dark", _COLOURS),  # nothing else is another in the dark
    ],
    ids=["desktop", "phone", "dark"],
)
def test_axe_finds_nothing(
    gallery: Gallery, visit: Visit, screen: ViewportSize, theme: str, rules: dict[str, list[str]]
) -> None:
    """WCAG 2.2 AA, as far as a program can tell, in every view."""
    axe, found = Axe(), {}
    for name, page in walk(
        visit, gallery, patient=True, reduced_motion="reduce", color_scheme=theme, viewport=screen
    ):
        result = axe.run(page, options=rules).response
        assert len(result["passes"]) >= (10 if rules is _RULES else 1), "axe did not look"
        for each in result["violations"]:
            found[name, each["id"]] = [node["html"] for node in each["nodes"]]
    assert not found


@pytest.mark.timeout(300)  # likewise
def test_every_page_has_its_landmarks_one_heading_and_one_live_region(gallery: Gallery, visit: Visit) -> None:
    """What a screen reader moves by, and the one thing that it speaks of by itself."""
    faults = []
    for name, page in walk(visit, gallery, patient=True):
        once = {landmark: page.get_by_role(landmark) for landmark in ("banner", "main", "contentinfo")} | {
            "heading": page.get_by_role("heading", level=1, name=gallery[name].heading),
            "live region": page.locator(LIVE_REGIONS),
        }
        faults += [f"{name}: {each.count()} x {what}" for what, each in once.items() if each.count() != 1]
        faults += [f"{name}: a bar without a name" for _ in page.locator("progress:not([aria-label])").all()]
    assert not faults


def test_a_dispatch_is_announced_when_it_ends_and_not_at_every_tick(
    still_shop: Shop, paid_order: str, visit: Visit
) -> None:
    """The live region is left alone, character by character, until the order is dispatched."""
    shopper = visit(still_shop, f"/orders/{paid_order}")
    announcement = shopper.page.locator(LIVE_REGIONS)
    count_changes(announcement.element_handle())
    mark(announcement)
    for progress in (2, 9):
        move(still_shop, paid_order, progress)
        expect(shopper.bar).to_have_attribute("value", str(progress))
    assert announcement.evaluate("region => region.changes") == 0
    move(still_shop, paid_order, 10)
    shopper.sees("Dispatched")
    assert announcement.inner_text() == "Dispatched"
    assert announcement.evaluate("region => region.changes") > 0
    # A region that came new into the page with its text already in it would not be spoken.
    assert is_marked(announcement)


def test_a_countdown_is_not_announced_at_every_second(still_shop: Shop, visit: Visit) -> None:
    """Held is said once; the seconds are there for whoever asks."""
    shopper = visit(still_shop)
    shopper.buy()
    announcement = shopper.page.locator(LIVE_REGIONS)
    count_changes(announcement.element_handle())
    started = shopper.seconds_to_pay
    shopper.wait_until(lambda: shopper.seconds_to_pay < started)
    assert announcement.evaluate("region => region.changes") == 0


def test_the_end_of_the_countdown_is_announced(still_shop: Shop, visit: Visit) -> None:
    """By the region that said that the widget is held."""
    shopper = visit(still_shop)
    payment_id = shopper.buy()
    announcement = shopper.page.locator(LIVE_REGIONS)
    mark(announcement)
    still_shop.tables.change(
        "UPDATE orders SET pay_by_ms = created_at_ms WHERE payment_id = :id", id=payment_id
    )
    expect(announcement).to_have_text("Time is up")
    assert is_marked(announcement)
    for button in (shopper.confirm, shopper.cancel):
        expect(button).to_have_count(0)


def test_the_shelf_is_announced_when_it_empties_and_when_it_fills(open_shop: OpenShop, visit: Visit) -> None:
    """And not whenever somebody buys one."""
    shop = open_shop(units=2)
    passer_by = visit(shop)
    announcement = passer_by.page.locator(LIVE_REGIONS)
    count_changes(announcement.element_handle())
    mark(announcement)
    shop.shopper.buy()
    expect(passer_by.shelf).to_have_text("1")
    assert announcement.evaluate("region => region.changes") == 0
    shop.shopper.buy()
    expect(announcement).to_have_text("The shelf is empty.")
    assert is_marked(announcement)
    shop.shopper.post("/restock")
    expect(announcement).to_have_text("In stock")
    assert is_marked(announcement)


def count_changes(region: Any) -> None:
    """Count from now on whatever happens to an element's text."""
    region.evaluate(
        """region => {
          region.changes = 0;
          new MutationObserver(records => { region.changes += records.length }).observe(
            region, {characterData: true, childList: true, subtree: true});
        }"""
    )


# --- the keyboard ---------------------------------------------------------------------


_FOCUS = """() => {
  const focus = document.activeElement, {outlineStyle, outlineWidth} = getComputedStyle(focus);
  return focus.matches('body, main') ? null :
    {name: focus.innerText.trim(), outline: outlineStyle === 'none' ? 0 : parseFloat(outlineWidth)};
}"""


def tab_to(shopper: Visitor, name: str) -> None:
    """Press Tab until the keyboard is on a control of this name; it must be seen wherever it is."""
    for _ in range(20):  # once round the page with the most controls
        shopper.page.keyboard.press("Tab")
        focus = shopper.page.evaluate(_FOCUS)
        if focus is None:  # past the end, or at the beginning of what has just come in
            continue
        assert focus["outline"] >= 2, f"the keyboard is on {focus['name']!r}, and nobody can see it"
        if focus["name"] == name:
            return
    raise AssertionError(f"Tab never came to {name!r}")


def test_a_purchase_by_keyboard_alone(still_shop: Shop, visit: Visit) -> None:
    """Tab and Enter, and at each stop it can be seen where the keyboard is."""
    shopper = visit(still_shop)
    tab_to(shopper, "Buy Now")
    shopper.page.keyboard.press("Enter")
    shopper.sees("Your widget is held")
    tab_to(shopper, "Confirm payment")
    shopper.page.keyboard.press("Enter")
    shopper.sees("Paid. Your widget is on its way")
    tab_to(shopper, "What the database remembers, step by step")
    shopper.page.keyboard.press("Enter")
    expect(shopper.page.get_by_text("settle", exact=True)).to_be_visible()
    move(still_shop, shopper.payment_id, 10)
    shopper.sees("Dispatched")
    tab_to(shopper, "Buy another")
    shopper.page.keyboard.press("Enter")
    shopper.sees("The Widget")


def test_a_new_page_takes_the_keyboard_to_its_content(still_shop: Shop, visit: Visit) -> None:
    """As a page load would be noticed: a screen reader reads on there, and Tab goes on from there."""
    shopper = visit(still_shop)
    assert shopper.page.evaluate("document.activeElement === document.body"), "a page load begins at its top"
    tab_to(shopper, "Buy Now")
    shopper.page.keyboard.press("Enter")
    shopper.sees("Your widget is held")
    assert shopper.page.evaluate("document.querySelector('main').contains(document.activeElement)")
    shopper.page.keyboard.press("Tab")
    expect(shopper.page.get_by_role("button", name="I need more time")).to_be_focused()
    shopper.page.keyboard.press("Tab")
    expect(shopper.confirm).to_be_focused()
    shopper.page.keyboard.press("Enter")
    shopper.sees("Paid. Your widget is on its way")
    assert shopper.page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_the_first_tab_offers_to_skip_the_header(still_shop: Shop, visit: Visit) -> None:
    """And doing so goes where it says."""
    reader = visit(still_shop)
    reader.page.keyboard.press("Tab")
    skip = reader.page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    reader.page.keyboard.press("Enter")
    reader.page.keyboard.press("Tab")
    expect(reader.buy_now).to_be_focused()


# --- fingers and eyes -------------------------------------------------------------------


@pytest.mark.timeout(300)  # likewise
def test_everything_to_touch_is_large_enough_on_a_phone(gallery: Gallery, visit: Visit) -> None:
    """44 pixels high and wide at least."""
    faults = []
    for name, page in walk(visit, gallery, patient=True, viewport=PHONE, has_touch=True, is_mobile=True):
        for target in page.locator("button:visible, a:not(.skip):visible, summary:visible").all():
            box = target.bounding_box()
            if box is None or min(box["width"], box["height"]) < 44:
                faults.append(f"{name}: {target.inner_text()!r} is {box}")
    assert not faults


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


def styles(page: Page) -> Iterator[tuple[str, dict[str, str]]]:
    """The computed style of every element, and of the parts that the browser itself makes a bar of."""
    tools = page.context.new_cdp_session(page)
    tools.send("DOM.enable")
    tools.send("CSS.enable")
    elements = [tools.send("DOM.getDocument", {"depth": -1, "pierce": True})["root"]]
    while elements:
        element = elements.pop()
        elements += element.get("children", []) + element.get("shadowRoots", [])
        if element["nodeType"] != 1:
            continue
        computed = tools.send("CSS.getComputedStyleForNode", {"nodeId": element["nodeId"]})["computedStyle"]
        attributes = element.get("attributes", [])
        part = dict(zip(attributes[::2], attributes[1::2], strict=True)).get("pseudo")
        yield (
            f"progress::{part}" if part else element["localName"],
            {each["name"]: each["value"] for each in computed},
        )
    tools.detach()


def seconds(duration: str) -> float:
    """A CSS time; nothing for what is not drawn at all."""
    number = duration.strip().removesuffix("s")
    return float(number.removesuffix("m")) / 1000 if number.endswith("m") else float(number or 0)
