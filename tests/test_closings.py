"""The books are closed now and then, what was sealed is believed, and an audit counts it again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import schema, sealed_rows, workflows
from store.durable import runtime, step_decorators
from store.repair import housekeeper, owed_money
from store.repair.housekeeper import Housekeeper
from store.repair.stuck_rules import Lateness
from store.settings import ROOT, Settings
from store.terms_of_sale import Terms, terms
from tests.support.closings import audit_of, close
from tests.support.shop import Shop
from tests.support.shopper import eventually, key
from tests.support.specimen import NEWEST, Specimen, edit, ledger_of
from tests.support.tables import Tables
from tests.support.transactions import plain

_BEHIND = {
    "a closing taken away": ("DELETE FROM closings WHERE number = 1", 1),
    "the newest closing taken away, with the counter": (
        "DELETE FROM closings WHERE number = 2; UPDATE counters SET value = 1 WHERE counter = 'closings'", 0,
    ),
    "a total of a closing": ("UPDATE closings SET charged_cents = charged_cents + 1 WHERE number = 2", 2),
    "a total of every closing": ("UPDATE closings SET sold = sold + 1", 1),
    "a digest": ("UPDATE closings SET digest = 'none' WHERE number = 1", 1),
    "a row put under another closing": (
        "UPDATE payments SET closing = 2 WHERE kind = 'charge' AND closing = 1", 1,
    ),
    "a row taken out of its closing": ("UPDATE orders SET closing = NULL WHERE closing = 1", 1),
    "a row put under a closing that never was": ("UPDATE refusals SET closing = 99", 1),
    "the time of a charge": ("UPDATE payments SET recorded_at_ms = recorded_at_ms + 1", 1),
}  # fmt: skip
"""Edits behind the closings, and the first closing that the audit names; 0 for none that is there."""


@pytest.fixture
def in_two(copied: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, closed: the first closing has sealed two rows of each table, the second one the rest."""
    monkeypatch.setattr(sealed_rows, "MOST_ROWS", 2)
    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": copied}))
    with Session(databases.store) as session, session.begin():
        session.connection()
        assert plain(workflows.close)(session, 1) > 0
    databases.close()
    monkeypatch.undo()
    assert close(copied, first=2) == 2
    return copied


def figures(url: str, specimen: Specimen) -> dict[str, int]:
    """All figures of the ledger, which must be green, but those that grow with time."""
    ledger = ledger_of(url, specimen.their_book)
    assert [line for line in ledger.lines if not line.ok] == []
    found = {name: value for line in ledger.lines for name, value in line.figures.items()}
    return {name: value for name, value in found.items() if name not in {"late", "late_by_seconds"}}


def test_the_ledger_says_the_same_after_a_closing(copied: str, specimen: Specimen) -> None:
    """Green, with the same figures, though what has ended is not read any more; and the audit agrees."""
    before = figures(copied, specimen)
    assert close(copied) == 1
    after = figures(copied, specimen)
    ended = before["cancelled"] + before["dispatched"] + 1  # the one that was sold out
    assert (before["closings"], before["closed_orders"]) == (0, 0)
    assert after == {**before, "closings": 1, "closed_orders": after["closed_orders"]}
    assert 0 < after["closed_orders"] <= ended
    found = audit_of(copied)
    assert found.agrees
    assert (found.closings, found.rows > 0, found.open_rows > 0) == (1, True, True)


def test_two_closings_add_up(in_two: str, specimen: Specimen) -> None:
    """The second has the totals of both."""
    assert figures(in_two, specimen)["closings"] == 2
    assert figures(in_two, specimen)["orders"] == NEWEST
    assert audit_of(in_two).agrees


def test_an_order_that_moves_is_not_sealed(copied: str) -> None:
    """Nor is a greeting that may still be found to have signed."""
    close(copied)
    tables = Tables(copied)
    assert (
        tables.rows("SELECT 1 FROM orders WHERE closing IS NOT NULL AND status IN ('pending', 'paid')") == []
    )
    assert (
        tables.rows("SELECT 1 FROM orders WHERE closing IS NULL AND status NOT IN ('pending', 'paid')") == []
    )
    sealed = tables.rows("SELECT DISTINCT status FROM orders WHERE closing IS NOT NULL ORDER BY status")
    assert sealed == [("cancelled",), ("dispatched",)]
    still_open = tables.rows("SELECT DISTINCT status FROM orders WHERE closing IS NULL ORDER BY status")
    assert still_open == [("paid",), ("pending",)]
    greetings = "SELECT outcome FROM greeting_requests WHERE closing IS NULL"
    assert tables.rows(greetings) == [("refused",)]


