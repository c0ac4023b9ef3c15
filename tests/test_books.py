"""The ledger: each line says what is so, and turns red when it is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from store import database
from store.books import Books as Ledgers
from store.config import Settings
from tests.conftest import Shop
from tests.support.markup import Markup
from tests.support.shopper import key


@pytest.fixture
def busy_shop(open_shop: Callable[..., Shop]) -> Shop:
    """A shop, closed, with an order in every state, and a crash and a stop behind it."""
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=0.01)
    shopper = shop.shopper
    dispatched, declined = shopper.buy(key()), shopper.buy(key())
    shopper.confirm(dispatched)
    shopper.cancel(declined)
    shopper.wait_for(dispatched, "Dispatched")
    shopper.wait_for(declined, "Payment cancelled")
    shopper.buy(key())  # and leaves
    shop.server.kill()
    shop.server.restart()
    shop.server.stop()
    return shop


def ledger_of(shop: Shop) -> dict[str, Any]:
    """The books as the shop serves them, of a shop that may be closed: read by the very same code."""
    databases = database.connect(Settings.from_env({"DBOS_DATABASE_URL": shop.database_url}))
    try:
        found = Ledgers(databases.reader, tick_seconds=1).ledger()
    finally:
        databases.close()
    return {line.name: (line.figures, line.ok) for line in found.lines}


def test_the_books_of_a_new_shop_balance(open_shop: Callable[..., Shop]) -> None:
    """A hundred on the shelf, and nothing else anywhere."""
    books = open_shop().shopper.get("/ledger.json").json
    assert books["balanced"] is True
    assert all(set(line) == {"name", "figures", "ok"} and line["ok"] for line in books["lines"])
    assert books["lines"][0]["figures"] == {"stocked": 100, "on_the_shelf": 100, "held": 0, "sold": 0}


def test_the_lines_have_the_figures_of_the_shop(busy_shop: Shop) -> None:
    """One order of each kind, one crash, one order recovered, none lost, nobody charged twice."""
    lines = ledger_of(busy_shop)
    assert all(ok for _, ok in lines.values())
    figures = {name: value for line, _ in lines.values() for name, value in line.items()}
    expected = {
        "stocked": 100, "on_the_shelf": 98, "held": 1, "sold": 1, "reserved": 3, "released": 1,
        "charged_cents": 9999, "sold_cents": 9999, "refunded_cents": 0, "dispatched": 1,
        "numbers_given": 3, "under_way": 1, "overdue": 0, "crashes": 1, "recovered": 1,
        "lost": 0, "charged_twice": 0,
    }  # fmt: skip
    assert {name: figures[name] for name in expected} == expected


def test_the_page_says_what_the_json_says(shop: Shop) -> None:
    """Each line with its name, its figures, and whether it holds, by word and by colour."""
    shop.shopper.confirm(shop.shopper.buy(key()))
    page = Markup(shop.shopper.page("/ledger").text)
    assert list(page.faults()) == []
    assert [region.text for region in page.live_regions] == ["The books balance."]
    lines = shop.shopper.get("/ledger.json").json["lines"]
    assert {element.text for element in page.all("dt")} == {line["name"] for line in lines}
    assert {element.text for element in page.all("dd") if element.attrs.get("class") == "mark"} == {"holds"}
    assert page.refreshes
    assert "ledger" in page.polled


_CHARGE = (
    "INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms)"
    " SELECT 'charge', payment_id, 9999, 1"
)
_REFUND = _CHARGE.replace("'charge'", "'refund'")
_DAMAGE = {
    "Every unit stocked is on the shelf, held or sold": "UPDATE products SET on_hand = on_hand - 1",
    "The shelf holds what the movements add up to": (
        "UPDATE stock_movements SET units = 101 WHERE kind = 'restock'"
    ),
    "Every order took one unit, unless it was sold out": (
        "DELETE FROM stock_movements WHERE kind = 'reserve' AND cause IN"
        " (SELECT payment_id FROM orders WHERE status = 'pending')"
    ),
    "Every cancelled order gave its unit back, and no other did": (
        "UPDATE stock_movements SET cause = (SELECT payment_id FROM orders WHERE status = 'pending')"
        " WHERE kind = 'release'"
    ),
    "Every order that is paid or dispatched has one charge and no refund": (
        _REFUND + " FROM orders WHERE status = 'dispatched'"
    ),
    "Every cancelled order has no charge, or a charge and its refund": (
        _CHARGE + " FROM orders WHERE status = 'cancelled'"
    ),
    "No order is charged before it is paid": _CHARGE + " FROM orders WHERE status = 'pending'",
    "The money kept is the price of what was sold": "UPDATE payments SET amount_cents = 1",
    "No key has two orders, and no order number is missing": (
        "UPDATE orders SET order_id = 77 WHERE status = 'pending'"
    ),
    "Orders lost": "UPDATE counters SET value = value + 1 WHERE counter = 'orders'",
}


@pytest.mark.parametrize("line", _DAMAGE)
def test_a_line_turns_red_when_it_does_not_hold(busy_shop: Shop, line: str) -> None:
    """Damage done behind the shop's back shows in the line that is about it."""
    busy_shop.books.change(_DAMAGE[line])
    assert ledger_of(busy_shop)[line][1] is False
    busy_shop.server.restart()
    books = busy_shop.shopper.get("/ledger.json").json
    assert books["balanced"] is False
    page = busy_shop.shopper.page("/ledger").text
    assert "The books do not balance." in page
    assert re.search(rf'<div class="broken">\s*<dt>{re.escape(line)}</dt>', page)


