"""A whole purchase in a real browser, and what haste does to it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenShop, Visit
from tests.browser.gallery import move, row
from tests.browser.visitor import is_marked, mark
from tests.conftest import NewUrl
from tests.support.shop import Shop

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def orders_made(shop: Shop) -> int:
    return len(shop.tables.orders())


@pytest.mark.first_of_all
def test_a_whole_purchase_with_javascript(new_url: NewUrl, visit: Visit) -> None:
    """Buy Now, the countdown, Confirm, the bar, Dispatched: five states, one page load."""
    shop = Shop(new_url(), STORE_DISPATCH_TICK_SECONDS=0.2)
    shop.server.start()
    try:
        shopper = visit(shop, patient=True)
        expect(shopper.page).to_have_title("The Widget · The Widget Store")
        key = shopper.key

        payment_id = shopper.buy()
        assert shopper.path == f"/pay/{key}"
        expect(shopper.page).to_have_title("Pay · The Widget Store")
        first = shopper.seconds_to_pay
        assert 110 < first <= 120
        shopper.wait_until(lambda: shopper.seconds_to_pay < first)

        shopper.pay()
        assert shopper.path == f"/orders/{payment_id}"
        expect(shopper.page).to_have_title(
            re.compile(r"^(On its way, \d+ of 10|Dispatched) · Order No. 1 · The Widget Store$")
        )
        shopper.wait_until(lambda: shopper.progress > 0)
        assert shopper.progress <= row(shop, payment_id).progress, "the bar is ahead of the row"
        shopper.sees("Dispatched")
        assert shopper.progress == row(shop, payment_id).progress == 10

        assert shopper.loads() == 1
        assert row(shop, payment_id).status == "dispatched"
        assert not shop.tables.faults()
        shopper.page.goto("about:blank")  # out of the shop before it closes
    finally:
        shop.server.close()


def test_a_whole_purchase_without_javascript(open_shop: OpenShop, visit: Visit) -> None:
    """The same forms and the same page, which asks again by itself until there is nothing to wait for."""
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=0.5)  # it must see one of the ticks, asking once a second
    shopper = visit(shop, java_script_enabled=False)
    payment_id = shopper.buy()
    expect(shopper.page).to_have_title("Pay · The Widget Store")
    shopper.pay()
    assert shopper.path == f"/orders/{payment_id}"
    shopper.wait_until(lambda: 0 < shopper.progress < 10)
    shopper.sees("Dispatched")
    assert shopper.progress == 10
    assert shopper.path == f"/orders/{payment_id}"
    assert shopper.page.locator("meta[http-equiv=refresh]").count() == 0
    assert row(shop, payment_id).status == "dispatched"


def test_the_payment_page_counts_down_without_javascript(still_shop: Shop, visit: Visit) -> None:
    """The page asks again by itself, though more seldom, because somebody is about to press a button."""
    shopper = visit(still_shop, java_script_enabled=False)
    shopper.buy()
    refresh = shopper.page.locator("meta[http-equiv=refresh]")
    assert refresh.get_attribute("content") == "5"


def test_the_bar_is_read_from_the_row(still_shop: Shop, paid_order: str, visit: Visit) -> None:
    """Whatever the row says, and nothing that the page or the server worked out by itself."""
    shopper = visit(still_shop, f"/orders/{paid_order}")
    for progress in (7, 3):
        move(still_shop, paid_order, progress)
        expect(shopper.bar).to_have_attribute("value", str(progress))
        expect(shopper.page.locator("#order .count")).to_have_text(f"{progress} of 10")


def test_a_purchase_keeps_to_a_strict_content_security_policy(still_shop: Shop, visit: Visit) -> None:
    """Scripts, styles and pictures from the shop alone, none of them inline; the console stays silent."""
    shopper = visit(still_shop, tolerated="inline (script|style)")
    payment_id = shopper.buy()
    shopper.pay()
    shopper.page.get_by_text("What the database remembers").click()
    expect(shopper.page.get_by_text("settle", exact=True)).to_be_visible()
    for progress in (5, 10):
        move(still_shop, payment_id, progress)
        expect(shopper.bar).to_have_attribute("value", str(progress))
    shopper.sees("Dispatched")
    assert shopper.loads() == 1
    drawn = "Array.from(document.images).every(image => image.complete && image.naturalWidth > 0)"
    assert shopper.page.evaluate(drawn)
    assert not shopper.complaints
    # It is in force: what the shop did not write is not run, and its style not applied.
    shopper.page.evaluate("document.querySelector('main').setAttribute('style', 'display: none')")
    shopper.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'x = 1'}))"
    )
    shopper.wait_until(lambda: len(shopper.complaints) >= 2)
    assert shopper.page.evaluate("typeof x") == "undefined"
    expect(shopper.heading).to_be_visible()


def test_a_page_stops_asking_once_its_order_is_final(still_shop: Shop, paid_order: str, visit: Visit) -> None:
    """It asks every second until Dispatched comes in, and from then on for nothing."""
    shopper = visit(still_shop, None, patient=True)
    shopper.page.clock.install()
    shopper.open(f"/orders/{paid_order}")
    with shopper.page.expect_response("**/progress"):
        # From here on, no second passes by itself.
        shopper.page.clock.pause_at(datetime.now() + timedelta(seconds=5))  # noqa: DTZ005 - as the browser has it
    shopper.let_pass(0)
    before = shopper.asked("/progress")
    for looks in (1, 2, 3):
        with shopper.page.expect_response("**/progress"):
            shopper.page.clock.run_for(1_000)
        assert shopper.asked("/progress") == before + looks
    move(still_shop, paid_order, 10)
    with shopper.page.expect_response("**/progress"):
        shopper.page.clock.run_for(1_000)
    shopper.page.clock.resume()  # what has come in is shown a moment later
    shopper.sees("Dispatched")
    asked = len(shopper.requests)
    shopper.let_pass(seconds=60)
    assert shopper.asked_for_the_shopper(asked) == [still_shop.server.url + "/health"]


# --- haste ----------------------------------------------------------------------------


@pytest.mark.parametrize("javascript", [True, False], ids=["with_javascript", "without_javascript"])
def test_a_double_click_makes_one_order(still_shop: Shop, visit: Visit, javascript: bool) -> None:
    """Two clicks as fast as a hand can make them meet in one order."""
    shopper = visit(still_shop, java_script_enabled=javascript)
    before = orders_made(still_shop)
    shopper.buy_now.dblclick()
    shopper.sees("Your widget is held")
    assert orders_made(still_shop) == before + 1
    shopper.page.reload()
    shopper.sees("Your widget is held")
    assert orders_made(still_shop) == before + 1


def test_two_submits_without_javascript_make_one_order(still_shop: Shop, visit: Visit) -> None:
    """The first answer is slow, so the button is pressed again: the same key, the same order."""
    shopper = visit(still_shop, java_script_enabled=False)
    before, key = orders_made(still_shop), shopper.key
    place = shopper.place_of(shopper.buy_now)
    shopper.lose_the_first_answer_to_a_form()
    shopper.page.mouse.click(*place)
    shopper.wait_until(lambda: orders_made(still_shop) == before + 1)
    shopper.page.mouse.click(*place)
    shopper.sees("Your widget is held")
    assert shopper.payment_id == key
    assert orders_made(still_shop) == before + 1


@pytest.mark.parametrize("screen", [{}, PHONE], ids=["desktop", "phone"])
def test_the_second_of_two_slow_clicks_on_buy_now_pays_nothing(
    still_shop: Shop, visit: Visit, screen: dict[str, object]
) -> None:
    """A shop can be faster than a double click. What has come up under the pointer must not act."""
    shopper = visit(still_shop, **screen)
    box = shopper.buy_now.bounding_box()
    assert box is not None
    places = [
        (box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        for x in (0.05, 0.5, 0.95)
        for y in (0.1, 0.5, 0.9)
    ]
    shopper.buy()
    under = "([x, y]) => document.elementFromPoint(x, y)?.closest('button, a')?.innerText"
    hit = {shopper.page.evaluate(under, place) for place in places}
    assert hit == {None}, f"a button of the payment page came up where Buy Now was: {hit}"


def test_confirm_then_cancel_pays(still_shop: Shop, visit: Visit) -> None:
    """All buttons in the same moment: the first counts, and the others were already dead."""
    shopper = visit(still_shop)
    payment_id = shopper.buy()
    shopper.page.evaluate(
        "['.actions button', '.plain'].flatMap(which => [...document.querySelectorAll(`#payment ${which}`)])"
        ".forEach(button => button.click())"
    )
    shopper.sees("Paid. Your widget is on its way")
    assert shopper.asked(f"/pay/{payment_id}", "POST") == 1
    assert row(still_shop, payment_id).status == "paid"


def test_confirm_then_cancel_pays_without_javascript(still_shop: Shop, visit: Visit) -> None:
    """The answer to Confirm is slow, so Cancel is pressed: too late, and the page says so."""
    shopper = visit(still_shop, java_script_enabled=False)
    payment_id = shopper.buy()
    confirm, cancel = shopper.place_of(shopper.confirm), shopper.place_of(shopper.cancel)
    shopper.lose_the_first_answer_to_a_form()
    shopper.page.mouse.click(*confirm)
    shopper.wait_until(lambda: row(still_shop, payment_id).status == "paid")
    shopper.page.mouse.click(*cancel)
    shopper.sees("Paid. Your widget is on its way")
    assert row(still_shop, payment_id).status == "paid"
    assert not still_shop.tables.faults()


@pytest.mark.parametrize(("button", "doing"), [("Buy Now", "Reserving…"), ("Confirm payment", "Paying…")])
def test_a_button_stays_dead_until_its_answer_is_there(
    still_shop: Shop, visit: Visit, button: str, doing: str
) -> None:
    """The page goes on looking meanwhile, and what it sees must not bring the button back to life."""
    shopper = visit(still_shop, None, patient=True)
    shopper.page.clock.install()
    shopper.open()
    if button == "Confirm payment":
        shopper.buy()
    pressed = shopper.page.get_by_role("button", name=button)
    held = shopper.hold_forms_back()
    pressed.click()
    pressed = shopper.page.get_by_role("button", name=doing)
    expect(pressed).to_be_disabled()
    for _ in range(2):
        # Somebody else buys, so that there is something new on the shelf; the countdown is always new.
        still_shop.shopper.buy()
        shopper.let_pass(seconds=1)
        assert pressed.is_disabled()
    shopper.wait_until(lambda: len(held) == 1)
    held[0].continue_()
    shopper.sees("Your widget is held" if button == "Buy Now" else "Paid. Your widget is on its way")


@pytest.mark.first_of_all
def test_a_crash_in_the_middle_is_a_pause(open_shop: OpenShop, visit: Visit, free_port: int) -> None:
    """The shop is killed while the bar moves, and started again: the open page goes on by itself."""
    shop = open_shop(STORE_PORT=free_port, STORE_DISPATCH_TICK_SECONDS=0.5)
    shopper = visit(shop, tolerated="ERR_CONNECTION|Failed to fetch|Failed to load resource")
    payment_id = shopper.buy()
    shopper.pay()
    mark(shopper.bar)
    shopper.wait_until(lambda: row(shop, payment_id).progress >= 2)
    shop.server.kill()
    reached = row(shop, payment_id).progress
    assert reached < 10
    with shopper.page.expect_event("requestfailed"):
        pass
    assert shopper.progress <= reached
    shop.server.restart()
    shopper.sees("Dispatched")
    assert shopper.loads() == 1
    assert is_marked(shopper.bar)
    assert not shop.tables.faults()
