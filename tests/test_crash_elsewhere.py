"""The crash button where a balancer leads a press to another machine than the page that it was made on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException

import pytest

from tests.support.postgres import Postgres
from tests.support.shop import SupervisedShop
from tests.support.shopper import eventually

_NEWEST = "SELECT max(number) FROM executors WHERE machine = :machine AND ended_at_ms IS NULL"
_ENDED = "SELECT how_ended FROM executors WHERE number = :number"
_ALL = "SELECT machine, count(*) AS starts FROM executors GROUP BY machine ORDER BY machine"


@pytest.fixture
def two(postgres: Postgres) -> Iterator[tuple[SupervisedShop, SupervisedShop]]:
    """Two machines with one server each."""
    url = postgres.new_url()
    machines = [SupervisedShop(url, STORE_MACHINE=name) for name in ("here", "there")]
    yield machines[0], machines[1]
    for each in machines:
        each.parent.close()


def newest(shop: SupervisedShop, machine: str) -> int:
    """The server that lives there."""
    [(number,)] = eventually(lambda: shop.tables.rows(_NEWEST, machine=machine), lambda rows: rows[0][0])
    return int(number)


def test_the_one_that_was_meant_dies(two: tuple[SupervisedShop, SupervisedShop]) -> None:
    """Once: pressed again, it is no other server's; and those here live on."""
    here, _ = two
    number, ours = newest(here, "there"), newest(here, "here")
    here.shopper.submit("/crash_application", executor=str(number))
    eventually(lambda: here.tables.rows(_ENDED, number=number), lambda rows: rows == [("died",)])
    here.shopper.submit("/crash_application", executor=str(number))
    assert newest(here, "there") != number
    assert newest(here, "here") == ours
    assert here.deaths == []
    assert here.tables.rows("SELECT 1 FROM armed_crashes") == []


def test_all_of_all_machines_die(two: tuple[SupervisedShop, SupervisedShop]) -> None:
    """And each of them once."""
    here, _ = two
    both = newest(here, "here"), newest(here, "there")
    with suppress(OSError, HTTPException):  # it has no answer if it was that one
        here.shopper.submit("/crash_application", executor=str(both[0]), all="1")
    for number in both:
        eventually(lambda: here.tables.rows(_ENDED, number=number), lambda rows: rows == [("died",)])  # noqa: B023
    newest(here, "here"), newest(here, "there")
    assert here.tables.rows(_ALL) == [("here", 2), ("there", 2)]
    assert here.tables.rows("SELECT 1 FROM armed_crashes") == []