def test_money_that_is_owed_stays_open(copied: str) -> None:
    """However often the books are closed: so whoever looks for it need not read all that was ever paid."""
    books = Tables(copied)
    refunds = "SELECT payment_id, amount_cents, recorded_at_ms FROM payments WHERE kind = 'refund'"
    [(late, amount, at_ms)] = books.rows(refunds)
    books.change("DELETE FROM payments WHERE kind = 'refund'")
    books.change("INSERT INTO payment_notices (payment_id, outcome, received_at_ms) VALUES ('x', 'paid', 1)")
    books.change("UPDATE payment_notices SET received_at_ms = 1")
    last = close(copied)
    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": copied}))
    with databases.reader.connect() as store:
        found = owed_money.find(store, Lateness(3_600_000, 0, "any"))
        assert {each.workflow_id for each in found} == {late, "x"}
    databases.close()
    books.change(
        "INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms)"
        " VALUES ('refund', :id, :amount, :at_ms)",
        id=late,
        amount=amount,
        at_ms=at_ms,
    )
    close(copied, first=last + 1)
    still_open = "SELECT payment_id FROM payment_notices WHERE outcome = 'paid' AND closing IS NULL"
    moving = "SELECT payment_id FROM orders WHERE status = 'paid'"
    assert set(books.rows(still_open)) == {("x",), *books.rows(moving)}


@pytest.mark.parametrize("name", _BEHIND)
def test_the_audit_finds_what_was_changed_behind_a_closing(in_two: str, name: str) -> None:
    """And says under which."""
    statements, first = _BEHIND[name]
    edit(in_two, statements)
    found = audit_of(in_two)
    assert not found.agrees
    assert found.partings[0].closing == first, found.partings


def test_the_audit_is_a_command(in_two: str) -> None:
    """In words with exit code 0 or 1, or as JSON; where an order is wrong by the rules, it is named."""
    done = _run_audit(in_two)
    assert done.returncode == 0
    assert re.fullmatch(
        r"Counted again from the first row, every closing is as it was made: \d+ rows under 2 closings, "
        r"and \d+ that are open\.\n",
        done.stdout,
    )
    edit(in_two, "UPDATE payments SET amount_cents = 1 WHERE kind = 'charge' AND closing = 1")
    parted = _run_audit(in_two)
    assert parted.returncode == 1
    assert re.search(r"^Closing 1: has charged \$\d+\.\d\d, and its rows make it \$\d\.\d\d", parted.stdout)
    assert re.search(r"^    order \d+ is \w+, is charged \$0\.01", parted.stdout, re.MULTILINE)
    told = json.loads(_run_audit(in_two, "--json").stdout)
    assert told["agrees"] is False
    assert told["partings"][0]["closing"] == 1


