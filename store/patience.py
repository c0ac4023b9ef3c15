"""Owns the limits on waiting: no request thread waits for longer than it said. Imports nothing of ours.

DBOS waits for a lost database without end. That is right for a workflow, which has all the
time in the world, and wrong for a request, whose shopper has not. So a request calls DBOS
through `promptly`. A call that takes too long is not undone; it goes on by itself, and
since every action carries the shopper's key, asking again is safe.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import BoundedSemaphore, Thread
from typing import TypeVar

T = TypeVar("T")

PAGE_SECONDS = 2.0
"""The longest that a page waits for anything."""
JSON_SECONDS = 10.0
"""The longest that a JSON route waits for its order: then it answers 504, and may be asked again."""

_MAX_LATE = 200
_late = BoundedSemaphore(_MAX_LATE)


class TooSlow(Exception):
    """The answer did not come in time. The work goes on; asking again is safe."""


def promptly(call: Callable[[], T], seconds: float = PAGE_SECONDS) -> T:
    """What `call` returns or raises, if it does so within `seconds`.

    Raises:
        TooSlow: it did not, or too many earlier calls are still waiting for the database.
    """
    if not _late.acquire(blocking=False):
        raise TooSlow("too many calls are waiting for the database")
    answer: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(call())
        except BaseException as error:  # handed to the caller below, whatever it is
            failure.append(error)
        finally:
            _late.release()

    worker = Thread(target=run, name="promptly", daemon=True)
    worker.start()
    worker.join(seconds)
    if failure:
        raise failure[0]
    if not answer:
        raise TooSlow(f"no answer within {seconds:g} seconds")
    return answer[0]
