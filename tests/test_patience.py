"""Limits on waiting: a permit always comes back, and what ends late is not lost without a word."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from store.durable import deadlines
from store.durable.deadlines import DeadlineExceeded, call_with_deadline
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
