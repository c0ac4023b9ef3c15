"""Back, forward, reload and bookmarks, on every page and in bad moments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from playwright.sync_api import Error, Route, expect

from tests.browser.conftest import HoldWrites, Visit
from tests.browser.gallery import row
from tests.browser.visitor import Visitor
from tests.support.shop import Shop
from tests.support.shopper import eventually

# What a browser says by itself of an answer that is an error.
REFUSED = "Failed to load resource: the server responded with a status of"
BREATHLESS = "The shop is catching its breath"
with_javascript_and_without = pytest.mark.parametrize(
    "javascript", [True, False], ids=["with_javascript", "without_javascript"]
)


@contextmanager
def closed_tables(shop: Shop) -> Iterator[None]:
    """A database that answers no page: its table of products is away for a while."""
    shop.tables.change("ALTER TABLE products RENAME TO away")
    try:
        yield
    finally:
        shop.tables.change("ALTER TABLE away RENAME TO products")


@with_javascript_and_without
def test_back_forward_and_reload_before_paying(still_shop: Shop, visit: Visit, javascript: bool) -> None:
    """Back to the store, forward to the same order, still held."""
    shopper = visit(still_shop, java_script_enabled=javascript)
    key = shopper.key
    payment_id = shopper.buy()
    shopper.page.go_back()
    shopper.sees("The Widget")
    assert shopper.path == "/"
    expect(shopper.page).to_have_title("The Widget · The Widget Store")
    assert shopper.key != key, "the store came back with a Buy Now that was used already"
    shopper.page.go_forward()
    shopper.sees("Your widget is held")
    assert shopper.path == f"/pay/{payment_id}"
    expect(shopper.page).to_have_title("Pay · The Widget Store")
    shopper.page.reload()
    shopper.sees("Your widget is held")
    shopper.pay()
    assert row(still_shop, payment_id).status == "paid"


@with_javascript_and_without
def test_back_after_a_purchase_leads_to_a_new_one(
    still_shop: Shop, lively_shop: Shop, visit: Visit, javascript: bool
) -> None:
    """The store that comes back has a Buy Now with a new key, and it makes a second order."""
    shop = still_shop if javascript else lively_shop
    shopper = visit(shop, java_script_enabled=javascript)
    first = shopper.buy()
    shopper.pay()
    if not javascript:
        # Until an order is final, such a browser loads its page again every second; a Back that meets that
        # moment is lost.
        shopper.sees("Dispatched")
    shopper.page.go_back()
    if not javascript:
        # The browser itself keeps the payment page's place, whose address leads to the order by now.
        shopper.sees("Dispatched")
        shopper.page.go_back()
    shopper.sees("The Widget")
    assert shopper.path == "/"
    assert shopper.key != first
    second = shopper.buy()
    shopper.pay()
    assert second != first
    assert row(shop, second).order_id > row(shop, first).order_id
    assert {row(shop, first).status, row(shop, second).status} <= {"paid", "dispatched"}


def test_back_after_a_cancelled_purchase_leads_to_the_store(still_shop: Shop, visit: Visit) -> None:
    """Not to the buttons that were pressed already. And forward leads to the order again."""
    shopper = visit(still_shop)
    payment_id = shopper.buy()
    shopper.cancel.click()
    shopper.sees("Payment cancelled")
    assert shopper.path == f"/orders/{payment_id}"
    shopper.page.go_back()
    shopper.sees("The Widget")
    assert shopper.path == "/"
    shopper.page.go_forward()
    shopper.sees("Payment cancelled")
    assert shopper.path == f"/orders/{payment_id}"


def test_back_after_a_payment_that_was_settled_elsewhere_leads_to_the_store(
    still_shop: Shop, visit: Visit
) -> None:
    """The page went on to the order by itself, and left no step of its own in the history."""
    shopper = visit(still_shop)
    payment_id = shopper.buy()
    still_shop.shopper.cancel(payment_id)
    shopper.sees("Payment cancelled")
    assert shopper.path == f"/orders/{payment_id}"
    shopper.page.go_back()
    shopper.sees("The Widget")
    assert shopper.path == "/"


def test_a_look_that_overtakes_the_answer_to_confirm_leaves_no_step(still_shop: Shop, visit: Visit) -> None:
    """The page may hear that it is paid before its Confirm is answered. It becomes one order page."""
    shopper = visit(still_shop, None, patient=True)
    shopper.page.clock.install()
    payment_id = shopper.open().buy()
    steps = shopper.page.evaluate("history.length")
    held = shopper.hold_forms_back()
    shopper.confirm.click()
    shopper.wait_until(lambda: len(held) == 1)
    still_shop.shopper.confirm(payment_id)
    for _ in range(3):
        shopper.let_pass(seconds=1)
    held[0].continue_()
    shopper.sees("Paid. Your widget is on its way")
    shopper.let_pass(seconds=1)
    assert shopper.page.evaluate("history.length") == steps
    assert shopper.path == f"/orders/{payment_id}"
    shopper.page.go_back()
    shopper.sees("The Widget")


def waits_for_its_order(shop: Shop, visit: Visit) -> tuple[Visitor, list[Route]]:
    """A payment page whose order was cancelled elsewhere, and its requests for that: held back."""
    shopper = visit(shop, None, patient=True)
    shopper.page.clock.install()
    payment_id = shopper.open().buy()
    held = shopper.hold_back(f"**/orders/{payment_id}")
    shop.shopper.cancel(payment_id)
    for _ in range(4):
        shopper.let_pass(seconds=1)
    shopper.wait_until(lambda: len(held) == 1)
    return shopper, held


def test_back_while_the_order_is_on_its_way_stays_at_the_store(still_shop: Shop, visit: Visit) -> None:
    """A slow shop: several looks come and go before the order does, which then is not wanted any more."""
    shopper, held = waits_for_its_order(still_shop, visit)
    shopper.page.go_back()
    shopper.sees("The Widget")
    with suppress(Error):  # it was taken back
        held[0].continue_()
    for _ in range(3):
        shopper.let_pass(seconds=1)
    assert len(held) == 1
    shopper.sees("The Widget")
    assert shopper.path == "/"


def test_a_slow_order_is_asked_for_once(still_shop: Shop, visit: Visit) -> None:
    """However often the payment page looks meanwhile."""
    shopper, held = waits_for_its_order(still_shop, visit)
    held[0].continue_()
    shopper.sees("Payment cancelled")
    for _ in range(3):
        shopper.let_pass(seconds=1)
    assert len(held) == 1


def test_filling_the_shelf_is_no_step_in_the_history(still_shop: Shop, visit: Visit) -> None:
    """The presenter stays on the store page, however often the shelf is filled."""
    still_shop.shopper.buy()
    presenter = visit(still_shop)
    steps = presenter.page.evaluate("history.length")
    presenter.page.get_by_role("button", name="Fill the shelf").click()
    expect(presenter.shelf).to_have_text("100")
    assert presenter.path == "/"
    assert presenter.page.evaluate("history.length") == steps


def test_a_form_that_was_refused_leaves_the_address_alone(still_shop: Shop, visit: Visit) -> None:
    """So that a reload shows the page again, and does not ask for the form's own address."""
    shopper = visit(still_shop, tolerated=f"{REFUSED} 400")
    # In one go, because the next look at the shelf puts the key right again.
    shopper.page.locator("#shelf form").evaluate(
        "form => { form.key.value = 'no key'; form.requestSubmit() }"
    )
    shopper.sees("That Buy Now has no usable key")
    assert shopper.path == "/"
    shopper.page.reload()
    shopper.sees("The Widget")
    assert shopper.path == "/"


