"""A finished order is run again for real, under the same ids: no figure of the books moves."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.refusal import is_one_sentence
from tests.support.shop import PASSWORD, Shop
from tests.support.shopper import eventually, key

pytestmark = pytest.mark.each_database
OpenShop = Callable[..., Shop]
_TABLES = ("orders", "payments", "stock_movements", "payment_notices", "products", "holds")


def books(shop: Shop) -> dict[str, list[Any]]:
    """Every row that is about orders, stock and money."""
    return {
        table: sorted(map(tuple, shop.tables.rows(f"SELECT * FROM {table}")), key=str)  # noqa: S608 - ours
        for table in _TABLES
    }


def figures(shop: Shop) -> dict[str, Any]:
    """The ledger's, of a shop that has sold what it has: it may be a second old."""

    def read() -> dict[str, Any]:
        ledger = shop.shopper.get("/ledger.json").json
        assert ledger["balanced"], ledger["faults"]
        return {line["name"]: line["figures"] for line in ledger["lines"]}

    sold = list(shop.tables.orders().values()).count("dispatched")
    return eventually(
        read,
        lambda found: (
            found["Progress is 10 exactly when dispatched, and 0 before paid"]["dispatched"] == sold
        ),
    )


def sold(shop: Shop) -> str:
    """An order that is dispatched, and whose workflows have ended."""
    payment_id = shop.shopper.buy()
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    wait_for_the_end(shop, 2)
    return payment_id


def wait_for_the_end(shop: Shop, count: int) -> None:
    """Until so many workflows, and all that there are, have ended."""
    statuses = "SELECT status FROM workflow_status"
    eventually(lambda: shop.checkpoints.rows(statuses), lambda rows: rows == [("SUCCESS",)] * count)


def steps(shop: Shop) -> list[str]:
    """All that DBOS has recorded."""
    return [row[0] for row in shop.checkpoints.rows("SELECT function_name FROM operation_outputs")]


def run_again(shop: Shop, payment_id: str, attempt: int) -> int:
    """Press the button that has this number; the status."""
    return shop.shopper.submit(f"/stage/orders/{payment_id}/again", attempt=str(attempt)).status


def says(shop: Shop, payment_id: str) -> str:
    """What the page says of it, without markup."""
    page = shop.shopper.page(f"/stage/orders/{payment_id}/again").text
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page))


def test_nothing_changes_however_often(open_shop: OpenShop) -> None:
    """The steps are new ones; no row of the books is, and the page compares that, and says it."""
    shop = open_shop()
    payment_id = sold(shop)
    before = books(shop), figures(shop)
    assert len(steps(shop)) > 10
    for attempt in (1, 2):
        assert run_again(shop, payment_id, attempt) == 303
        eventually(lambda: says(shop, payment_id), lambda text: "4 steps, nothing changed" in text)
        wait_for_the_end(shop, 2)
        assert sorted(steps(shop)) == ["DBOS.setEvent", "DBOS.setEvent", "reserve", "tick 1"]
        assert (books(shop), eventually(lambda: figures(shop), lambda now: now == before[1])) == before
    assert "Run again 2 times, the last time: 4 steps" in says(shop, payment_id)
    story = shop.shopper.page(f"/orders/{payment_id}/timeline").text
    assert story.count("Run again by the presenter") == 2
    assert story.count("Was done before; run again safely by server 1") == 2
    assert not shop.tables.faults()


def test_a_press_that_comes_twice_is_one_run(open_shop: OpenShop) -> None:
    """By its number; whatever else is pressed meanwhile is refused in one sentence."""
    shop = open_shop()
    payment_id = sold(shop)
    assert run_again(shop, payment_id, 1) == 303
    eventually(lambda: says(shop, payment_id), lambda text: "nothing changed" in text)
    for attempt in (1, 7):
        assert run_again(shop, payment_id, attempt) == 303
    assert shop.tables.rows("SELECT attempt FROM reruns") == [(1,)]


def test_a_server_that_dies_over_it_leaves_it_to_the_next(open_shop: OpenShop) -> None:
    """What was rewound is on a queue; the books are as they were."""
    shop = open_shop()
    payment_id = sold(shop)
    before = books(shop)
    assert run_again(shop, payment_id, 1) == 303
    shop.server.kill()
    shop.server.restart()
    eventually(lambda: says(shop, payment_id), lambda text: "nothing changed" in text)
    wait_for_the_end(shop, 2)
    assert books(shop) == before
    assert shop.shopper.get("/ledger.json").json["balanced"]


def test_money_that_comes_late_meanwhile_is_not_hidden(open_shop: OpenShop) -> None:
    """A cancelled order that is paid after it was run again: refunded once, and the page says so."""
    shop = open_shop()
    payment_id = shop.shopper.buy()
    shop.shopper.cancel(payment_id)
    shop.shopper.wait_for(payment_id, "Payment cancelled")
    wait_for_the_end(shop, 1)
    assert run_again(shop, payment_id, 1) == 303
    shop.shopper.confirm(payment_id)
    text = eventually(lambda: says(shop, payment_id), lambda text: "something else has happened" in text)
    assert "refunded once" in text
    assert run_again(shop, payment_id, 2) == 303
    eventually(lambda: says(shop, payment_id), lambda text: "nothing changed" in text)
    assert [row[0] for row in shop.tables.rows("SELECT kind FROM payments ORDER BY kind")] == [
        "charge",
        "refund",
    ]
    assert not shop.tables.faults()


def test_what_cannot_be_run_again_is_refused(open_shop: OpenShop) -> None:
    """Under way, forgotten, unknown, not understood: one sentence, the right status, and nothing changed."""
    shop = open_shop()
    held, done = shop.shopper.buy(), shop.shopper.buy()
    shop.shopper.cancel(done)
    shop.shopper.wait_for(done, "Payment cancelled")
    for payment_id, attempt, status in [
        (held, "1", 409),
        (key(), "1", 404),
        (done, "one", 400),
        (done, "", 400),
    ]:
        answer = shop.shopper.request(
            "POST",
            f"/stage/orders/{payment_id}/again",
            f"attempt={attempt}",
            {"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status == status
        assert is_one_sentence(answer.json["error"])
    shop.checkpoints.change("DELETE FROM workflow_status WHERE workflow_uuid = :id", id=done)
    assert run_again(shop, done, 1) == 409
    assert shop.tables.rows("SELECT * FROM reruns") == []
    assert run_again(open_shop(STORE_PRESENTER_PASSWORD=PASSWORD), held, 1) == 401
    off = open_shop(STORE_TRUSTED_PROXIES=1)
    assert run_again(off, held, 1) == 404
    bought = off.shopper.buy()
    assert "again" not in off.shopper.page(f"/orders/{bought}").text
