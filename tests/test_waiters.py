"""Those who wait for a message: woken by what is committed, at once, however many wait."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dbos import DBOSClient, DBOSPortableJSONSerializer
from dbos._sys_db import SystemDatabase
from dbos._sys_db_postgres import PostgresSystemDatabase
from dbos._sys_db_sqlite import SQLiteSystemDatabase
from dbos._utils import LoopAwareEvent

from store.durable import background
from store.durable.private_names import waiters
from store.settings import is_sqlite
from store.vocabulary import PAYMENT_TOPIC, Outcome
from tests.support.postgres import Postgres
from tests.support.shop import Shop
from tests.support.shopper import eventually
from tests.support.started import ROOT
from tests.support.tables import checkpoints_of

_WAITERS = 200
_CLICKS = 10
_ROUNDS = 3


@pytest.mark.each_database
def test_a_message_that_woke_nobody_is_found(open_shop: Callable[..., Shop]) -> None:
    """One that another process sends on SQLite, or that comes while DBOS on Postgres does not listen."""
    shop = open_shop()
    payment_id = shop.shopper.hold()
    if not is_sqlite(shop.database_url):
        shop.checkpoints.change("ALTER TABLE dbos.notifications DISABLE TRIGGER USER")  # it tells of messages
    client = DBOSClient(
        system_database_url=checkpoints_of(shop.database_url), serializer=DBOSPortableJSONSerializer()
    )
    client.send(payment_id, Outcome.FAILED, PAYMENT_TOPIC)
    client.destroy()
    ended = eventually(shop.tables.orders, lambda orders: orders[payment_id] != "pending")
    assert ended[payment_id] == "declined"


def test_each_of_a_crowd_that_waits_is_answered_at_its_click(open_shop: Callable[..., Shop]) -> None:
    """With a page that says what became of it, and not with one that waits for word of it."""
    shop = open_shop(units=_WAITERS, STORE_PAYMENT_WINDOW_SECONDS=600)
    waiting = [shop.shopper.buy() for _ in range(_WAITERS)]

    def is_answered(payment_id: str) -> bool:
        shop.shopper.cancel(payment_id)
        return shop.tables.orders()[payment_id] == "declined"

    # A busy machine makes one late now and then; waiters that are not woken make late ones in every round.
    rounds = [waiting[number :: _WAITERS // _CLICKS] for number in range(_ROUNDS)]
    assert any(sum(map(is_answered, clicked)) >= _CLICKS - 1 for clicked in rounds)


@pytest.fixture
def two_processes(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[SystemDatabase, ...]]:
    """One that tells of events as the store has it, and one that listens: as two processes on a Postgres."""
    for kind, name in (
        (PostgresSystemDatabase, "_signal_notification"),
        (PostgresSystemDatabase, "run_notifier"),
        (SQLiteSystemDatabase, "_signal_notification"),
        (SQLiteSystemDatabase, "send_bulk"),
    ):  # and back at the end
        monkeypatch.setattr(kind, name, getattr(kind, name))
    waiters.wake_waiters_in_this_process()
    both = [
        SystemDatabase.create(
            system_database_url=url,
            engine_kwargs={},
            engine=None,
            schema="dbos",
            serializer=DBOSPortableJSONSerializer(),
            executor_id="an executor",
        )
        for url in [postgres.new_prepared_url()] * 2
    ]
    threads = [
        threading.Thread(target=call) for call in (both[0].run_notifier, both[1].run_notification_listener)
    ]
    for thread in threads:
        thread.start()
    yield tuple(both)
    for each in both:
        each._run_background_processes = False  # noqa: SLF001 - as DBOS ends them
        each._cleanup_connections()  # noqa: SLF001
    for thread in threads:
        thread.join(10)
    for each in both:
        each.destroy()


@pytest.mark.parametrize("is_awaited_here", [True, False])
def test_an_event_wakes_who_waits_here_at_once_and_others_soon(
    two_processes: tuple[SystemDatabase, ...], is_awaited_here: bool
) -> None:
    """Also where somebody waits for it in both, and others are told a moment later."""
    here, there = two_processes
    payload, components = here._waiter("W", "held")  # noqa: SLF001
    mine, theirs = LoopAwareEvent(), LoopAwareEvent()
    if is_awaited_here:
        here.workflow_events_map.add(payload, mine, components)
    there.workflow_events_map.add(payload, theirs, components)

    def tell() -> bool:  # again, should nobody have listened yet
        here._signal_notification("dbos_workflow_events_channel", payload)  # noqa: SLF001
        assert mine.is_set() == is_awaited_here
        return theirs.wait(0.5)

    eventually(tell, bool)


_LIMITER = """
import os
from dbos._dbos import _get_dbos_instance
import app
app.create_app()
print(_get_dbos_instance()._sys_db.poll_limiter.enabled, flush=True)
os._exit(0)
"""


def test_those_who_wait_to_pay_keep_no_click_from_looking(tmp_path: Path) -> None:
    """DBOS, as the store launches it, has no queue of its own for that."""
    said = subprocess.run(
        [sys.executable, "-c", _LIMITER],
        cwd=ROOT,
        env=os.environ | {"DBOS_DATABASE_URL": f"sqlite:///{tmp_path}/store.sqlite3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["False"]


@pytest.mark.quick
def test_what_is_in_the_background_goes_a_few_at_a_time() -> None:
    """Whoever waits for something else gives its turn to others, and has it again afterwards."""
    at_once, most, everybody = 0, 0, threading.Barrier(10)
    lock = threading.Lock()

    @background.in_background
    def tick_and_wait(*, is_first: bool) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        with lock:
            at_once -= 1
        if is_first:
            with background.idle():
                everybody.wait(10)  # all ten are in here: none of them holds a turn
            tick_and_wait.__wrapped__(is_first=False)  # type: ignore[attr-defined]

    threads = [threading.Thread(target=tick_and_wait, kwargs={"is_first": True}) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not everybody.broken
    assert 1 <= most <= background.AT_ONCE


@pytest.mark.quick
def test_no_turn_is_left_while_all_are_held() -> None:
    """The others wait, and come in afterwards."""
    holding, let_go = threading.Semaphore(0), threading.Event()

    @background.in_background
    def hold() -> None:
        holding.release()
        let_go.wait(10)

    holders = [threading.Thread(target=hold) for _ in range(2 * background.AT_ONCE)]
    for thread in holders:
        thread.start()
    for _ in range(background.AT_ONCE):
        assert holding.acquire(timeout=10)
    assert not background._turns.acquire(blocking=False)  # noqa: SLF001 - none is left for the others
    let_go.set()
    for thread in holders:
        thread.join(10)
    assert all(holding.acquire(blocking=False) for _ in range(background.AT_ONCE))


@pytest.mark.quick
def test_a_turn_is_given_back_by_what_fails() -> None:
    """Or the shop would come to a halt after a few of them."""

    @background.in_background
    def fail(*, idle: bool) -> None:
        if idle:
            with background.idle():
                raise ValueError("no tick")
        raise ValueError("no tick")

    for number in range(4 * background.AT_ONCE):
        with pytest.raises(ValueError, match="no tick"):
            fail(idle=bool(number % 2))
