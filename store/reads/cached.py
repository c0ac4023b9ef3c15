"""CachedRead reads: however many ask at the same time, one reads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from store.durable.deadlines import DeadlineExceeded
from store.reads import time_limit

T = TypeVar("T")

_REST = 4
"""A reading that takes its time is made again after so many times as long: it is not all that is done."""


@dataclass(frozen=True)
class _Reading(Generic[T]):
    """What was read, and when, on the monotonic clock."""

    found: T
    read_at: float
    """When the reading began: what was committed later is not in it."""
    kept_until: float


class CachedRead(Generic[T]):
    """What `read` returns, at most `seconds` old.

    Whoever comes first after that time reads for everyone who comes meanwhile. What takes its time to read
    may be given more of it: then it is kept for four times as long as it took, up to `most_seconds`.
    """

    def __init__(self, read: Callable[[], T], seconds: float, *, most_seconds: float | None = None) -> None:
        self._read, self._seconds = read, seconds
        self._most_seconds = seconds if most_seconds is None else most_seconds
        self._lock = threading.Lock()
        self._kept: _Reading[T] | None = None
        self._forgotten_at = 0.0

    def get(self) -> T:
        """The reading.

        Raises:
            DeadlineExceeded: the database does not answer, or has not yet answered the first caller.
        """
        arrived_at = time.monotonic()
        fresh = self._fresh()
        if fresh is not None:
            return fresh.found
        if not self._lock.acquire(timeout=time_limit.seconds_for_a_turn()):
            raise DeadlineExceeded("somebody else is still reading this")
        try:
            fresh = self._fresh()
            # Read while we waited for it, it is new enough for us, however long the reading took.
            if fresh is None and self._kept is not None and self._kept.read_at >= arrived_at:
                fresh = self._kept
            if fresh is None:
                read_at = time.monotonic()
                found = time_limit.read_by_itself(self._read)
                took = time.monotonic() - read_at
                kept_seconds = min(max(self._seconds, _REST * took), self._most_seconds)
                fresh = self._kept = _Reading(found, read_at, read_at + kept_seconds)
            return fresh.found
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Have the next one read again, so that a client that has just changed something sees it."""
        self._forgotten_at = time.monotonic()

    def _fresh(self) -> _Reading[T] | None:
        kept = self._kept
        if kept is None or kept.read_at < self._forgotten_at:
            return None
        return kept if time.monotonic() < kept.kept_until else None


class BackgroundRead(Generic[T]):
    """What `read` returned last, read again in the background once it is `seconds` old.

    For what takes its time: a caller waits for it `wait_seconds` at most. `read` raises nothing. The first
    reading begins `rest_seconds` after the first caller, who has `at_first`: what a new server does first,
    everybody waits for.
    """

    def __init__(
        self,
        read: Callable[[], T],
        seconds: float,
        at_first: T,
        *,
        wait_seconds: float = 0.25,
        rest_seconds: float = 0.0,
    ) -> None:
        self._read, self._seconds, self._wait_seconds = read, seconds, wait_seconds
        self._rest_seconds = rest_seconds
        self._lock = threading.Lock()
        self._kept, self._read_at = at_first, float("-inf")
        self._is_idle = threading.Event()
        self._is_idle.set()

    def get(self) -> T:
        """The reading; an older one, or `at_first`, while a new one takes its time."""
        with self._lock:
            if self._rest_seconds:
                self._read_at = time.monotonic() + self._rest_seconds - self._seconds
                self._rest_seconds = 0.0
            is_old = time.monotonic() - self._read_at >= self._seconds
            if is_old and self._is_idle.is_set():
                self._is_idle.clear()
                try:
                    threading.Thread(target=self._renew, name="background", daemon=True).start()
                except RuntimeError:  # no more threads now: the next one who asks tries again
                    self._is_idle.set()
        if is_old:
            self._is_idle.wait(self._wait_seconds)
        return self._kept

    def _renew(self) -> None:
        try:
            self._kept = self._read()
        finally:
            self._read_at = time.monotonic()
            self._is_idle.set()
