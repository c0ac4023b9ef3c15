"""Every way in which a checkout begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from store.durable.step_decorators import now_ms
from tests.support.shop import Shop
from tests.support.shopper import Shopper, eventually, key
from tests.support.standstill import buy_too_late

pytestmark = pytest.mark.each_database

OpenShop = Callable[..., Shop]


def test_a_paid_order_is_dispatched(shop: Shop, shopper: Shopper) -> None:
    """The whole of a purchase, as forms without JavaScript make it."""
    payment_id = shopper.hold()
    assert shopper.page(f"/pay/{payment_id}").heading == "Your widget is held"
    answer = shopper.confirm(payment_id)
    assert (answer.status, answer.location) == (303, f"/orders/{payment_id}")
    shopper.wait_for(payment_id, "Dispatched")
    assert shop.tables.orders()[payment_id] == "dispatched"
    assert not shop.tables.faults()


def test_a_declined_order_gives_its_unit_back(shop: Shop, shopper: Shopper) -> None:
    """Cancel on the payment page: no charge, and the unit is released."""
    payment_id = shopper.buy()
    shopper.cancel(payment_id)
    shopper.wait_for(payment_id, "Payment cancelled")
    assert shop.tables.orders()[payment_id] == "declined"
    assert not shop.tables.faults()


def test_an_order_that_nobody_pays_expires(open_shop: OpenShop) -> None:
    """The window closes by itself, and the unit goes back on the shelf."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=0.2)
    payment_id = shop.shopper.buy()
    shop.shopper.wait_for(payment_id, "The payment window closed")
    assert shop.tables.orders()[payment_id] == "expired"
    assert not shop.tables.faults()


def test_paying_after_the_window_shows_that_it_closed(open_shop: OpenShop) -> None:
    """Too late is said on the order's page, and the money goes back."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=0.2)
    payment_id = shop.shopper.buy()
    shop.shopper.wait_for(payment_id, "The payment window closed")
    answer = shop.shopper.confirm(payment_id)
    assert (answer.status, answer.location) == (303, f"/orders/{payment_id}")
    assert "came too late and has been refunded in full" in shop.shopper.order(payment_id).text
    assert shop.tables.orders()[payment_id] == "expired"
    assert shop.tables.rows("SELECT kind, amount_cents FROM payments ORDER BY kind") == [
        ("charge", 9999),
        ("refund", 9999),
    ]
    assert not shop.tables.faults()


@pytest.mark.sampled(1)  # on one database
def test_a_payment_window_is_made_longer_once(open_shop: OpenShop) -> None:
    """By its own length, and not again; the checkout waits on at the old deadline, also after a crash."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=4)
    payment_id = shop.shopper.hold()

    def window() -> tuple[int, bool]:
        [row] = shop.tables.rows("SELECT pay_by_ms - created_at_ms AS ms, extended_at_ms FROM orders")
        return row.ms, row.extended_at_ms is not None

    def settled() -> int:
        [row] = shop.checkpoints.rows(
            "SELECT count(*) AS n FROM operation_outputs"
            " WHERE workflow_uuid = :id AND function_name = 'settle'",
            id=payment_id,
        )
        return int(row.n)

    assert window() == (4_000, False)
    more_time = f"/pay/{payment_id}/more_time"
    assert more_time in shop.shopper.page(f"/pay/{payment_id}").text
    for _ in range(2):
        answer = shop.shopper.submit(more_time)
        assert (answer.status, answer.location) == (303, f"/pay/{payment_id}")
        assert window() == (8_000, True)
    assert more_time not in shop.shopper.page(f"/pay/{payment_id}").text
    # The workflow remembers the old deadline until it has looked again.
    books = shop.shopper.get("/ledger.json").json
    assert (books["balanced"], books["faults"]) == (True, [])
    eventually(settled, lambda count: count == 1)  # at the old deadline: not yet
    shop.server.kill()
    shop.server.restart()
    shop.shopper.wait_for(payment_id, "The payment window closed")
    eventually(settled, lambda count: count == 2)
    assert shop.tables.rows("SELECT 1 FROM orders WHERE updated_at_ms >= created_at_ms + 8000")
    assert shop.shopper.submit(more_time).location == f"/pay/{payment_id}"
    assert window() == (8_000, True)
    assert shop.tables.orders()[payment_id] == "expired"
    assert not shop.tables.faults()


