"""Several server processes, and several machines, on one Postgres: the others take up what one has left."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException

import psycopg
import pytest
from sqlalchemy import make_url

from store.schema import connect
from store.settings import Settings
from tests.support.postgres import Postgres
from tests.support.refusal import refusal
from tests.support.shop import SupervisedShop
from tests.support.shopper import eventually, key
from tests.support.started import run

PROCESSES = 3
_LIVING = "SELECT number, pid FROM executors WHERE ended_at_ms IS NULL ORDER BY number"
Machine = Callable[..., SupervisedShop]


@pytest.fixture
def machine(postgres: Postgres) -> Iterator[Machine]:
    """Opens a process tree of its own, with its own machine name, on one Postgres database."""
    url = postgres.new_url()
    machines: list[SupervisedShop] = []

    def open_one(name: str, processes: int = PROCESSES, **settings: object) -> SupervisedShop:
        shop = SupervisedShop(url, STORE_MACHINE=name, STORE_PROCESSES=processes, **settings)
        machines.append(shop)
        living = "SELECT count(*) FROM executors WHERE machine = :name AND ended_at_ms IS NULL"
        eventually(lambda: shop.tables.rows(living, name=name), lambda rows: rows == [(processes,)])
        return shop

    yield open_one
    for each in machines:
        each.parent.close()


def sell(shop: SupervisedShop, count: int) -> list[str]:
    """So many paid orders under way."""
    sold = [shop.shopper.buy(key()) for _ in range(count)]
    for payment_id in sold:
        shop.shopper.confirm(payment_id)
    return sold


def come_to_rest(shop: SupervisedShop) -> None:
    """Until every order is dispatched; then each was once, and the ledger is green."""
    eventually(
        lambda: set(shop.tables.orders().values()), lambda ended: ended == {"dispatched"}, timeout_seconds=40
    )
    eventually(shop.tables.faults, lambda faults: not faults)
    assert shop.shopper.get("/ledger.json").json["balanced"]


def ended(shop: SupervisedShop, number: int) -> tuple[str | None, int | None]:
    """How one has ended, and who has taken up its work."""
    [row] = shop.tables.rows(
        "SELECT how_ended, adopted_by, adopted_at_ms FROM executors WHERE number = :number", number=number
    )
    return row.how_ended, row.adopted_by if row.adopted_at_ms else None


def wait_for_adoption(shop: SupervisedShop, number: int) -> str | None:
    """Until somebody has taken up its work; how it has ended."""
    how, _ = eventually(lambda: ended(shop, number), lambda found: found[1] is not None)
    return how


def test_they_share_the_requests_and_the_orders(machine: Machine) -> None:
    """Whichever is asked, a click is one order, its payment arrives, and its progress is the same."""
    shop = machine("one")
    answered: set[str] = set()

    def ask() -> int:
        answered.add(shop.shopper.page("/").headers["Store-Server"])
        return len(answered)

    # The others may be on the record and not listen yet.
    eventually(ask, lambda servers: servers > 1)
    one_key = key()
    for _ in range(5):
        shop.shopper.buy(one_key)
    assert len(shop.tables.orders()) == 1
    shop.shopper.confirm(one_key)
    sell(shop, 5)
    come_to_rest(shop)
    page = shop.shopper.page("/").text
    assert f"one of {PROCESSES}" in page
    assert f"Crash all {PROCESSES}" in page


@pytest.mark.first_of_all
def test_a_killed_one_is_adopted_at_once_by_another(machine: Machine) -> None:
    """Its parent has seen it die, and tells those that live; the track of its order says who went on."""
    shop = machine("one", STORE_DISPATCH_TICK_SECONDS=0.3)
    sold = sell(shop, 6)
    left = "SELECT executor_id FROM workflow_status WHERE workflow_uuid = :id"
    [(executor_id,)] = eventually(lambda: shop.checkpoints.rows(left, id=f"{sold[-1]}.dispatch"), bool)
    number = int(executor_id.rpartition("-")[2])
    living = dict(map(tuple, shop.tables.rows(_LIVING)))
    os.kill(living.pop(number), signal.SIGKILL)
    assert wait_for_adoption(shop, number) == "died"
    assert shop.tables.rows(
        "SELECT left_by FROM takeovers WHERE payment_id = :id AND status = 'paid'", id=sold[-1]
    ) == [(number,)]
    come_to_rest(shop)
    assert f"Server {number} died" in shop.shopper.page(f"/orders/{sold[-1]}").text
    eventually(lambda: len(shop.tables.rows(_LIVING)), lambda count: count == PROCESSES)
    assert set(living) <= {row.number for row in shop.tables.rows(_LIVING)}


def test_the_crash_takes_the_one_that_was_meant_or_all(machine: Machine) -> None:
    """Whichever of them gets the form; sent again, it does no more."""
    shop = machine("one")
    meant, *others = [row.number for row in shop.tables.rows(_LIVING)]

    def crash(**form: str) -> None:
        with suppress(OSError, HTTPException):  # it was the one that was meant which got it
            shop.shopper.submit("/crash_application", executor=str(meant), **form)

    for _ in range(2):
        crash()
        assert wait_for_adoption(shop, meant) == "died"
    assert [ended(shop, number) for number in others] == [(None, None)] * len(others)
    eventually(lambda: len(shop.tables.rows(_LIVING)), lambda count: count == PROCESSES)
    meant, *others = [row.number for row in shop.tables.rows(_LIVING)]
    crash(all="yes")
    for number in (meant, *others):
        assert wait_for_adoption(shop, number) == "died"
    eventually(lambda: len(shop.tables.rows(_LIVING)), lambda count: count == PROCESSES)


def test_what_the_presenter_tells_one_the_others_find_out(machine: Machine) -> None:
    """An armed crash takes whichever of them an order passes, once; a held window is held by all."""
    shop = machine("one")
    shop.shopper.submit("/stage/crashes/charge", do="arm")
    deadline = time.monotonic() + 30
    while not shop.deaths and time.monotonic() < deadline:
        with suppress(OSError, HTTPException):  # it was the one that died which was asked
            sell(shop, 1)
    shop.wait_for_deaths(1)
    come_to_rest(shop)
    assert len(shop.deaths) == 1
    assert shop.shopper.submit("/stage/window", do="hold").status == 303
    long_ms = 30 * 60_000

    def windows() -> list[int]:
        payment_id = shop.shopper.hold(key())
        of_order = "SELECT pay_by_ms - created_at_ms FROM orders WHERE payment_id = :id"
        return [row[0] for row in shop.tables.rows(of_order, id=payment_id)]

    eventually(lambda: [windows() for _ in range(2 * PROCESSES)], lambda found: min(found)[0] > long_ms)


def test_one_that_was_frozen_past_its_lease_ends_and_comes_back(machine: Machine) -> None:
    """It counts as lost, its orders go on elsewhere; once it goes on it does no harm, and is another one."""
    shop = machine("one", STORE_LEASE_SECONDS=2, STORE_DISPATCH_TICK_SECONDS=0.3, STORE_HANG_SECONDS=0)
    sell(shop, 6)
    number, pid = shop.tables.rows(_LIVING)[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert wait_for_adoption(shop, number) == "lost"
    finally:
        os.kill(pid, signal.SIGCONT)
    come_to_rest(shop)
    eventually(lambda: shop.parent.output, lambda said: f"Server {pid} died (it counted as lost)" in said)
    eventually(lambda: len(shop.tables.rows(_LIVING)), lambda count: count == PROCESSES)


def test_signs_of_life_come_back_after_a_failover(machine: Machine) -> None:
    """A connection that was made while the database was read-only stays so, and none could begin again."""
    shop = machine("one", 1, STORE_LEASE_SECONDS=2)
    name = psycopg.sql.Identifier(make_url(shop.database_url).database or "")
    change = psycopg.sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
    with psycopg.connect(shop.database_url, autocommit=True) as connection:
        connection.execute(change.format(name, psycopg.sql.SQL("on")))
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'widget-store-executor'"
        )
        eventually(lambda: shop.shopper.submit("/buy", key=key()).status, lambda status: status == 503)
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(change.format(name, psycopg.sql.SQL("off")))
    eventually(lambda: shop.shopper.submit("/buy", key=key()).status, lambda status: status == 303)


def test_a_machine_that_is_gone_is_adopted_by_another(machine: Machine) -> None:
    """Nobody is left there to tell: its silence does."""
    here, there = machine("here", 2), machine("there", 2, STORE_DISPATCH_TICK_SECONDS=0.5)
    sell(there, 4)
    gone = here.tables.rows("SELECT number, pid FROM executors WHERE machine = 'there'")
    for pid in (there.parent.pid, *(row.pid for row in gone)):
        with suppress(ProcessLookupError):  # it has followed its parent
            os.kill(pid, signal.SIGKILL)
    for row in gone:
        assert wait_for_adoption(here, row.number) == "lost"
    come_to_rest(here)


def test_a_rolling_restart_loses_no_request_and_no_order(machine: Machine) -> None:
    """SIGUSR2: one after another is replaced; whoever shops meanwhile is answered each time."""
    shop = machine("one")
    before = {row.number for row in shop.tables.rows(_LIVING)}
    is_over, refused = threading.Event(), []

    def go_on_shopping() -> None:
        while not is_over.is_set():
            try:
                shop.shopper.confirm(shop.shopper.buy(key()))
            except (OSError, AssertionError) as trouble:
                refused.append(trouble)

    visitor = threading.Thread(target=go_on_shopping)
    visitor.start()
    try:
        os.kill(shop.parent.pid, signal.SIGUSR2)
        eventually(
            lambda: {row.number for row in shop.tables.rows(_LIVING)},
            lambda living: len(living) == PROCESSES and not living & before,
            timeout_seconds=60,
        )
    finally:
        is_over.set()
        visitor.join()
    assert refused == []
    assert shop.deaths == []
    assert {ended(shop, number)[0] for number in before} == {"stopped"}
    come_to_rest(shop)


# --- what is refused ----------------------------------------------------------------------------


def test_a_clock_that_is_an_hour_off_is_refused(postgres: Postgres) -> None:
    """The clock of the database is what all machines share; here it is that one which is moved."""
    url = postgres.new_url()
    connect(Settings.from_env({"DBOS_DATABASE_URL": url})).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA hour_off")
        connection.execute(
            "CREATE FUNCTION hour_off.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
            " AS $$ SELECT pg_catalog.clock_timestamp() - interval '1 hour' $$"
        )
        name = psycopg.sql.Identifier(connection.info.dbname)
        connection.execute(
            psycopg.sql.SQL("ALTER DATABASE {} SET search_path = hour_off, pg_catalog, public").format(name)
        )
    sentence = refusal(DBOS_DATABASE_URL=url)
    assert "is 3600 s ahead of that of the database" in sentence


def test_more_processes_than_connections_are_refused(postgres: Postgres) -> None:
    """By how many each needs, and how many there are."""
    sentence = refusal("app.py", DBOS_DATABASE_URL=postgres.new_url(), STORE_PROCESSES="64")
    assert "STORE_PROCESSES 64 may need" in sentence
    assert "max_connections" in sentence


def test_several_on_sqlite_are_refused() -> None:
    """One file, one server."""
    assert refusal("app.py", STORE_PROCESSES="2").startswith("STORE_PROCESSES must be 1 on SQLite")


# --- by hand ------------------------------------------------------------------------------------


def test_a_living_one_is_adopted_by_hand_only_if_forced(machine: Machine) -> None:
    """And then it ends, comes back as another one, and nothing is done twice."""
    shop = machine("one", 2, STORE_DISPATCH_TICK_SECONDS=0.2)
    sell(shop, 4)
    first, _ = [row.number for row in shop.tables.rows(_LIVING)]
    listed = command(shop, "executors")
    assert f"one-{first}" in listed.stdout
    assert listed.stdout.count("lives: last sign of life") == 2
    refused = command(shop, "adopt", f"one-{first}")
    assert (refused.returncode, ended(shop, first)) == (1, (None, None))
    assert "--force counts it as lost all the same" in refused.stdout
    assert command(shop, "adopt", "77").stdout == "There is no executor 77: `app.py executors` lists them.\n"
    forced = command(shop, "adopt", str(first), "--force")
    assert forced.returncode == 0, forced.stdout + forced.stderr
    assert "taken up by" in forced.stdout
    come_to_rest(shop)
    eventually(lambda: len(shop.tables.rows(_LIVING)), lambda count: count == 2)
    assert "lost" in command(shop, "executors").stdout


def command(shop: SupervisedShop, *words: str) -> subprocess.CompletedProcess[str]:
    """One command of the shop, and what it has said."""
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith(("STORE_", "DBOS_"))
    }
    return run("app.py", *words, environment={**environment, "DBOS_DATABASE_URL": shop.database_url})
