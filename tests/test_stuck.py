"""Stuck work is found, shown and mended: no order waits for somebody who will never come."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store import schema
from store.durable import runtime
from store.durable.runtime import client_of
from store.repair import sweep
from store.settings import Settings
from store.vocabulary import PAYMENT_TOPIC
from tests.conftest import NewUrl
from tests.support.copies import Copy
from tests.support.guestbook import Guestbook
from tests.support.server import MORTAL
from tests.support.shop import Shop
from tests.support.shopper import eventually, key
from tests.support.started import run

OFTEN = 0.3
"""Seconds between two rounds of the reconciler in these tests."""
TICK_SECONDS = 0.3
"""Of a dispatch that must still be under way when its server is killed, also on a busy machine."""


@pytest.fixture
def shop(new_url: NewUrl) -> Iterator[Shop]:
    """A shop that nobody else uses."""
    shop = Shop(new_url(), STORE_RECONCILE_SECONDS=OFTEN, STORE_DISPATCH_TICK_SECONDS=TICK_SECONDS)
    shop.server.start()
    yield shop
    shop.server.close()


@pytest.fixture
def unwatched(new_url: NewUrl) -> Iterator[Shop]:
    """A shop whose server looks for nothing, so that a person has to."""
    shop = Shop(new_url(), STORE_RECONCILE_SECONDS=0, STORE_DISPATCH_TICK_SECONDS=TICK_SECONDS)
    shop.server.start()
    yield shop
    shop.server.close()


def paid(shop: Shop) -> str:
    """An order that has been paid, with the first tick done."""
    payment_id = shop.shopper.hold(key())
    shop.shopper.confirm(payment_id)
    eventually(lambda: progress_of(shop, payment_id), lambda progress: progress > 0)
    return payment_id


def progress_of(shop: Shop, payment_id: str) -> int:
    """Ticks that are done."""
    [(progress,)] = shop.tables.rows("SELECT progress FROM orders WHERE payment_id = :id", id=payment_id)
    return int(progress)


def dispatched(shop: Shop, *payment_ids: str) -> None:
    """Wait until they are, each once, and the books are right."""
    eventually(
        lambda: {each: ending for each, ending in shop.tables.orders().items() if each in payment_ids},
        lambda ended: ended == dict.fromkeys(payment_ids, "dispatched"),
    )
    assert not shop.tables.faults()
    eventually(lambda: shop.shopper.get("/ledger.json").json["balanced"], bool)


def mended(shop: Shop) -> list[str]:
    """What was run again, in order."""
    return [row[0] for row in shop.tables.rows("SELECT workflow_id FROM mendings ORDER BY mended_at_ms")]


def command(shop: Shop, *words: str) -> tuple[int, str]:
    """What `app.py` says to an operator on this shop, and its exit code."""
    settings = Settings.from_env({"DBOS_DATABASE_URL": shop.database_url})
    done = run("app.py", *words, environment=settings.environment({"PATH": "/usr/bin:/bin"}))
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


# --- workflows that are gone, or have ended in an error ------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM workflow_status",
        "UPDATE workflow_status SET status = 'ERROR', error = NULL WHERE status = 'PENDING'",
        "UPDATE workflow_status SET status = 'SUCCESS' WHERE status = 'PENDING'",
        "UPDATE workflow_status SET status = 'CANCELLED' WHERE status = 'PENDING'",
        "UPDATE workflow_status SET application_version = 'widget-store-0' WHERE status = 'PENDING'",
    ],
)
def test_an_order_without_a_workflow_that_runs_is_run_again(shop: Shop, harm: str) -> None:
    """A pending one can be paid, a paid one is dispatched; each is recorded, and shown to its shopper."""
    pending, moving = shop.shopper.hold(key()), paid(shop)
    shop.server.kill()
    shop.checkpoints.change(harm)
    shop.server.restart()
    eventually(lambda: mended(shop), lambda ids: set(ids) == {pending, f"{moving}.dispatch"})
    dispatched(shop, moving)
    shop.shopper.confirm(pending)
    dispatched(shop, pending, moving)
    page = shop.shopper.page(f"/orders/{moving}/timeline").text
    assert "Found stuck, and run again" in page


def test_a_restock_that_ended_in_an_error_fills_the_shelf(shop: Shop) -> None:
    """Whoever pressed the button saw that it was asked for."""
    shop.shopper.buy(key())
    assert shop.shopper.request("POST", "/restock").status == 200
    shop.server.kill()
    shop.tables.change("DELETE FROM stock_movements WHERE kind = 'restock' AND cause <> 'opening'")
    shop.tables.change("UPDATE products SET on_hand = 99")
    shop.checkpoints.change(
        "UPDATE workflow_status SET status = 'ERROR', error = NULL WHERE workflow_uuid LIKE '%.restock'"
    )
    shop.server.restart()
    eventually(lambda: shop.tables.rows("SELECT on_hand FROM products"), lambda rows: rows == [(100,)])
    assert [each.partition(".")[2] for each in mended(shop)] == ["restock"]
    eventually(lambda: shop.shopper.get("/ledger.json").json["balanced"], bool)


def test_a_dispatch_that_began_goes_on_from_its_row(shop: Shop) -> None:
    """Its checkpoints are gone; no tick is done twice, and none is left out."""
    payment_id = paid(shop)
    shop.server.kill()
    before = progress_of(shop, payment_id)
    shop.checkpoints.change("DELETE FROM workflow_status")
    shop.server.restart()
    dispatched(shop, payment_id)
    ticks = shop.shopper.page(f"/orders/{payment_id}/timeline").text.count("<code>tick ")
    assert ticks <= 1 + 10 - before, "the first finds where the order is"


def test_a_run_that_was_replaced_does_no_harm(unwatched: Shop) -> None:
    """Its thread still waits for the payment when its workflow is forgotten and started anew."""
    shop = unwatched
    payment_id = shop.shopper.buy(key())
    client = client_of(Settings.from_env({"DBOS_DATABASE_URL": shop.database_url}))
    client.delete_workflows([payment_id])
    options: Any = {
        "workflow_name": "checkout",
        "queue_name": runtime.MENDINGS,
        "workflow_id": payment_id,
        "app_version": runtime.APPLICATION_VERSION,
    }
    client.enqueue(options, payment_id, None)
    status = "SELECT status FROM workflow_status WHERE workflow_uuid = :id"
    eventually(lambda: shop.checkpoints.rows(status, id=payment_id), lambda rows: rows == [("PENDING",)])
    client.destroy()
    shop.shopper.confirm(payment_id)
    dispatched(shop, payment_id)


# --- restored copies ---------------------------------------------------------------------------------


@pytest.mark.sampled(1)
@pytest.mark.parametrize("of_checkpoints", [False, True], ids=["the store", "the checkpoints"])
def test_an_older_copy_comes_to_rest(new_url: NewUrl, of_checkpoints: bool) -> None:
    """Orders pending, paid, dispatched when it was taken, and made since: each ends, nothing is stuck."""
    shop = Shop(
        new_url(),
        STORE_RECONCILE_SECONDS=OFTEN,
        STORE_DISPATCH_TICK_SECONDS=0.1,
        STORE_PAYMENT_WINDOW_SECONDS=15,
    )
    shop.server.start()
    try:
        done = paid(shop)
        dispatched(shop, done)
        pending, moving = shop.shopper.buy(key()), paid(shop)
        shop.server.kill()
        copy = Copy(shop.database_url, of_checkpoints=of_checkpoints)
        shop.server.restart()
        shop.shopper.confirm(pending)
        later, unpaid = paid(shop), shop.shopper.buy(key())
        dispatched(shop, moving, pending)
        shop.server.kill()
        copy.put_back()
        shop.server.restart()
        # An order that the restored store does not have is made again, with another number.
        eventually(
            shop.tables.orders,
            lambda orders: (
                {orders.get(each) for each in (done, moving, pending, later)} == {"dispatched"}
                and orders.get(unpaid) == "expired"
            ),
            timeout_seconds=60,
        )
        assert not shop.tables.faults()
        assert command(shop, "stuck") == (0, "Nothing is stuck.\n")
        assert shop.shopper.get("/ledger.json").json["balanced"]
    finally:
        shop.server.close()


@pytest.mark.sampled(1)
def test_older_copies_of_both_one_after_the_other_come_to_rest(new_url: NewUrl) -> None:
    """What was made again after the first is not held against the runs that come back with the second."""
    shop = Shop(new_url(), STORE_RECONCILE_SECONDS=OFTEN, STORE_DISPATCH_TICK_SECONDS=0.02)
    shop.server.start()
    try:
        shop.server.kill()
        opening = Copy(shop.database_url, of_checkpoints=False)
        shop.server.restart()
        shop.shopper.buy(key())  # its number is given to another order later
        ended, waiting = paid(shop), shop.shopper.buy(key())
        dispatched(shop, ended)
        assert shop.shopper.request("POST", "/restock").status == 200
        shop.server.kill()
        checkpoints = Copy(shop.database_url, of_checkpoints=True)
        opening.put_back()
        shop.server.restart()
        eventually(lambda: len(shop.tables.orders()), lambda orders: orders == 3)
        dispatched(shop, ended)
        eventually(lambda: shop.shopper.get("/ledger.json").json["balanced"], bool)
        numbers = shop.tables.rows("SELECT payment_id, order_id FROM orders ORDER BY payment_id")
        shop.server.kill()
        checkpoints.put_back()
        shop.server.restart()
        shop.shopper.confirm(waiting)
        dispatched(shop, ended, waiting)
        assert shop.tables.rows("SELECT payment_id, order_id FROM orders ORDER BY payment_id") == numbers
    finally:
        shop.server.close()


def test_all_that_the_store_has_lost_is_found_though_it_takes_many_looks(
    unwatched: Shop, new_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order once, also where more came in one millisecond than one look finds."""
    shop = unwatched
    lost = [shop.shopper.hold(key()) for _ in range(11)]
    shop.server.kill()
    for number, payment_id in enumerate(lost):
        at_ms = 1_800_000_000_000 + (number if number < 2 else max(number, 8))  # seven at once
        shop.checkpoints.change(
            "UPDATE workflow_status SET created_at = :at WHERE workflow_uuid = :id", at=at_ms, id=payment_id
        )
    monkeypatch.setattr(sweep, "BATCH", 3)
    opening = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": new_url()}))  # of an empty store
    client = client_of(Settings.from_env({"DBOS_DATABASE_URL": shop.database_url}))
    with opening.reader.connect() as connection:
        found = [each.workflow_id for each in sweep.find(connection, client)]
    client.destroy()
    opening.close()
    assert sorted(found) == sorted(lost)