def _run_audit(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "app.py"), "audit", *words],
        env={"DBOS_DATABASE_URL": url, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_shop_closes_its_books_by_itself(new_url: Callable[[], str]) -> None:
    """Once enough has ended, by a workflow; and what is bought meanwhile is not in the way."""
    shop = Shop(new_url())
    shop.server.start()
    shop.server.stop()
    _sell_out(shop.database_url, housekeeper.ENOUGH)
    shop.server.restart()
    payment_id = shop.shopper.buy(key())
    shop.shopper.confirm(payment_id)
    [closing] = eventually(lambda: shop.tables.rows("SELECT * FROM closings"), bool, timeout_seconds=30)
    assert closing.orders >= housekeeper.ENOUGH
    shop.shopper.wait_for(payment_id, "Dispatched")
    made = "SELECT status FROM workflow_status WHERE name = 'closing'"
    eventually(lambda: shop.checkpoints.rows(made), lambda rows: rows == [("SUCCESS",)])
    assert _run_audit(shop.database_url).returncode == 0
    shop.server.stop()
    assert shop.tables.faults() == {}


def _sell_out(url: str, count: int) -> None:
    """So many orders of an empty shelf, each of which ends as it is made, and one unit again at the end."""
    settings = Settings.from_env({"DBOS_DATABASE_URL": url})
    databases = schema.connect(settings)
    terms.set(Terms.of(settings))
    reserve = plain(workflows.reserve)
    with Session(databases.store) as session, session.begin():
        session.connection()
        session.execute(sa.text("UPDATE products SET on_hand = 0"))
        for number in range(count):
            reserve(session, f"sold-out-{number}", None)
        session.execute(sa.text("UPDATE products SET on_hand = 100"))
    databases.close()


def test_old_checkpoints_are_removed_and_the_orders_stay(new_url: Callable[[], str]) -> None:
    """The timeline says so, the books are green, and the same key is still the same order."""
    shop = Shop(new_url(), STORE_KEEP_CHECKPOINTS_DAYS=1)
    shop.server.start()
    old, kept = key(), key()
    for payment_id in (old, kept):
        shop.shopper.buy(payment_id)
    shop.shopper.confirm(old)
    shop.shopper.wait_for(old, "Dispatched")
    half, half_dispatch = key(), f"{kept}.dispatch"
    shop.shopper.buy(half)
    shop.shopper.cancel(half)
    eventually(lambda: _under_way(shop), lambda found: found == {kept})
    shop.server.stop()
    assert close(shop.database_url) == 1
    # As if the process had died after the money was given back, and before that was checkpointed.
    shop.checkpoints.change(
        "UPDATE workflow_status SET status = 'PENDING' WHERE workflow_uuid = :id", id=half
    )
    _remove(shop.database_url, days=1)
    assert {old, f"{old}.dispatch"} <= _known(shop), "it is not old yet"
    shop.tables.change("UPDATE closings SET closed_at_ms = 1")
    _remove(shop.database_url, days=0)
    assert {old, f"{old}.dispatch"} <= _known(shop), "it was to be kept for ever"
    _remove(shop.database_url, days=1)
    assert _known(shop) & {old, f"{old}.dispatch", kept, half, half_dispatch} == {kept, half}
    shop.server.restart()
    eventually(lambda: _under_way(shop), lambda found: found == {kept})
    # What DBOS records last, it records after the order is final, so at first it may only be late.
    eventually(
        lambda: shop.shopper.get(f"/orders/{old}/timeline").text,
        lambda text: "not kept any more" in text,
        timeout_seconds=30,
    )
    assert "not kept any more" not in shop.shopper.get(f"/orders/{half}/timeline").text
    ledger = eventually(lambda: shop.shopper.get("/ledger.json").json, lambda found: found["balanced"])
    said = {name: value for line in ledger["lines"] for name, value in line["figures"].items()}
    assert (said["orders"], said["unwitnessed"], said["lost"]) == (3, 0, 0)
    assert shop.shopper.buy(old) == old
    assert shop.shopper.order(old).heading == "Dispatched"
    shop.server.stop()
    assert shop.tables.faults() == {}
    assert ledger_of(shop.database_url).balanced
    assert audit_of(shop.database_url).agrees


def test_a_removal_that_was_interrupted_is_done_by_the_next_process(new_url: Callable[[], str]) -> None:
    """That it is done is recorded first, so that the ledger misses nothing."""
    shop = Shop(new_url())
    shop.server.start()
    payment_id = key()
    shop.shopper.buy(payment_id)
    shop.shopper.cancel(payment_id)
    eventually(lambda: _under_way(shop), lambda found: not found)
    shop.server.stop()
    close(shop.database_url)
    shop.tables.change("UPDATE closings SET closed_at_ms = 1")
    shop.tables.change("INSERT INTO removed_checkpoints (closing, removed_at_ms) VALUES (1, 2)")
    assert ledger_of(shop.database_url).balanced
    _remove(shop.database_url, days=1)
    assert payment_id not in _known(shop)
    assert ledger_of(shop.database_url).balanced


def _remove(url: str, days: int) -> None:
    settings = Settings.from_env({"DBOS_DATABASE_URL": url, "STORE_KEEP_CHECKPOINTS_DAYS": str(days)})
    databases = schema.connect(settings)
    step_decorators.bind_to(settings.database_url, databases.store)
    client = runtime.client_of(settings)
    Housekeeper(settings, databases).remove_old_checkpoints(client)
    client.destroy()
    databases.close()


def _known(shop: Shop) -> set[str]:
    return {row[0] for row in shop.checkpoints.rows("SELECT workflow_uuid FROM workflow_status")}


def _under_way(shop: Shop) -> set[str]:
    rows = shop.checkpoints.rows("SELECT workflow_uuid FROM workflow_status WHERE status <> 'SUCCESS'")
    return {row[0] for row in rows}
