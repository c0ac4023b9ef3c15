"""The ledger: each line says what is so, and turns red when it is not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from store import schema
from store.ledger.invariants import Ledger
from store.ledger.ledger import LedgerReader
from store.ledger.witnesses import Witnesses
from store.settings import Settings
from tests.support.copies import Copy
from tests.support.markup import Markup
from tests.support.shop import Shop
from tests.support.shopper import eventually, key
from tests.support.specimen import ledger_of

pytestmark = pytest.mark.each_database


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


def lines_of(shop: Shop) -> dict[str, tuple[dict[str, int], bool]]:
    """The figures of each line, and whether it holds."""
    return {line.name: (line.figures, line.ok) for line in ledger_of(shop.database_url).lines}


def figure(ledger: Ledger, name: str) -> int:
    """One figure, by name."""
    return next(line.figures[name] for line in ledger.lines if name in line.figures)


def test_the_books_of_a_new_shop_balance(open_shop: Callable[..., Shop]) -> None:
    """A hundred on the shelf, and nothing else anywhere."""
    books = open_shop().shopper.get("/ledger.json").json
    assert books["balanced"] is True
    assert all(set(line) == {"name", "figures", "ok"} and line["ok"] for line in books["lines"])
    assert books["lines"][0]["figures"] == {"stocked": 100, "on_the_shelf": 100, "held": 0, "sold": 0}


@pytest.mark.sampled(1)  # what the ledger found is shown the same way
def test_books_that_are_red_are_said_on_every_page_of_the_presenter(open_shop: Callable[..., Shop]) -> None:
    """By how much, and which order; on the store's page for everybody; until they balance again."""
    shop = open_shop(STORE_DISPATCH_TICK_SECONDS=0.01)
    payment_id = shop.shopper.buy()
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    shop.tables.change("UPDATE products SET on_hand = on_hand - 3")
    shop.tables.change("UPDATE payments SET amount_cents = amount_cents - 1")

    def alarms() -> list[str]:
        paths = ("/", "/recent", f"/orders/{payment_id}", "/presenter/tools")
        return [
            " ".join(re.findall(r'<div class="alarm">(.*?)</div>', shop.shopper.page(path).text, re.DOTALL))
            for path in paths
        ]

    wanted = ("The books do not balance.", "off by 3 units", "rder 1 is dispatched, is charged $99.98")
    told = eventually(
        alarms, lambda said: all(words in each for words in wanted for each in said), timeout_seconds=60
    )
    assert len(told) == 4
    shop.tables.change("UPDATE products SET on_hand = on_hand + 3")
    shop.tables.change("UPDATE payments SET amount_cents = amount_cents + 1")
    eventually(alarms, lambda said: not any(said), timeout_seconds=60)


def test_the_lines_have_the_figures_of_the_shop(busy_shop: Shop) -> None:
    """One order of each kind, one crash, one order recovered, none lost, nobody charged twice."""
    lines = lines_of(busy_shop)
    assert all(ok for _, ok in lines.values())
    figures = {name: value for line, _ in lines.values() for name, value in line.items()}
    expected = {
        "stocked": 100, "on_the_shelf": 98, "held": 1, "sold": 1, "reserved": 3, "released": 1,
        "charged_cents": 9999, "sold_cents": 9999, "refunded_cents": 0, "dispatched": 1,
        "numbers_given": 3, "under_way": 1, "late": 0, "crashes": 1, "recovered": 1,
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


@pytest.mark.first_of_all
@pytest.mark.sampled(6)
@pytest.mark.parametrize("line", _DAMAGE)
def test_a_line_turns_red_when_it_does_not_hold(busy_shop: Shop, line: str) -> None:
    """Damage done behind the shop's back shows in the line that is about it."""
    busy_shop.tables.change(_DAMAGE[line])
    assert lines_of(busy_shop)[line][1] is False
    busy_shop.server.restart()
    books = busy_shop.shopper.get("/ledger.json").json
    assert books["balanced"] is False
    page = busy_shop.shopper.page("/ledger").text
    assert "The books do not balance." in page
    assert re.search(rf'<div class="broken">\s*<dt>{re.escape(line)}</dt>', page)


@pytest.mark.sampled(1)
def test_after_an_outage_the_books_catch_up(open_shop: Callable[..., Shop]) -> None:
    """What fell due while nobody was there is late, with how much: amber, not red; then green."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=1)
    payment_id = shop.shopper.buy(key())
    shop.server.kill()
    late = eventually(lambda: ledger_of(shop.database_url), lambda ledger: ledger.catching_up)
    assert late.balanced
    [line] = [line for line in late.lines if line.late]
    assert line.name == "Every order that is under way moves"
    assert re.fullmatch(r"1 late, by up to \d+ s", line.late)
    shop.server.restart()
    shop.shopper.wait_for(payment_id, "The payment window closed")
    # The order's page has asked for the ledger too, and what it was told may be a second old.
    books = eventually(
        lambda: shop.shopper.get("/ledger.json").json, lambda ledger: not ledger["catching_up"]
    )
    assert (books["balanced"], books["faults"]) == (True, [])


def test_a_clock_an_hour_ahead_is_no_fault(busy_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every order under way is late by it, and none is broken."""
    ahead_ns = time.time_ns() + 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: ahead_ns)
    ledger = ledger_of(busy_shop.database_url)
    assert (ledger.balanced, ledger.catching_up) == (True, True)


