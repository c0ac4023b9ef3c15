"""Time limits on reads: a request is answered soon, or told that the database does not answer.

A database that hangs gives no answer and no error, and the timeouts that it keeps itself hang with it. So
each request reads in a thread of its own, and after a while goes on without it. Once a read has had no
answer, all others are refused at once but for one at a time, until one is answered. So a database that
hangs costs each visitor a moment at most, and the store no more threads than were reading when it began.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from threading import BoundedSemaphore
from typing import TypeVar

from store.durable.deadlines import PAGE_SECONDS, DeadlineExceeded, call_with_deadline, seconds_left

T = TypeVar("T")

_ENOUGH_SECONDS = PAGE_SECONDS / 2
"""A read that had less time than this, because its request had used up the rest, tells nothing."""
_reads = BoundedSemaphore(400)
"""How many may be under way: more than there are threads that answer requests, unless somebody sets many."""
_scout = BoundedSemaphore(1)
"""While the database is silent: one, which finds out whether it still is."""
_SCOUT_SECONDS = 0.25
"""How long its request waits for it: it may have waited for a thread before."""
_this_thread = threading.local()


class _Database:
    """What is known of it. One for each process, as is the database that its requests read."""

    is_silent = False
    """Whether a read had no answer, and none has had one since."""
    answered_at = float("-inf")
    """When a read was last answered, on the monotonic clock."""


def read(call: Callable[[], T]) -> T:
    """What `call` reads, if the database answers in the time that this request has, and a page's at most.

    A read within a read has the thread of that one, and ends with its time: a thread costs as much as a
    SELECT, so a page that reads several things does so in one.

    Raises:
        DeadlineExceeded: it does not, or has not answered others before.
    """
    if not is_within_a_read():
        return read_by_itself(call)
    if not seconds_left():  # whoever asked has been told so already
        raise DeadlineExceeded("no time is left for this read")
    return _note_answer(call())


def read_by_itself(call: Callable[[], T]) -> T:
    """The same in a thread of its own, also within a read: for what others wait for, too.

    Raises:
        DeadlineExceeded: likewise.
    """

    def look() -> T:
        _this_thread.reads = True
        return _note_answer(call())

    began_at = time.monotonic()
    try:
        if _Database.is_silent:
            return call_with_deadline(look, min(_most_seconds(), _SCOUT_SECONDS), slots=_scout)
        return call_with_deadline(look, _most_seconds(), slots=_reads)
    except DeadlineExceeded as late:
        if _Database.answered_at < began_at < time.monotonic() - _ENOUGH_SECONDS:
            _Database.is_silent = True
        raise DeadlineExceeded(f"the database does not answer: {late}") from late


def _note_answer(found: T) -> T:
    _Database.answered_at = time.monotonic()
    _Database.is_silent = False
    return found


def is_within_a_read() -> bool:
    """Whether this thread is that of a read already."""
    return getattr(_this_thread, "reads", False)


def seconds_for_a_turn() -> float:
    """How long to wait for somebody else who reads the same: not at all while the database is silent."""
    return 0.0 if _Database.is_silent else _most_seconds()


def _most_seconds() -> float:
    """How long this request may still wait for a read."""
    return min(seconds_left(), PAGE_SECONDS)
