"""What moves on an open page by itself, and what stays as it is meanwhile."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from playwright.sync_api import expect

from store.durable.step_decorators import now_ms
from tests.browser.conftest import HoldWrites, OpenShop, Visit
from tests.browser.gallery import move, row
from tests.browser.visitor import NO_ANSWER, Visitor, has_focus, is_marked, mark
from tests.support.shop import Shop
from tests.support.shopper import eventually
from tests.support.standstill import buy_too_late


def test_the_last_unit_goes_to_one_and_a_restock_brings_the_other_back(
    open_shop: OpenShop, visit: Visit
) -> None:
    """Two windows race. The second finds a calm page, which sells again by itself once it can."""
    shop = open_shop(units=1)
    first, second, passer_by = visit(shop), visit(shop), visit(shop)
    held = second.hold_forms_back()
    second.buy_now.click()
    second.wait_until(lambda: len(held) == 1)
    first.buy()  # is faster
    expect(passer_by.page.get_by_role("button", name="Sold out")).to_be_disabled()
    held[0].continue_()

    expect(second.page.get_by_text("You were not charged")).to_be_visible()
    expect(second.page.get_by_role("button", name="Sold out")).to_be_disabled()
    expect(second.page.get_by_role("alert")).to_have_count(0)
    assert max(answer.status for answer in second.responses) < 400
    expect(passer_by.page.get_by_role("button", name="Sold out")).to_be_disabled()

    second.page.unroute("**")
    presenter = visit(shop)
    presenter.page.get_by_role("button", name="Fill the shelf to 100").click()
    expect(presenter.shelf).to_have_text("100")
    expect(passer_by.buy_now).to_be_enabled()
    expect(second.buy_now).to_be_enabled()
    clicked = second.key
    assert second.buy() == clicked
    assert (first.loads(), second.loads(), passer_by.loads()) == (1, 1, 1)
    assert sorted(shop.tables.orders().values()) == ["pending", "pending"]
    assert not shop.tables.faults()


def test_a_sold_out_page_keeps_its_new_key(open_shop: OpenShop, visit: Visit) -> None:
    """Once the shelf is full again, the Buy Now there has one key for as long as the page is open."""
    shop = open_shop(units=1)
    shopper = visit(shop, f"/pay/{buy_too_late(shop)}")
    shopper.sees("Sold out")
    shop.shopper.post("/restock")
    expect(shopper.buy_now).to_be_enabled()
    first = shopper.key
    assert first != shopper.payment_id
    shop.shopper.buy()
    expect(shopper.shelf).to_have_text("99")
    assert shopper.key == first


def test_the_store_page_shows_what_others_do(still_shop: Shop, visit: Visit) -> None:
    """The shelf empties, and a new order comes up, fills its bar and ends, all without a reload."""
    passer_by = visit(still_shop)
    on_hand = int(passer_by.shelf.inner_text())
    buyer = still_shop.shopper
    payment_id = buyer.buy()
    expect(passer_by.shelf).to_have_text(str(on_hand - 1))
    order = passer_by.page.locator(f"#order-{row(still_shop, payment_id).order_id}")
    expect(order).to_contain_text("Awaiting payment")
    bar = order.locator("progress")
    mark(bar)
    buyer.confirm(payment_id)
    expect(order).to_contain_text("On its way, 0 of 10")
    for progress, state in ((4, "On its way, 4 of 10"), (10, "Dispatched")):
        move(still_shop, payment_id, progress)
        expect(order).to_contain_text(state)
        expect(bar).to_have_attribute("value", str(progress))
    assert is_marked(bar)
    assert passer_by.loads() == 1


def test_a_new_order_moves_the_others_down_and_leaves_them_whole(
    still_shop: Shop, paid_order: str, visit: Visit
) -> None:
    """The rows of the list are moved, not made anew: a bar in motion is not interrupted."""
    passer_by = visit(still_shop)
    bar = passer_by.page.locator(f"#order-{row(still_shop, paid_order).order_id} progress")
    mark(bar)
    newer = still_shop.shopper.buy()
    expect(passer_by.page.locator("#recent li").first).to_have_id(f"order-{row(still_shop, newer).order_id}")
    move(still_shop, paid_order, 6)
    expect(bar).to_have_attribute("value", "6")
    assert is_marked(bar)


def test_the_bar_is_the_same_element_from_paid_to_dispatched(
    still_shop: Shop, paid_order: str, visit: Visit
) -> None:
    """So that it can glide, and a screen reader stays on it."""
    shopper = visit(still_shop, f"/orders/{paid_order}")
    wheel = shopper.page.locator("#order .wheel")
    mark(shopper.bar)
    mark(wheel)
    for progress in (3, 8, 10):
        move(still_shop, paid_order, progress)
        expect(shopper.bar).to_have_attribute("value", str(progress))
        assert is_marked(shopper.bar)
        assert is_marked(wheel)
    shopper.sees("Dispatched")


def test_the_keyboard_stays_on_confirm_while_the_countdown_runs(still_shop: Shop, visit: Visit) -> None:
    """Each look at the payment changes the countdown and nothing under the shopper's fingers."""
    shopper = visit(still_shop)
    shopper.buy()
    shopper.confirm.focus()
    mark(shopper.confirm)
    started = shopper.seconds_to_pay
    shopper.wait_until(lambda: shopper.seconds_to_pay < started)
    assert has_focus(shopper.confirm)
    assert is_marked(shopper.confirm)


