"""Limits on waiting: a permit always comes back, and what ends late is not lost without a word."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from store.durable import deadlines
from store.durable.deadlines import TURNS, DeadlineExceeded, call_in_turn, call_with_deadline
from tests.support.shopper import eventually

pytestmark = pytest.mark.quick


@contextmanager
def no_new_threads() -> Iterator[None]:
    """No thread can be started: there is no memory for its stack."""
    usual = threading.stack_size(2**40)
    try:
        yield
    finally:
        threading.stack_size(usual)


def test_a_thread_that_cannot_be_started_costs_no_permit() -> None:
    """The caller is told at once, and after the trouble others are answered."""
    permit = threading.BoundedSemaphore(1)
    with no_new_threads():
        for _ in range(3):
            with pytest.raises(DeadlineExceeded, match="no thread"):
                call_with_deadline(lambda: "answer", 5, slots=permit)
    assert call_with_deadline(lambda: "answer", 5, slots=permit) == "answer"


def test_a_call_that_fails_after_its_deadline_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """One line, as a warning: nobody is left to raise it to."""
    is_late = threading.Event()

    def fail() -> None:
        is_late.wait(20)
        raise LookupError("no workflow a-payment-id\nis known")

    with caplog.at_level(logging.WARNING, "store"):
        with pytest.raises(DeadlineExceeded):
            call_with_deadline(fail, 0.01)
        is_late.set()
        eventually(lambda: list(caplog.records), bool)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "a call failed after its deadline: LookupError: no workflow a-pa…"


def test_a_call_that_fails_in_time_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It is raised to the caller."""
    nothing: dict[str, str] = {}
    with caplog.at_level(logging.WARNING, "store"), pytest.raises(LookupError):
        call_with_deadline(lambda: nothing["key"], 20)
    assert not caplog.records


def test_a_call_has_the_deadline_of_its_request() -> None:
    """Within another thread, too: what it calls in turn waits no longer."""

    def request() -> None:
        deadlines.begin(60, 30)
        began = time.monotonic()
        found.append(call_with_deadline(deadlines.seconds_left))
        assert time.monotonic() - began < 20

    found: list[float] = []
    thread = threading.Thread(target=request)
    thread.start()
    thread.join()
    assert 30 < found[0] <= 60


def in_a_request(call: Callable[[], object], found: list[object], seconds: float = 60.0) -> threading.Thread:
    """Have it called in turn within a request that may wait for so long; the thread that does."""

    def request() -> None:
        deadlines.begin(seconds, seconds)
        try:
            found.append(call_in_turn(call))
        except DeadlineExceeded as late:
            found.append(str(late))

    thread = threading.Thread(target=request)
    thread.start()
    return thread


def test_a_few_take_turns_and_the_others_wait_for_theirs() -> None:
    """Each gives its turn back once it is done, whether that went well or not."""
    lock, most, under_way, found = threading.Lock(), 0, 0, list[object]()

    def work() -> str:
        nonlocal most, under_way
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.01)  # so that others would come in, if they could
        with lock:
            under_way -= 1
        return "done"

    for thread in [in_a_request(work, found) for _ in range(4 * TURNS)]:
        thread.join()
    assert found == ["done"] * (4 * TURNS)
    assert 1 < most <= TURNS


def test_who_waits_for_a_database_that_hangs_keeps_no_turn_from_the_others() -> None:
    """After a while its turn is over, and it waits on. Whoever has no time left for a turn begins nothing."""
    is_back, stuck, found, begun = threading.Event(), list[object](), list[object](), list[str]()
    threads = [in_a_request(lambda: is_back.wait(50), stuck) for _ in range(TURNS)]
    late = in_a_request(lambda: begun.append("late"), found, seconds=0.01)
    late.join()
    assert found == ["too many others were before it"]
    assert begun == []
    in_a_request(lambda: begun.append("in time"), found).join()
    assert begun == ["in time"]
    assert stuck == [], "they still wait"
    is_back.set()
    for thread in threads:
        thread.join()
    assert stuck == [True] * TURNS