def test_a_payment_counts_though_the_store_is_restored_again_while_it_is_mended(unwatched: Shop) -> None:
    """Its checkpoints were forgotten to be run again, and still know it."""
    shop = unwatched
    payment_id = shop.shopper.buy(key())
    shop.server.kill()
    unpaid = Copy(shop.database_url, of_checkpoints=False)
    shop.server.restart()
    shop.shopper.confirm(payment_id)
    dispatched(shop, payment_id)
    shop.server.kill()
    unpaid.put_back()
    assert command(shop, "mend", payment_id)[0] == 0
    unpaid.put_back()
    shop.server.restart()
    dispatched(shop, payment_id)


def test_a_payment_counts_that_nobody_has_received(unwatched: Shop) -> None:
    """Its order is gone with an older copy of the store, and its message waits in the checkpoints."""
    shop = unwatched
    shop.server.kill()
    opening = Copy(shop.database_url, of_checkpoints=False)
    shop.server.restart()
    payment_id = shop.shopper.buy(key())
    shop.server.kill()
    client = client_of(Settings.from_env({"DBOS_DATABASE_URL": shop.database_url}))
    client.send(payment_id, "paid", PAYMENT_TOPIC)
    client.destroy()
    opening.put_back()
    assert command(shop, "mend")[0] == 0
    shop.server.restart()
    dispatched(shop, payment_id)


