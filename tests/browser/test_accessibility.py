"""A purchase for people who use a keyboard or a screen reader; see test_gallery.py for every page."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import OpenShop, Visit
from tests.browser.gallery import move
from tests.browser.inspection import LIVE_REGIONS
from tests.browser.visitor import Visitor, is_marked, mark
from tests.support.shop import Shop


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
