"""A rolling restart: each server leaves its connections to the others, and nobody's request is lost by it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPException

import psycopg
import pytest

from tests.support.postgres import Postgres
from tests.support.shop import SupervisedShop
from tests.support.shopper import eventually, key
from tests.support.wire import Wire

_LIVING = "SELECT number FROM executors WHERE ended_at_ms IS NULL"
_SLOW_SECONDS = 4.0
"""Longer than a server that is told to stop waits for an answer, and shorter than an API call does."""


@pytest.fixture
def shop(postgres: Postgres) -> Iterator[SupervisedShop]:
    """Two servers behind one address."""
    shop = SupervisedShop(postgres.new_url(), STORE_PROCESSES=2, STORE_UNPAID_PER_CLIENT=0)
    eventually(lambda: shop.tables.rows(_LIVING), lambda rows: len(rows) == 2)
    yield shop
    shop.parent.close()


def replace_all(shop: SupervisedShop) -> None:
    """SIGUSR2, until there are two others."""
    before = set(shop.tables.rows(_LIVING))
    os.kill(shop.parent.pid, signal.SIGUSR2)
    eventually(
        lambda: set(shop.tables.rows(_LIVING)),
        lambda living: len(living) == 2 and not living & before,
        timeout_seconds=60,
    )


@contextmanager
def no_order_is_made(url: str) -> Iterator[None]:
    """Whoever makes one waits, for as long as is said above."""

    def let_go(holder: psycopg.Connection) -> None:
        with holder:
            holder.execute("SELECT pg_sleep(%s)", [_SLOW_SECONDS])

    holder = psycopg.connect(url)
    holder.execute("UPDATE counters SET value = value WHERE counter = 'orders'")
    letting_go = threading.Thread(target=let_go, args=[holder])
    letting_go.start()
    yield
    letting_go.join()


@contextmanager
def meanwhile(*do: Callable[[], None]) -> Iterator[list[Exception]]:
    """Each in a thread; what went wrong in them, at the end."""
    wrong: list[Exception] = []

    def tell(one: Callable[[], None]) -> None:
        try:
            one()
        except (OSError, HTTPException, AssertionError, EOFError) as trouble:
            wrong.append(trouble)

    threads = [threading.Thread(target=tell, args=[one]) for one in do]
    for thread in threads:
        thread.start()
    yield wrong
    for thread in threads:
        thread.join()


def test_an_answer_that_takes_long_is_waited_for(shop: SupervisedShop) -> None:
    """Calls that wait for their order, at both servers, while both are replaced."""
    keys = [key() for _ in range(6)]

    def call(one_key: str) -> None:
        answer = shop.shopper.post(f"/checkout/{one_key}")
        assert (answer.status, answer.text) == (200, one_key)

    with no_order_is_made(shop.database_url), meanwhile(*[partial(call, each) for each in keys]) as wrong:
        replace_all(shop)
    assert wrong == []
    assert set(shop.tables.orders()) == set(keys)
    assert shop.deaths == []


def test_a_connection_that_is_kept_is_told_to_close(shop: SupervisedShop) -> None:
    """A page polls on one connection; no poll of it is lost, and each server that leaves says so once."""
    is_over, told = threading.Event(), list[str]()

    def poll() -> None:
        while not is_over.is_set():
            with Wire(shop.server.url) as wire:
                answer = wire.get("/recent")
                while not is_over.wait(0.1) and answer.headers.get("Connection") != "close":
                    assert answer.status == 200
                    answer = wire.get("/recent")
                told.append(answer.headers["Store-Server"])

    with meanwhile(poll, poll, poll, poll) as wrong:
        before = {str(row.number) for row in shop.tables.rows(_LIVING)}
        replace_all(shop)
        is_over.set()
    assert wrong == []
    assert set(told[:-4]) <= before


def test_a_connection_that_stays_silent_keeps_no_server(shop: SupervisedShop) -> None:
    """It is closed, whether it has asked for something before or not."""
    with ExitStack() as open_ones:
        wires = [open_ones.enter_context(Wire(shop.server.url)) for _ in range(6)]
        for wire in wires[:3]:
            assert wire.get("/recent").status == 200
        replace_all(shop)
        for wire in wires:
            with pytest.raises((EOFError, OSError)):
                wire.get("/recent")