def test_a_payment_counts_that_only_its_message_knows(unwatched: Shop) -> None:
    """The message was on its way when an older copy of the store was restored, which has no notice of it."""
    shop = unwatched
    payment_id = shop.shopper.buy(key())
    shop.server.kill()
    client = client_of(Settings.from_env({"DBOS_DATABASE_URL": shop.database_url}))
    client.send(payment_id, "paid", PAYMENT_TOPIC)
    client.destroy()
    shop.server.restart()
    dispatched(shop, payment_id)


# --- trouble that only writers meet --------------------------------------------------------------------


def test_what_a_full_disk_keeps_waiting_is_not_stuck(tmp_path: Path) -> None:
    """A round can read all the while, and the window ended long ago; it is over as soon as there is room."""
    shop = Shop(
        f"sqlite:///{tmp_path}/store.sqlite3", STORE_RECONCILE_SECONDS=OFTEN, STORE_PAYMENT_WINDOW_SECONDS=2
    )
    shop.server.start()
    try:
        payment_id = shop.shopper.hold(key())
        unlimited = resource.RLIM_INFINITY
        resource.prlimit(shop.server.pid, resource.RLIMIT_FSIZE, (0, unlimited))
        [(pay_by_ms,)] = shop.tables.rows("SELECT pay_by_ms FROM orders")
        # What was due 20 s ago is stuck in a shop that is well.
        eventually(time.time, lambda now: now > pay_by_ms / 1000 + 24, timeout_seconds=40)
        resource.prlimit(shop.server.pid, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        eventually(shop.tables.orders, lambda orders: orders == {payment_id: "expired"})
        assert mended(shop) == []
    finally:
        shop.server.close()


# --- money -------------------------------------------------------------------------------------------


def test_late_money_that_nobody_gave_back_is_given_back(shop: Shop) -> None:
    """Its notice is there, and neither charge nor refund."""
    payment_id = shop.shopper.buy(key())
    shop.shopper.cancel(payment_id)
    shop.shopper.wait_for(payment_id, "Payment cancelled")
    shop.tables.change(
        "INSERT INTO payment_notices (payment_id, outcome, received_at_ms) VALUES (:id, 'paid', 1)",
        id=payment_id,
    )
    assert command(shop, "mend", payment_id)[0] == 0
    eventually(
        lambda: shop.tables.rows(
            "SELECT kind FROM payments WHERE payment_id = :id ORDER BY kind", id=payment_id
        ),
        lambda rows: rows == [("charge",), ("refund",)],
    )
    assert not shop.tables.faults()


# --- greetings ---------------------------------------------------------------------------------------


def test_a_greeting_without_a_workflow_is_greeted(new_url: NewUrl, tmp_path: Path) -> None:
    """It was asked for, and the server died before any workflow was told."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        shop = Shop(new_url(), STORE_RECONCILE_SECONDS=0, STORE_GUESTBOOK_URL=guestbook.url)
        shop.server.start()
        try:
            shop.tables.change(
                "INSERT INTO greeting_requests (greeting_id, name, client, asked_at_ms, give_up_at_ms)"
                " VALUES ('somebody.greeting', 'Ada', 'x', 1, 9999999999999)"
            )
            code, said = command(shop, "stuck")
            assert (code, said.startswith("a greeting, since ")) == (1, True)
            command(shop, "mend")
            eventually(
                lambda: shop.tables.rows("SELECT name FROM greetings"), lambda rows: rows == [("Ada",)]
            )
            assert command(shop, "stuck")[0] == 0
        finally:
            shop.server.close()


@pytest.fixture
def greeter(new_url: NewUrl, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """A shop beside a guestbook of its own, with so many seconds between two rounds of the reconciler."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        shop = Shop(
            new_url(),
            STORE_RECONCILE_SECONDS=getattr(request, "param", OFTEN),
            STORE_DISPATCH_TICK_SECONDS=0.6,
            STORE_GUESTBOOK_URL=guestbook.url,
        )
        shop.server.start()
        yield shop
        assert guestbook.names == ["Ada"], "in both books, once"
        assert shop.tables.rows("SELECT name FROM greetings") == [("Ada",)]
        shop.server.close()