@pytest.mark.sampled(1)  # on one database
def test_more_time_is_time_to_pay(open_shop: OpenShop) -> None:
    """A payment after the old deadline is in time."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=3)
    payment_id = shop.shopper.hold()
    shop.shopper.submit(f"/pay/{payment_id}/more_time")
    ended = "SELECT created_at_ms + 3000 FROM orders"
    eventually(now_ms, lambda now: now > shop.tables.rows(ended)[0][0])
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    assert not shop.tables.faults()
    assert shop.shopper.submit("/pay/nobody-at-all/more_time").status == 404


@pytest.mark.first_of_all
def test_the_last_unit_is_sold_once(open_shop: OpenShop) -> None:
    """Of two clicks at the same moment, the later finds the shelf empty, as a page and not as an error."""
    shop = open_shop(units=1)
    second = buy_too_late(shop)
    assert sorted(shop.tables.orders().values()) == ["pending", "sold_out"]
    [first] = set(shop.tables.orders()) - {second}
    assert shop.shopper.page(f"/pay/{first}").heading == "Your widget is held"
    assert shop.shopper.page(f"/pay/{second}").heading == "Sold out"
    assert not shop.tables.faults()


def test_a_sold_out_page_sells_again_once_the_shelf_is_filled(open_shop: OpenShop) -> None:
    """The sold-out page itself offers the way back in, with a key of its own."""
    shop = open_shop(units=1)
    payment_id = buy_too_late(shop)
    assert shop.shopper.submit("/restock").status == 303
    again = shop.shopper.page(f"/pay/{payment_id}").key
    assert again != payment_id
    assert shop.shopper.page(f"/pay/{shop.shopper.hold(again)}").heading == "Your widget is held"
    assert not shop.tables.faults()


def test_a_click_on_an_empty_shelf_makes_nothing_and_its_key_buys_later(open_shop: OpenShop) -> None:
    """No row and no workflow, however often it is clicked; the page says so, and keeps the key."""
    shop = open_shop(units=0)
    started = shop.checkpoints.rows("SELECT count(*) FROM workflow_status")
    one_key = key()
    for _ in range(20):
        assert shop.shopper.submit("/buy", key=one_key).location == f"/?key={one_key}"
        assert shop.shopper.post(f"/checkout/{one_key}").status == 409
    page = shop.shopper.page(f"/?key={one_key}")
    assert "Somebody took the last widget a moment before you." in page.text
    assert "Buy Now" not in page.text
    assert shop.tables.orders() == {}
    assert shop.checkpoints.rows("SELECT count(*) FROM workflow_status") == started

    assert shop.shopper.submit("/restock").status == 303
    page = shop.shopper.page(f"/?key={one_key}")
    assert page.key == one_key
    assert "Somebody took" not in page.text
    assert shop.shopper.post(f"/checkout/{one_key}").text == one_key
    assert shop.shopper.page(f"/pay/{shop.shopper.hold(one_key)}").heading == "Your widget is held"
    assert shop.tables.orders() == {one_key: "pending"}
    assert not shop.tables.faults()


def test_a_double_click_makes_one_order(shop: Shop, shopper: Shopper) -> None:
    """The same key, many times, at once and again later, is one order and one unit."""
    one_key = shopper.page("/").key
    with ThreadPoolExecutor(8) as clicks:
        assert set(clicks.map(shopper.buy, [one_key] * 8)) == {one_key}
    shopper.confirm(one_key)
    shopper.wait_for(one_key, "Dispatched")
    assert shopper.buy(one_key) == one_key
    assert len(shop.tables.rows("SELECT 1 FROM orders WHERE payment_id = :id", id=one_key)) == 1
    assert not shop.tables.faults()


def test_a_hundred_shoppers_buy_exactly_ten_units(open_shop: OpenShop) -> None:
    """Ten units, a hundred keys at the same moment: ten are held, ninety find it sold out."""
    shop = open_shop(units=10)
    keys = [key() for _ in range(100)]
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda each: shop.shopper.post(f"/checkout/{each}"), keys))
    assert sorted(answer.status for answer in answers) == [200] * 10 + [409] * 90
    # Who came when the shelf was seen to be empty has no order; who came just before has one, sold out.
    endings = sorted(shop.tables.orders().values())
    assert endings[:10] == ["pending"] * 10
    assert set(endings[10:]) <= {"sold_out"}
    assert not shop.tables.faults()


def test_the_first_outcome_of_a_payment_counts(shop: Shop, shopper: Shopper) -> None:
    """Confirmed and declined at once, many times: one outcome, and every answer shows it."""
    payment_id = shopper.buy()
    paths = [f"/payment_webhook/{payment_id}/{status}" for status in ("paid", "failed") * 4]
    with ThreadPoolExecutor(8) as banks:
        answers = list(banks.map(shopper.post, paths))
    order_id = shop.tables.rows("SELECT order_id FROM orders WHERE payment_id = :id", id=payment_id)[0][0]
    assert {(answer.status, answer.text) for answer in answers} == {(200, str(order_id))}
    outcome = eventually(
        lambda: shop.tables.orders()[payment_id], lambda status: status in {"dispatched", "declined"}
    )
    late = shopper.post(f"/payment_webhook/{payment_id}/{'failed' if outcome == 'dispatched' else 'paid'}")
    assert (late.status, late.text) == (200, str(order_id))
    assert shop.tables.orders()[payment_id] == outcome
    assert not shop.tables.faults()


def test_a_restock_is_in_the_books(open_shop: OpenShop) -> None:
    """The shelf is topped up to a hundred, and the movement says by how many."""
    shop = open_shop(units=3)
    assert shop.shopper.post("/restock").json == {"units_added": 97}
    assert shop.shopper.post("/restock").json == {"units_added": 0}
    assert shop.shopper.get("/product").json["inventory"] == 100
    assert not shop.tables.faults()
