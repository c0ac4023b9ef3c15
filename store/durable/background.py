"""Background work: what nobody waits for with a click goes a few at a time, so that clicks get through.

A dispatch ticks by itself. Two hundred of them at once, as after a rush or a crash, would have the processor
and the database to themselves, and a shopper who pays would wait behind every tick that is due.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

AT_ONCE = 2
"""More do not go faster: one core runs all of a process."""
_turns = threading.Semaphore(AT_ONCE)


def in_background(work: Callable[P, R]) -> Callable[P, R]:
    """Make a function wait for its turn, and have it until it returns or raises."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _turns:
            return work(*args, **kwargs)

    return run


@contextmanager
def idle() -> Iterator[None]:
    """While a function of the background waits for something else, others have its turn."""
    _turns.release()
    try:
        yield
    finally:
        _turns.acquire()