@pytest.mark.sampled(1)
def test_a_greeting_that_only_the_checkpoints_know_is_written_down_again(greeter: Shop) -> None:
    """It was greeted, and an older copy of the store was restored."""
    greeter.server.kill()
    copy = Copy(greeter.database_url, of_checkpoints=False)
    greeter.server.restart()
    visit = key()
    greeter.shopper.submit("/guestbook", key=visit, name="Ada")
    page = f"/greetings/{visit}"
    eventually(lambda: greeter.shopper.page(page).heading, lambda shown: shown.startswith("Thank you"))
    ended = "SELECT status FROM workflow_status WHERE workflow_uuid = :id"
    eventually(
        lambda: greeter.checkpoints.rows(ended, id=f"{visit}.greeting"), lambda rows: rows == [("SUCCESS",)]
    )
    greeter.server.kill()
    copy.put_back()
    greeter.server.restart()
    eventually(
        lambda: greeter.shopper.page(page),
        lambda shown: shown.status == 200 and shown.heading.startswith("Thank you"),
    )
    assert mended(greeter) == [f"{visit}.greeting"]


@pytest.mark.parametrize("greeter", [0], indirect=True)
def test_a_greeting_under_way_outlives_an_older_copy_of_the_store(greeter: Shop) -> None:
    """Its row is gone when it comes to write down who has signed; nobody has to mend it."""
    visit = key()
    greeter.shopper.submit("/guestbook", key=visit, name="Ada")
    page = f"/greetings/{visit}"
    eventually(
        lambda: greeter.shopper.page(page).heading,
        lambda shown: shown.startswith("Signed in the online guestbook"),
    )
    greeter.tables.change("DELETE FROM greeting_requests")
    eventually(
        lambda: greeter.shopper.page(page),
        lambda shown: shown.status == 200 and shown.heading.startswith("Thank you"),
    )