# --- while the database is away ---------------------------------------------------------


def test_going_back_while_the_database_is_away_arrives_once_it_is_back(
    still_shop: Shop, visit: Visit
) -> None:
    """The page stays as it is and says that the way is kept, and then goes back by itself."""
    shopper = visit(still_shop, tolerated=REFUSED)
    shopper.buy()
    with closed_tables(still_shop):
        # What the shop has read a moment before the trouble, it still tells everybody.
        shopper.wait_until(lambda: shopper.responses[-1].status == 503)
        shopper.page.go_back()
        expect(shopper.page.locator("#outage")).to_contain_text("Your click is kept")
        shopper.sees("Your widget is held")
    shopper.sees("The Widget")
    assert shopper.path == "/"
    expect(shopper.buy_now).to_be_enabled()


def test_a_page_opened_while_the_database_is_away_gets_over_it(still_shop: Shop, visit: Visit) -> None:
    """503, and then, without anybody doing anything, the page that was asked for."""
    with closed_tables(still_shop):
        eventually(lambda: still_shop.shopper.page("/").status, lambda status: status == 503)
        shopper = visit(still_shop, tolerated=REFUSED)
        shopper.sees(BREATHLESS)
        answers = [answer for answer in shopper.responses if answer.url.endswith("/")]
        assert (answers[0].status, answers[0].headers["retry-after"]) == (503, "2")
        plain = visit(still_shop, tolerated=REFUSED, java_script_enabled=False)
        plain.sees(BREATHLESS)
        assert plain.page.locator("meta[http-equiv=refresh]").get_attribute("content") == "3"
    shopper.sees("The Widget")
    assert shopper.path == "/"
    expect(shopper.page).to_have_title("The Widget · The Widget Store")


def test_buy_now_while_nothing_can_be_written_is_kept_until_it_can(
    still_shop: Shop, visit: Visit, nobody_writes: HoldWrites
) -> None:
    """The page stays, says that the click is kept, and goes on by itself: one order, of that key."""
    shopper = visit(still_shop, tolerated=REFUSED)
    before, key = len(still_shop.tables.orders()), shopper.key
    with nobody_writes(still_shop, checkpoints=True):
        shopper.buy_now.click()
        expect(shopper.page.locator("#outage")).to_contain_text("Your click is kept")
        shopper.sees("The Widget")
    shopper.sees("Your widget is held")
    assert shopper.payment_id == key
    assert len(still_shop.tables.orders()) == before + 1
    assert not still_shop.tables.faults()


def test_without_javascript_buy_now_can_be_tried_again(
    still_shop: Shop, visit: Visit, nobody_writes: HoldWrites
) -> None:
    """The shop says that trying again makes no second order: so there is a way to, with the same key."""
    shopper = visit(still_shop, tolerated=REFUSED, java_script_enabled=False)
    before, key = len(still_shop.tables.orders()), shopper.key
    with nobody_writes(still_shop, checkpoints=True):
        shopper.buy_now.click()
        shopper.sees(BREATHLESS)
    # A refresh would come back with GET, and the way to buy is POST.
    answer = next(each for each in shopper.responses if each.request.method == "POST")
    assert 'http-equiv="refresh"' not in answer.text()
    shopper.page.get_by_role("button", name="Try again").click()
    shopper.sees("Your widget is held")
    assert shopper.payment_id == key
    assert len(still_shop.tables.orders()) == before + 1
    assert not still_shop.tables.faults()
