"""Request deadlines: DBOS blocks until its database is back, and a request must not.

Each request begins with a deadline, and calls DBOS through `call_with_deadline`. A call that takes too
long is not undone; it goes on by itself, and since every command carries an idempotency key, a retry is safe.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from contextvars import ContextVar, copy_context
from threading import BoundedSemaphore, Semaphore, Thread
from typing import TypeVar

from store.log_masking import mask

T = TypeVar("T")

PAGE_SECONDS = 2.0
"""The longest that a page waits, for everything together."""
JSON_SECONDS = 10.0
"""The longest that a JSON route waits: then it answers 504 or 503, and may be asked again."""
PAGE_EVENT_SECONDS = 1.0
"""Of that, for a workflow's event. Most come in a hundredth of it; for the others there is a page that waits.

In a rush it is also what keeps clicks from beginning more than is done: a thread that waits begins nothing.
"""
JSON_EVENT_SECONDS = 7.5
_SAY_SO_SECONDS = 0.4
"""To look a last time whether it has come, and to answer."""

_MAX_LATE = 200
_late = BoundedSemaphore(_MAX_LATE)
_deadline: ContextVar[float] = ContextVar("deadline")
_event_seconds: ContextVar[float] = ContextVar("event_seconds", default=PAGE_EVENT_SECONDS)
_log = logging.getLogger("store")


class DeadlineExceeded(Exception):
    """The answer did not come in time. The work goes on; asking again is safe."""


def begin(seconds: float, event_seconds: float) -> None:
    """Say how long this request may wait, from now, and how much of that for an event."""
    _deadline.set(time.monotonic() + seconds)
    _event_seconds.set(event_seconds)


def seconds_left() -> float:
    """How long this request may still wait; `PAGE_SECONDS` outside of any request."""
    return max(0.0, _deadline.get(time.monotonic() + PAGE_SECONDS) - time.monotonic())


def seconds_for_an_event() -> float:
    """How long to wait for a workflow's event from now, so that there is time left to say it did not come."""
    return max(0.0, min(_event_seconds.get(), seconds_left() - _SAY_SO_SECONDS))


def call_with_deadline(call: Callable[[], T], seconds: float | None = None, *, slots: Semaphore = _late) -> T:
    """What `call` returns or raises, if it does so within `seconds`, or what the request has left.

    `slots` is how many calls of its kind may be under way: those for the database, unless it says others.
    The call has a copy of the caller's context, so what it calls in turn has the same deadline.

    Raises:
        DeadlineExceeded: it did not, too many earlier calls are still under way, or there is no thread.
    """
    if not slots.acquire(blocking=False):
        raise DeadlineExceeded("too many calls are under way")
    answer: Future[T] = Future()

    def run() -> None:
        try:
            _run_into(answer, call)
        finally:
            slots.release()

    # A thread of its own: one that is late must not keep others waiting behind it.
    thread = Thread(target=copy_context().run, args=[run], name="call_with_deadline", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # no memory, or as many threads as the system allows
        slots.release()
        raise DeadlineExceeded("no thread could be started") from error
    try:
        return answer.result(seconds_left() if seconds is None else seconds)
    except FutureTimeout:
        if answer.cancel():
            raise DeadlineExceeded("no answer in time") from None
        return answer.result()  # it came at the last moment, or it was the call that raised this


def _run_into(answer: Future[T], call: Callable[[], T]) -> None:
    """Give `answer` what the call returns or raises. An error that nobody waits for any more is logged."""
    try:
        found = call()
    except BaseException as error:  # noqa: BLE001 - the caller raises it, whatever it is
        try:
            answer.set_exception(error)
        except InvalidStateError:
            first_line, *_ = str(error).splitlines() or [""]
            _log.warning("a call failed after its deadline: %s: %s", type(error).__name__, mask(first_line))
    else:
        with suppress(InvalidStateError):  # nobody waits for it any more
            answer.set_result(found)