def test_the_keyboard_stays_on_buy_now_while_the_shelf_changes(still_shop: Shop, visit: Visit) -> None:
    """And the button keeps its key, so that what was begun is what is bought."""
    shopper = visit(still_shop)
    shopper.buy_now.focus()
    mark(shopper.buy_now)
    first, on_hand = shopper.key, int(shopper.shelf.inner_text())
    still_shop.shopper.buy()
    expect(shopper.shelf).to_have_text(str(on_hand - 1))
    assert has_focus(shopper.buy_now)
    assert is_marked(shopper.buy_now)
    assert shopper.key == first


def test_the_checkpoints_stay_open_while_the_order_moves(
    still_shop: Shop, paid_order: str, visit: Visit
) -> None:
    """What the database remembers is read when it is opened, and is not shut by the next look."""
    shopper = visit(still_shop, f"/orders/{paid_order}")
    shopper.page.get_by_text("What the database remembers").click()
    expect(shopper.page.locator("#timeline li").first).to_contain_text("reserve")
    move(still_shop, paid_order, 5)
    expect(shopper.bar).to_have_attribute("value", "5")
    expect(shopper.page.locator("#timeline li").first).to_be_visible()


def test_an_open_page_shows_that_its_payment_window_has_closed(open_shop: OpenShop, visit: Visit) -> None:
    """It goes on to the order, which says what happened, by itself."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=8)
    shopper = visit(shop)
    payment_id = shopper.buy()
    shopper.sees("The payment window closed")
    expect(shopper.page.get_by_text("You were not charged.")).to_be_visible()
    assert shopper.path == f"/orders/{payment_id}"
    expect(shopper.page).to_have_title("Not paid in time · Order No. 1 · The Widget Store")
    assert shopper.loads() == 1
    assert row(shop, payment_id).reason == "expired"
    assert not shop.tables.faults()


def test_the_countdown_counts_while_the_server_is_away(open_shop: OpenShop, visit: Visit) -> None:
    """To the deadline that the database has; at zero nothing can be pressed, and then it says why."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=8)
    shopper = visit(shop, patient=True, tolerated=NO_ANSWER)
    payment_id = shopper.buy()
    assert 2 < shopper.seconds_to_pay <= 8  # a busy machine takes some of them to show the page
    shopper.page.route("**", lambda route: route.abort("connectionrefused"))
    shopper.wait_until(lambda: shopper.seconds_to_pay <= 2)
    deadline = row(shop, payment_id).pay_by_ms
    before, shown, after = now_ms(), shopper.seconds_to_pay, now_ms()
    lag_ms = 400  # it looks at its clock five times a second
    assert deadline - after <= shown * 1000 < deadline - before + 1000 + lag_ms
    expect(shopper.confirm).to_be_enabled()
    shopper.wait_until(lambda: shopper.seconds_to_pay == 0)
    assert now_ms() >= deadline
    expect(shopper.confirm).to_be_disabled()
    expect(shopper.cancel).to_be_disabled()
    shopper.page.unroute("**")
    shopper.sees("The payment window closed")
    assert shopper.loads() == 1


@contextmanager
def asleep(shopper: Visitor) -> Iterator[None]:
    """Its tabs stand still, as on a laptop that is closed: headless, Chromium freezes none when told to."""
    chromium = shopper.page.context.browser
    assert chromium is not None
    session = chromium.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    tabs = [process["id"] for process in processes if process["type"] == "renderer"]
    for tab in tabs:
        os.kill(tab, signal.SIGSTOP)
    try:
        session.send("Browser.getVersion")  # what was asked before has been told by then
        asked = len(shopper.requests)
        yield
        session.send("Browser.getVersion")
        assert len(shopper.requests) == asked, "it did not sleep"
    finally:
        for tab in tabs:
            os.kill(tab, signal.SIGCONT)


