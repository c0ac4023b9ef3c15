"""The limit on reading: one read that has no answer speaks for all, until one has an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from store.durable import deadlines
from store.durable.deadlines import DeadlineExceeded
from store.reads import time_limit
from store.reads.cached import CachedRead
from tests.support.shopper import eventually

pytestmark = pytest.mark.quick


class Database:
    """Answers what it is asked, once it is let go."""

    def __init__(self) -> None:
        self._is_back = threading.Event()
        self.asked = 0

    def select(self) -> str:
        """Wait, and answer."""
        self.asked += 1
        assert self._is_back.wait(60)
        return "answer"

    def let_go(self) -> None:
        """Answer whoever waits, and whoever comes."""
        self._is_back.set()


@pytest.fixture
def database() -> Iterator[Database]:
    """A database that hangs; after the test it does not, and that is known."""
    database = Database()
    yield database
    database.let_go()
    eventually(is_answered(database.select), bool)


def is_answered(select: Callable[[], str]) -> Callable[[], bool]:
    """Whether a read is answered now."""

    def look() -> bool:
        try:
            return time_limit.read(select) == "answer"
        except DeadlineExceeded:
            return False

    return look


def in_a_request_of(seconds: float, call: Callable[[], object]) -> tuple[str, float]:
    """What a call ends with, in a request that may take so long, and after how long."""
    ended: list[str] = []

    def request() -> None:
        deadlines.begin(seconds, 0)
        try:
            call()
        except DeadlineExceeded:
            ended.append("too slow")
        else:
            ended.append("answered")

    thread, began_at = threading.Thread(target=request), time.monotonic()
    thread.start()
    thread.join()
    return ended[0], time.monotonic() - began_at


def test_after_one_read_without_an_answer_others_are_refused_at_once(database: Database) -> None:
    """All but one, which finds out whether the database is back; and then all are answered again."""
    ended, seconds = in_a_request_of(60, lambda: time_limit.read(database.select))
    assert ended == "too slow"
    assert seconds >= deadlines.PAGE_SECONDS
    others = [in_a_request_of(60, lambda: time_limit.read(database.select)) for _ in range(20)]
    assert {ended for ended, _ in others} == {"too slow"}
    assert sum(seconds for _, seconds in others) < len(others) * deadlines.PAGE_SECONDS / 2
    assert database.asked == 2
    database.let_go()
    eventually(is_answered(database.select), bool)
    assert in_a_request_of(60, lambda: time_limit.read(lambda: "answer"))[0] == "answered"


def test_nobody_waits_for_somebody_else_who_asks_a_silent_database(database: Database) -> None:
    """Not for their turn either, where many share one reading."""
    shared = CachedRead(database.select, 60)
    in_a_request_of(60, shared.get)
    first = threading.Thread(target=in_a_request_of, args=[60, shared.get])
    first.start()
    eventually(lambda: database.asked, lambda asked: asked == 2)
    others = [in_a_request_of(60, shared.get) for _ in range(20)]
    assert {ended for ended, _ in others} == {"too slow"}
    assert sum(seconds for _, seconds in others) < len(others) * deadlines.PAGE_SECONDS / 2
    assert database.asked == 2
    first.join()


def test_a_request_that_had_no_time_left_speaks_for_nobody(database: Database) -> None:
    """What it waited for before was something else."""
    assert in_a_request_of(0.1, lambda: time_limit.read(database.select))[0] == "too slow"
    ended, seconds = in_a_request_of(60, lambda: time_limit.read(lambda: "answer"))
    assert ended == "answered"
    ended, seconds = in_a_request_of(60, lambda: time_limit.read(database.select))
    assert seconds >= deadlines.PAGE_SECONDS


def test_a_read_within_a_read_has_its_thread() -> None:
    """And beyond it, another one."""
    threads: list[int] = []

    def read_two() -> None:
        time_limit.read(lambda: threads.append(threading.get_ident()))
        time_limit.read(lambda: threads.append(threading.get_ident()))

    time_limit.read(read_two)
    time_limit.read(lambda: None)
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


def test_what_many_wait_for_is_let_go_by_a_page_that_hangs(database: Database) -> None:
    """The page that began to read it is told that it takes too long, and the next one may begin."""
    shared = CachedRead(database.select, 60)
    assert in_a_request_of(0.2, lambda: time_limit.read(shared.get))[0] == "too slow"
    next_page = threading.Thread(target=in_a_request_of, args=[60, shared.get])
    next_page.start()
    eventually(lambda: database.asked, lambda asked: asked == 2)
    database.let_go()
    next_page.join()


def test_a_database_that_answers_within_a_page_is_not_called_silent(database: Database) -> None:
    """Though the page takes too long, over something else."""

    def page() -> None:
        time_limit.read(lambda: "answer")
        database.select()  # not by a read: another database

    assert in_a_request_of(60, lambda: time_limit.read(page))[0] == "too slow"
    both = [in_a_request_of(60, lambda: time_limit.read(lambda: "answer")) for _ in range(2)]
    assert {ended for ended, _ in both} == {"answered"}


def test_a_page_past_its_time_reads_no_more() -> None:
    """What nobody waits for any more ends at its next read."""
    is_late, ended = threading.Event(), threading.Event()

    def page() -> None:
        assert is_late.wait(60)
        try:
            time_limit.read(lambda: "answer")
        except DeadlineExceeded:
            ended.set()

    assert in_a_request_of(0.1, lambda: time_limit.read(page))[0] == "too slow"
    is_late.set()
    assert ended.wait(60)


@pytest.mark.parametrize(("most_seconds", "readings"), [(60.0, 1), (None, 2)], ids=["allowed", "not allowed"])
def test_what_takes_long_to_read_is_kept_for_longer_where_that_is_allowed(
    most_seconds: float | None, readings: int
) -> None:
    """So that thousands who watch do not have the shop read all the time."""
    read_at: list[float] = []

    def read() -> None:
        read_at.append(time.monotonic())
        threading.Event().wait(0.5)  # as long as it takes

    shared = CachedRead(read, 0, most_seconds=most_seconds)
    shared.get()
    shared.get()
    assert len(read_at) == readings