def test_a_page_of_books_that_are_off_says_by_how_much_and_who(busy_shop: Shop) -> None:
    """The line, what is wrong with which order, and by how much the totals are off; for a program too."""
    busy_shop.tables.change("UPDATE payments SET amount_cents = 1")
    busy_shop.server.restart()
    books = busy_shop.shopper.get("/ledger.json").json
    assert books["faults"] == [
        {
            "line": "Every order that is paid or dispatched has one charge and no refund",
            "order_id": 1,
            "subject": "order 1",
            "says": "is dispatched, is charged $0.01, refunded nothing, and costs $99.99",
        }
    ]
    page = Markup(busy_shop.shopper.page("/ledger").text)
    wrong = [element for element in page.all("dd") if element.attrs.get("class") == "wrong"]
    assert [element.text.strip() for element in wrong] == [
        "Order 1 is dispatched, is charged $0.01, refunded nothing, and costs $99.99.",
        "Off by $99.98.",
    ]


def test_books_whose_checkpoints_cannot_be_read_say_so(busy_shop: Shop) -> None:
    """The store is compared with itself, amber, because nobody else could be asked."""
    busy_shop.checkpoints.change("ALTER TABLE workflow_status RENAME TO elsewhere")
    try:
        ledger = ledger_of(busy_shop.database_url)
        assert (ledger.balanced, ledger.catching_up) == (True, True)
        [line] = [line for line in ledger.lines if line.late and "workflow remembers" in line.name]
        assert line.late == "The checkpoints of the workflows cannot be read now."
    finally:
        busy_shop.checkpoints.change("ALTER TABLE elsewhere RENAME TO workflow_status")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("of_checkpoints", [False, True], ids=["the store", "the checkpoints"])
def test_the_books_after_an_older_copy_was_restored(
    open_shop: Callable[..., Shop], *, of_checkpoints: bool
) -> None:
    """Orders without checkpoints count as unwitnessed; those that only checkpoints know are made again."""
    shop = open_shop(STORE_RECONCILE_SECONDS=1)
    before = shop.shopper.buy(key())
    shop.shopper.confirm(before)
    shop.shopper.wait_for(before, "Dispatched")
    shop.server.stop()
    copy = Copy(shop.database_url, of_checkpoints=of_checkpoints)
    shop.server.start()
    after = shop.shopper.buy(key())
    shop.shopper.confirm(after)
    shop.shopper.wait_for(after, "Dispatched")
    shop.server.stop()
    assert ledger_of(shop.database_url).balanced
    copy.put_back()
    torn = ledger_of(shop.database_url)
    assert [(fault.subject, fault.line) for fault in torn.faults] == [
        ("order 2", "witnesses" if of_checkpoints else "lost")
    ]
    shop.server.start()
    eventually(
        lambda: ledger_of(shop.database_url),
        lambda ledger: ledger.balanced and not ledger.catching_up and figure(ledger, "dispatched") == 2,
        timeout_seconds=60,
    )
    assert figure(ledger_of(shop.database_url), "unwitnessed") == (1 if of_checkpoints else 0)


def test_an_order_out_of_step_turns_its_line_red(busy_shop: Shop) -> None:
    """The database forbids it, until somebody takes its rule away: the ledger looks for itself."""
    damage = "UPDATE orders SET progress = 4 WHERE status = 'dispatched'"
    line = "Progress is 10 exactly when dispatched, and 0 before paid"
    with pytest.raises(sa.exc.IntegrityError):
        busy_shop.tables.change(damage)
    busy_shop.tables.change_unchecked(damage)
    assert lines_of(busy_shop)[line] == ({"dispatched": 1, "out_of_step": 1}, False)


def test_two_charges_of_one_order_turn_a_line_red(busy_shop: Shop) -> None:
    """As above: the key forbids it, and the ledger does not take its word."""
    busy_shop.tables.change("ALTER TABLE payments RENAME TO old_payments")
    busy_shop.tables.change("CREATE TABLE payments AS SELECT * FROM old_payments")
    busy_shop.tables.change("INSERT INTO payments SELECT * FROM old_payments")
    assert lines_of(busy_shop)["Orders charged twice"] == ({"charged_twice": 1}, False)


def test_the_books_are_one_reading_for_all_who_watch(busy_shop: Shop) -> None:
    """One reading a second however many look, with as many statements for few orders as for many."""
    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": busy_shop.database_url}))
    statements: list[str] = []
    for reader in (databases.reader, databases.system_reader):
        event.listen(reader, "before_cursor_execute", lambda *call: statements.append(call[2]))
    books = LedgerReader(databases.reader, 1.0, Witnesses(databases.system_reader, lambda: ([], "")))
    assert books.latest() is books.latest()
    databases.close()
    selects = [each for each in statements if "SELECT" in each]
    # The figures. The newest workflows, and their accounts: nine tables. The next window and its end, what is
    # always looked at, and what the workflows remember of it.
    assert len(selects) <= 1 + 1 + 9 + 2 + 9 + 9 + 1 + 1


def test_what_has_ended_is_counted_by_index(busy_shop: Shop) -> None:
    """No table is read from end to end: not orders, nor payments, nor movements."""
    from store.ledger.figures import _FIGURES

    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": busy_shop.database_url}))
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