def test_a_tab_that_slept_through_the_deadline_shows_what_happened(open_shop: OpenShop, visit: Visit) -> None:
    """No clock of its ticks; it wakes up with nothing left to press."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=8)
    shopper = visit(shop, tolerated=NO_ANSWER)
    payment_id = shopper.buy()
    assert shopper.seconds_to_pay > 0
    with asleep(shopper):
        eventually(lambda: row(shop, payment_id).status, lambda status: status == "cancelled")
    shopper.sees("The payment window closed")
    assert shopper.path == f"/orders/{payment_id}"
    assert shopper.loads() == 1


def test_a_clock_that_is_wrong_does_not_change_the_countdown(still_shop: Shop, visit: Visit) -> None:
    """A shopper's computer may think that it is last week; what counts is what the server says is left."""
    shopper = visit(still_shop)
    shopper.page.clock.set_system_time("2020-02-02T02:02:02")
    shopper.open()
    shopper.buy()
    assert 590 < shopper.seconds_to_pay <= 600
    expect(shopper.confirm).to_be_enabled()


def test_an_open_order_page_shows_what_became_of_its_payment(still_shop: Shop, visit: Visit) -> None:
    """Whoever waits there, with JavaScript or without, sees what was decided elsewhere."""
    payment_id = still_shop.shopper.buy()
    readers = [visit(still_shop, f"/orders/{payment_id}", java_script_enabled=on) for on in (True, False)]
    for reader in readers:
        reader.sees("Waiting for your payment")
    still_shop.shopper.cancel(payment_id)
    for reader in readers:
        reader.sees("Payment cancelled")


def test_a_slow_reservation_is_waited_for_on_the_payment_page(
    still_shop: Shop, visit: Visit, nobody_writes: HoldWrites
) -> None:
    """Reserving, with nothing to press, and then the payment, by itself and announced."""
    shopper = visit(still_shop)
    payment_id = shopper.key
    with nobody_writes(still_shop):
        shopper.buy_now.click()
        shopper.sees("Reserving your widget…")
        expect(shopper.page.get_by_role("main").get_by_role("button")).to_have_count(0)
        assert shopper.path == f"/pay/{payment_id}"
        mark(shopper.page.locator("#announcement"))
    shopper.sees("Your widget is held")
    assert is_marked(shopper.page.locator("#announcement"))
    shopper.pay()


def test_what_has_not_changed_is_answered_without_a_body(
    still_shop: Shop, paid_order: str, visit: Visit
) -> None:
    """304, by the tag of what the page shows; as soon as something changes, 200 once."""
    shopper = visit(still_shop, f"/orders/{paid_order}")
    shopper.wait_until(lambda: shopper.asked("/progress") > 2)
    looks = [answer for answer in shopper.responses if "/progress" in answer.url][:2]
    assert [look.status for look in looks] == [200, 304]
    assert looks[1].request.headers["hx-ptag"] == looks[0].headers["hx-ptag"]
    move(still_shop, paid_order, 2)
    expect(shopper.bar).to_have_attribute("value", "2")
    shopper.wait_until(lambda: shopper.responses[-1].status == 304)
    looks = [answer for answer in shopper.responses if "/progress" in answer.url]
    assert [look.status for look in looks].count(200) == 2


def test_a_quiet_store_page_is_answered_without_a_body(open_shop: OpenShop, visit: Visit) -> None:
    """Shelf and orders alike, from their second look on."""
    passer_by = visit(open_shop())
    for address in ("/shelf", "/recent"):
        passer_by.wait_until(lambda: passer_by.asked(address) >= 3)  # noqa: B023 - used before the next round
    for address in ("/shelf", "/recent"):
        statuses = [answer.status for answer in passer_by.responses if address in answer.url]
        assert statuses[0] == 200
        assert set(statuses[1:]) == {304}


def test_times_are_those_of_whoever_reads_them(still_shop: Shop, paid_order: str, visit: Visit) -> None:
    """In their zone, by its name, also after the next look; the truth stays in UTC."""
    shopper = visit(still_shop, f"/orders/{paid_order}", timezone_id="Asia/Kolkata")
    changed = shopper.page.locator(".receipt time").last
    before = changed.get_attribute("datetime")
    expect(changed).to_have_text(re.compile(r"\d\d:\d\d:\d\d GMT\+5:30"))
    still_shop.tables.change("UPDATE orders SET updated_at_ms = updated_at_ms + 60000")
    move(still_shop, paid_order, 3)
    expect(shopper.bar).to_have_attribute("value", "3")
    expect(changed).to_have_text(re.compile(r"\d\d:\d\d:\d\d GMT\+5:30"))
    shown = datetime.fromisoformat(changed.get_attribute("datetime") or "")
    assert shown == datetime.fromisoformat(before or "") + timedelta(minutes=1)
    assert f"{shown.astimezone(ZoneInfo('Asia/Kolkata')):%H:%M:%S}" in changed.inner_text()
    shopper.page.get_by_text("What the database remembers").click()
    expect(shopper.page.locator("[data-zone]")).to_have_text("GMT+5:30")
    reader = visit(still_shop, f"/orders/{paid_order}", java_script_enabled=False)
    assert reader.page.locator(".receipt time").last.inner_text() == f"{shown:%H:%M:%S} UTC"