def test_an_order_is_made_again_though_its_mending_was_cut_short(shop: Shop) -> None:
    """Its old run was forgotten, and the process died before the new one was asked for."""
    payment_id = key()
    shop.server.kill()
    shop.tables.change(
        "INSERT INTO mendings (workflow_id, attempt, reason, mended_at_ms) VALUES (:id, 1, 'Lost.', 1)",
        id=payment_id,
    )
    shop.server.restart()
    eventually(shop.tables.orders, lambda orders: orders == {payment_id: "pending"})
    shop.shopper.confirm(payment_id)
    dispatched(shop, payment_id)


def test_an_order_is_made_again_though_its_mending_dies_and_the_store_is_restored_again(shop: Shop) -> None:
    """It is forgotten and not yet asked for again, and in no table: the mending itself remembers it."""
    shop.server.kill()
    opening = Copy(shop.database_url, of_checkpoints=False)
    shop.server.restart()
    payment_id = paid(shop)
    dispatched(shop, payment_id)
    shop.server.kill()
    opening.put_back()
    point = "after commit of the checkpoint of DBOS.deleteWorkflow"
    shop.server.restart(script=(*MORTAL, point), expect_to_open=False)
    assert shop.server.wait_for_death() == -9
    assert not shop.checkpoints.rows("SELECT 1 FROM workflow_status WHERE workflow_uuid = :id", id=payment_id)
    opening.put_back()
    shop.server.restart()
    eventually(shop.tables.orders, lambda orders: orders.get(payment_id) == "dispatched")
    dispatched(shop, payment_id)


