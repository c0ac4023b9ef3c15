"""Owns readings that many share: however many ask, one asks the database. Imports `patience`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from store.patience import PAGE_SECONDS, TooSlow

T = TypeVar("T")


class Shared(Generic[T]):
    """What `read` returns, at most `seconds` old.

    Whoever comes first after that time reads for everyone who comes meanwhile.
    """

    def __init__(self, read: Callable[[], T], seconds: float) -> None:
        self._read, self._seconds = read, seconds
        self._lock = threading.Lock()
        # What was read and when, on the monotonic clock: replaced as one.
        self._kept: tuple[T, float] | None = None
        self._forgotten_at = 0.0

    def get(self) -> T:
        """The reading.

        Raises:
            TooSlow: whoever came first is still waiting for the database.
        """
        arrived_at = time.monotonic()
        fresh = self._fresh()
        if fresh is not None:
            return fresh[0]
        if not self._lock.acquire(timeout=PAGE_SECONDS):
            raise TooSlow("somebody else is still reading this")
        try:
            fresh = self._fresh()
            # Read while we waited for it, it is new enough for us, however long the reading took.
            if fresh is None and self._kept is not None and self._kept[1] >= arrived_at:
                fresh = self._kept
            if fresh is None:
                read_at = time.monotonic()  # before the reading: what is committed later is not in it
                fresh = self._kept = self._read(), read_at
            return fresh[0]
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Have the next one read again, so that whoever has just changed something sees it."""
        self._forgotten_at = time.monotonic()

    def _fresh(self) -> tuple[T, float] | None:
        kept = self._kept
        if kept is None or kept[1] < self._forgotten_at:
            return None
        return kept if time.monotonic() - kept[1] < self._seconds else None
