"""The JSON routes, field by field: a contract that other front ends already speak."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.refusal import refuses
from tests.support.shop import Shop
from tests.support.shopper import Answer, Shopper, eventually, key
from tests.support.standstill import buy_too_late, orders_held

OpenShop = Callable[..., Shop]

_ORDER_FIELDS = {
    "order_id": int,
    "order_status": int,
    "last_update_time": str,
    "product_id": int,
    "progress_remaining": int,
}
_CANCELLED, _PENDING, _DISPATCHED, _PAID = -1, 0, 1, 2


def is_error(answer: Answer, status: int) -> bool:
    """`{"error": "<one sentence a person can act on>"}` and nothing else, with this status."""
    return answer.headers["Content-Type"] == "application/json" and refuses(answer, status)


def is_text(answer: Answer, text: str) -> bool:
    """The bare text, without so much as a newline."""
    kind = answer.headers["Content-Type"].partition(";")[0]
    return (answer.status, kind, answer.text) == (200, "text/plain", text)


def shape(of: dict[str, Any]) -> dict[str, type]:
    """The fields of a JSON object and the type of each."""
    return {name: type(value) for name, value in of.items()}


def number_of(shop: Shop, payment_id: str) -> int:
    """The order number that belongs to a payment id."""
    return int(shop.tables.rows("SELECT order_id FROM orders WHERE payment_id = :id", id=payment_id)[0][0])


@pytest.fixture
def stocked_shop(open_shop: OpenShop) -> Shop:
    """A shop with 150 orders of old, all of them sold out, numbered from 1."""
    shop = open_shop()
    shop.tables.change(
        "INSERT INTO orders (payment_id, order_id, product_id, price_cents, status, reason, progress,"
        " created_at_ms, pay_by_ms, updated_at_ms)"
        " WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 150)"
        " SELECT 'old-order-' || n, n, 1, 9999, 'cancelled', 'sold_out', 0, n, n, n FROM numbers"
    )
    shop.tables.change("UPDATE counters SET value = 150 WHERE counter = 'orders'")
    return shop


# --- GET /product -----------------------------------------------------------------------


def test_the_product_has_five_fields_and_its_price_is_in_dollars(shopper: Shopper) -> None:
    """Exactly these names and types; the price is a number, not text."""
    answer = shopper.get("/product")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    product = answer.json
    assert shape(product) == {
        "product_id": int,
        "product": str,
        "description": str,
        "inventory": int,
        "price": float,
    }
    assert (product["product_id"], product["product"], product["price"]) == (1, "The Widget", 99.99)
    assert '"price":99.99' in answer.text.replace(" ", "")


def test_the_inventory_is_what_is_on_the_shelf(shop: Shop, shopper: Shopper) -> None:
    """The same number as in the table, once orders of others have stopped moving it."""
    eventually(
        lambda: (shopper.get("/product").json["inventory"], shop.tables.rows("SELECT on_hand FROM products")),
        lambda seen: [(seen[0],)] == [tuple(row) for row in seen[1]],
    )


# --- GET /orders and GET /order/<order_id> ------------------------------------------------


def test_an_order_has_five_fields_in_each_of_its_states(open_shop: OpenShop) -> None:
    """The same object in the list and alone; the status is a number, and no payment id is told."""
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=3600)
    shopper = shop.shopper
    began = datetime.now(UTC) - timedelta(seconds=1)
    pending, paid, cancelled = (shopper.post(f"/checkout/{key()}").text for _ in range(3))
    shopper.post(f"/payment_webhook/{paid}/paid")
    shopper.post(f"/payment_webhook/{cancelled}/failed")

    listed = {order["order_id"]: order for order in shopper.get("/orders").json}
    for payment_id, status in ((pending, _PENDING), (paid, _PAID), (cancelled, _CANCELLED)):
        order = listed[number_of(shop, payment_id)]
        assert shape(order) == _ORDER_FIELDS
        assert (order["order_status"], order["product_id"], order["progress_remaining"]) == (status, 1, 10)
        changed = datetime.fromisoformat(order["last_update_time"])
        assert changed.tzinfo is not None
        assert began <= changed <= datetime.now(UTC) + timedelta(seconds=1)
        assert shopper.get(f"/order/{order['order_id']}").json == order


def test_progress_remaining_counts_down_from_ten_to_nothing(open_shop: OpenShop) -> None:
    """Each tick of the row is told as what is still to come."""
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=3600)
    payment_id = shop.shopper.hold()
    order_id = number_of(shop, payment_id)
    assert shop.shopper.get(f"/order/{order_id}").json["progress_remaining"] == 10
    shop.shopper.confirm(payment_id)
    for progress in range(11):
        status = "dispatched" if progress == 10 else "paid"
        shop.tables.change(
            "UPDATE orders SET progress = :progress, status = :status", progress=progress, status=status
        )
        order = shop.shopper.get(f"/order/{order_id}").json
        assert order["progress_remaining"] == 10 - progress
        assert order["order_status"] == (_DISPATCHED if progress == 10 else _PAID)


def test_a_dispatch_is_seen_to_go_one_way(shop: Shop, shopper: Shopper) -> None:
    """What a front end polls never goes back, and ends at status 1 with nothing remaining."""
    payment_id = shopper.hold()
    order_id = number_of(shop, payment_id)
    seen: list[dict[str, Any]] = [shopper.get(f"/order/{order_id}").json]
    shopper.post(f"/payment_webhook/{payment_id}/paid")

    def look() -> dict[str, Any]:
        seen.append(next(order for order in shopper.get("/orders").json if order["order_id"] == order_id))
        return seen[-1]

    eventually(look, lambda order: order["order_status"] == _DISPATCHED)
    remaining = [order["progress_remaining"] for order in seen]
    assert remaining == sorted(remaining, reverse=True)
    assert (remaining[0], remaining[-1]) == (10, 0)
    times = [datetime.fromisoformat(order["last_update_time"]) for order in seen]
    assert times == sorted(times)
    assert all((order["order_status"] == _DISPATCHED) == (order["progress_remaining"] == 0) for order in seen)


def test_orders_are_newest_first_and_a_hundred_at_most(stocked_shop: Shop) -> None:
    """The list is bounded whoever asks; `before` walks through all of it."""
    shopper = stocked_shop.shopper
    newest = number_of(stocked_shop, shopper.hold())

    def numbers(query: str = "") -> list[int]:
        answer = shopper.get(f"/orders{query}")
        assert answer.status == 200, answer
        return [order["order_id"] for order in answer.json]

    assert newest == 151
    assert numbers() == list(range(151, 51, -1))
    assert numbers("?limit=100") == list(range(151, 51, -1))
    assert numbers("?limit=3") == [151, 150, 149]
    assert numbers("?before=52") == list(range(51, 0, -1))
    assert numbers("?before=52&limit=2") == [51, 50]
    assert numbers("?before=1") == []
    assert numbers("?before=2147483647&limit=1") == [151]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=ten",
        "limit=1.5",
        "limit=",
        "before=0",
        "before=x",
        f"before={10**30}",
    ],
)
def test_a_bad_page_of_orders_is_refused(shopper: Shopper, query: str) -> None:
    """400, and the sentence names the parameter."""
    answer = shopper.get(f"/orders?{query}")
    assert is_error(answer, 400), answer
    assert query.partition("=")[0] in answer.json["error"]


@pytest.mark.parametrize("number", ["0", "2147483647", "2147483648", str(10**30)])
def test_an_unknown_order_number_is_not_found(shopper: Shopper, number: str) -> None:
    """404 as JSON, however large the number."""
    assert is_error(shopper.get(f"/order/{number}"), 404)


# --- POST /checkout and POST /payment_webhook ---------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [(None, ""), (b"", ""), (b"{}", "application/json"), (b'{"quantity": 1}', "application/json"),
     (b"{not JSON", "application/json")],
    ids=["no body", "empty body", "empty object", "object", "not JSON"],
)  # fmt: skip
def test_a_purchase_by_program(shop: Shop, body: bytes | None, kind: str) -> None:
    """Ids come back as plain text, at once readable in the list, whatever the body says."""
    shopper, one_key = shop.shopper, key()
    headers = {"Accept": "*/*", **({"Content-Type": kind} if kind else {})}
    assert is_text(shopper.request("POST", f"/checkout/{one_key}", body, headers), one_key)
    order_id = number_of(shop, one_key)
    assert shopper.get("/orders?limit=1").json[0]["order_id"] == order_id
    assert is_text(shopper.request("POST", f"/payment_webhook/{one_key}/paid", body, headers), str(order_id))
    assert shopper.get(f"/order/{order_id}").json["order_status"] in {_PAID, _DISPATCHED}


@pytest.mark.parametrize(("status", "ending"), [("paid", "dispatched"), ("failed", "declined")])
def test_repeating_a_request_is_safe(shop: Shop, shopper: Shopper, status: str, ending: str) -> None:
    """Asked twice, or the other way round later: the first answer again, one order, one outcome."""
    one_key = key()
    assert [shopper.post(f"/checkout/{one_key}").text for _ in range(3)] == [one_key] * 3
    order_id = str(number_of(shop, one_key))
    for said in (status, status, "failed", "paid"):
        assert is_text(shopper.post(f"/payment_webhook/{one_key}/{said}"), order_id)
    eventually(lambda: shop.tables.orders()[one_key], lambda status: status == ending)
    assert is_text(shopper.post(f"/checkout/{one_key}"), one_key)
    assert shop.tables.orders()[one_key] == ending
    assert not shop.tables.faults()


def test_a_sold_out_checkout_is_a_conflict(open_shop: OpenShop) -> None:
    """409, every time for an order that came too late; a key that made none buys after a restock."""
    shop = open_shop(units=1)
    late, early = buy_too_late(shop), key()
    for one_key in (late, early) * 2:
        assert is_error(shop.shopper.post(f"/checkout/{one_key}"), 409)
    shop.shopper.post("/restock")
    assert is_error(shop.shopper.post(f"/checkout/{late}"), 409)
    for one_key in (early, key()):
        assert is_text(shop.shopper.post(f"/checkout/{one_key}"), one_key)
    assert sorted(shop.tables.orders().values()) == ["pending"] * 3 + ["sold_out"]


def test_a_shop_that_cannot_write_says_504_and_may_be_asked_again(tmp_path: Path) -> None:
    """Ten seconds at most; what was asked for goes on, and the same request then finds it done."""
    shop = Shop(f"sqlite:///{tmp_path}/store.sqlite3")
    shop.server.start()
    try:
        held, wanted = shop.shopper.post(f"/checkout/{key()}").text, key()
        paths = [f"/checkout/{wanted}", f"/payment_webhook/{held}/paid"]
        with orders_held(shop.database_url), ThreadPoolExecutor() as clients:

            def is_said_in_time() -> bool:
                began = time.monotonic()
                assert all(is_error(answer, 504) for answer in clients.map(shop.shopper.post, paths))
                return time.monotonic() - began < 12

            assert any(is_said_in_time() for _ in range(3)), "a busy machine is slower for a moment only"
        assert is_text(shop.shopper.post(paths[0]), wanted)
        assert is_text(shop.shopper.post(paths[1]), "1")
        assert not shop.tables.faults()
    finally:
        shop.server.close()


# --- the rest -----------------------------------------------------------------------------


def test_restock_says_how_many_units_it_added(open_shop: OpenShop) -> None:
    """One number for a program; a browser goes back to the store."""
    shop = open_shop(units=40)
    answer = shop.shopper.post("/restock")
    assert (answer.status, answer.json) == (200, {"units_added": 60})
    assert shop.shopper.get("/product").json["inventory"] == 100


def test_the_tools_are_not_found_where_others_can_reach_the_shop(open_shop: OpenShop) -> None:
    """Behind a proxy there is no restock, and nothing on the page speaks of it."""
    shop = open_shop(units=1, STORE_TRUSTED_PROXIES=1)
    assert is_error(shop.shopper.post("/restock"), 404)
    assert shop.shopper.submit("/restock").status == 404
    page = shop.shopper.page("/").text.lower()
    assert not [word for word in ("restock", "presenter", "fill the shelf") if word in page]
    assert shop.shopper.get("/product").json["inventory"] == 1


def test_health_names_what_was_looked_at(shopper: Shopper) -> None:
    """200 while both databases can be written and workflows run; and how much is stuck."""
    answer = shopper.get("/health")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json == {
        "status": "ok",
        "database": "ok",
        "checkpoints": "ok",
        "workflows": "ok",
        "stuck": 0,
    }