# --- code that has changed -----------------------------------------------------------------------------


def test_an_order_that_the_code_cannot_resume_is_listed_and_finishes_when_it_is_put_right(
    unwatched: Shop,
) -> None:
    """A step was renamed under it; the list says which, in one sentence."""
    shop = unwatched
    payment_id = paid(shop)
    ticks = "SELECT function_name FROM operation_outputs WHERE function_name = 'tick 1'"
    eventually(lambda: shop.checkpoints.rows(ticks), bool)  # the tick commits before its checkpoint
    shop.server.kill()
    rename = "UPDATE operation_outputs SET function_name = '{}' WHERE function_name = '{}'"
    shop.checkpoints.change(rename.format("stamp 1", "tick 1"))
    shop.server.restart()
    shop.tables.change("UPDATE orders SET updated_at_ms = 1 WHERE payment_id = :id", id=payment_id)
    code, said = command(shop, "stuck")
    assert code == 1
    assert "has a checkpoint, 'stamp 1', that the current code cannot have written." in said
    # The list knows that before the server has come to it; killed before, it would lose nothing.
    ended = "SELECT 1 FROM workflow_status WHERE name = 'dispatch' AND status = 'ERROR'"
    eventually(lambda: shop.checkpoints.rows(ended), bool)
    shop.server.kill()
    shop.checkpoints.change(rename.format("tick 1", "stamp 1"))
    shop.server.restart()
    assert command(shop, "mend", "1")[0] == 0  # as a round of the server does
    dispatched(shop, payment_id)
    assert command(shop, "stuck")[0] == 0


# --- the commands --------------------------------------------------------------------------------------


@pytest.mark.first_of_all
def test_an_operator_lists_and_mends(unwatched: Shop) -> None:
    """One line each, or JSON; a dry run changes nothing; the living server then runs them again."""
    shop = unwatched
    assert command(shop, "stuck") == (0, "Nothing is stuck.\n")
    assert command(shop, "mend") == (0, "Nothing is stuck.\n")
    assert command(shop, "mend", "7") == (1, "Order 7 is not stuck.\n")
    # As one payment id in sixty-four begins.
    assert command(shop, "mend", "-yIe", "--dry-run") == (1, "Order -yIe is not stuck.\n")
    pending, moving = shop.shopper.hold(key()), paid(shop)
    shop.server.kill()
    shop.checkpoints.change("DELETE FROM workflow_status")
    shop.server.restart()
    code, said = command(shop, "stuck")
    assert code == 1
    assert [line.split(", since ")[0] for line in said.splitlines()] == ["order 1", "order 2"]
    assert all(line.endswith(": Its checkpoints are gone.") for line in said.splitlines())
    code, said = command(shop, "stuck", "--json")
    assert code == 1
    assert [(each["order_id"], each["workflow_id"]) for each in json.loads(said)] == [
        (1, pending),
        (2, f"{moving}.dispatch"),
    ]
    assert command(shop, "mend", "--dry-run")[1].startswith("Would run again: order 1, since ")
    assert mended(shop) == []
    code, said = command(shop, "mend", "2")
    assert (code, said.splitlines()[-1]) == (
        0,
        "A server does it within a second or two, or as soon as one is started.",
    )
    dispatched(shop, moving)
    assert mended(shop) == [f"{moving}.dispatch"]
    assert [each["mended"] for each in json.loads(command(shop, "mend", "--json")[1])] == [True]
    shop.shopper.confirm(pending)
    dispatched(shop, pending, moving)
    assert command(shop, "stuck")[0] == 0


def test_what_is_under_way_is_not_stuck(unwatched: Shop) -> None:
    """Orders that wait for their payment, or are on their way, are left alone."""
    shop = unwatched
    for _ in range(3):
        shop.shopper.buy(key())
        paid(shop)
    assert command(shop, "stuck") == (0, "Nothing is stuck.\n")