def test_an_order_that_is_stuck_turns_its_line_red(busy_shop: Shop) -> None:
    """Half a minute after it should have moved, if a server was up all the while."""
    line = "Every order that is under way moves"
    busy_shop.books.change("UPDATE orders SET created_at_ms = 1, pay_by_ms = 2 WHERE status = 'pending'")
    assert ledger_of(busy_shop)[line] == ({"under_way": 1, "overdue": 0}, True)
    busy_shop.books.change("UPDATE generations SET started_at_ms = 1")
    assert ledger_of(busy_shop)[line] == ({"under_way": 1, "overdue": 1}, False)


def test_an_order_out_of_step_turns_its_line_red(busy_shop: Shop) -> None:
    """The database forbids it, until somebody takes its rule away: the ledger looks for itself."""
    damage = "UPDATE orders SET progress = 4 WHERE status = 'dispatched'"
    line = "Progress is 10 exactly when dispatched, and 0 before paid"
    with pytest.raises(sa.exc.IntegrityError):
        busy_shop.books.change(damage)
    busy_shop.books.change_unchecked(damage)
    assert ledger_of(busy_shop)[line] == ({"dispatched": 1, "out_of_step": 1}, False)


def test_two_charges_of_one_order_turn_a_line_red(busy_shop: Shop) -> None:
    """As above: the key forbids it, and the ledger does not take its word."""
    busy_shop.books.change("ALTER TABLE payments RENAME TO old_payments")
    busy_shop.books.change("CREATE TABLE payments AS SELECT * FROM old_payments")
    busy_shop.books.change("INSERT INTO payments SELECT * FROM old_payments")
    assert ledger_of(busy_shop)["Orders charged twice"] == ({"charged_twice": 1}, False)


def test_the_books_are_one_statement_for_all_who_watch(busy_shop: Shop) -> None:
    """One moment, read once a second however many look."""
    databases = database.connect(Settings.from_env({"DBOS_DATABASE_URL": busy_shop.database_url}))
    selects: list[str] = []
    event.listen(databases.reader, "before_cursor_execute", lambda *call: selects.append(call[2]))
    books = Ledgers(databases.reader, tick_seconds=1)
    assert books.ledger() is books.ledger()
    databases.close()
    assert len([each for each in selects if "SELECT" in each]) == 1


def test_what_has_ended_is_counted_by_index(busy_shop: Shop) -> None:
    """No table is read from end to end: not orders, nor payments, nor movements."""
    from store.books import _FIGURES

    databases = database.connect(Settings.from_env({"DBOS_DATABASE_URL": busy_shop.database_url}))
    with databases.reader.connect() as connection:
        if connection.dialect.name == "sqlite":
            plan = connection.execute(
                sa.text("EXPLAIN QUERY PLAN " + _FIGURES), {"now_ms": 0, "tick_ms": 0}
            ).all()
            scans = [row.detail for row in plan if row.detail.startswith("SCAN")]
            whole = [
                each for each in scans if re.match(r"SCAN (orders|payments|stock_movements|o|p)\b", each)
            ]
            assert [each for each in whole if "INDEX" not in each] == []
        else:
            connection.execute(sa.text("SET enable_seqscan = off"))
            plan = connection.execute(sa.text("EXPLAIN " + _FIGURES), {"now_ms": 0, "tick_ms": 0}).all()
            assert not [row[0] for row in plan if re.search(r"Seq Scan on (orders|payments|stock)", row[0])]
    databases.close()
