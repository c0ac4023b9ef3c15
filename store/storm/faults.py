"""The faults of a storm: their kinds, their order, and that each is undone.

How a fault is made is the business of `sqlite_faults`, `postgres_faults` and `shop_faults`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum

from store.storm.notes import Notes

_USUAL_SECONDS = 6.0
"""From one fault to the next, in a storm that is long enough for all kinds."""
_AGAIN_SECONDS = 0.1


class Kind(StrEnum):
    """What may happen to a shop beside the death of its server."""

    FULL_DISK = "full disk"
    FULL_STORE = "full disk of the store"
    FULL_CHECKPOINTS = "full disk of the checkpoints"
    READ_ONLY = "everything read-only"
    READ_ONLY_STORE = "store read-only"
    READ_ONLY_CHECKPOINTS = "checkpoints read-only"
    CANCELLED = "statements cancelled"
    LOCKED_STORE = "store locked"
    LOCKED_CHECKPOINTS = "checkpoints locked"
    HUNG = "Postgres hung"
    RESTARTED = "Postgres restarted"
    GUESTBOOK_DIES = "guestbook dies"
    SERVER_DIES_IN_GREETING = "server dies in a greeting"
    OLDER_STORE = "older copy of the store"
    OLDER_CHECKPOINTS = "older copy of the checkpoints"


class NotMade(Exception):
    """A fault needs to see something of the shop first, and did not; one sentence."""


Way = Callable[[], AbstractContextManager[None]]
"""Makes a fault on entering, and undoes it on leaving."""


@dataclass(frozen=True)
class Fault:
    """One of them: how long after the one before it, and how long it lasts at the least."""

    kind: Kind
    pause_seconds: float
    seconds: float


@dataclass(frozen=True)
class Now:
    """The fault that is on at the moment, or the next one."""

    kind: str = ""
    is_on: bool = False
    until: float = 0.0
    """When that changes, on the monotonic clock, if nothing takes longer."""

    def __str__(self) -> str:
        """For the terminal."""
        left = max(0.0, self.until - time.monotonic())
        if not self.kind:
            return ""
        return f"{self.kind}, {left:.0f} s left" if self.is_on else f"in {left:.0f} s: {self.kind}"


def schedule(seed: int, seconds: float, kinds: Sequence[Kind]) -> list[Fault]:
    """The faults of a storm of that length: every kind once, then every kind again, each time shuffled."""
    chance = random.Random(f"faults {seed}")  # noqa: S311 - it keeps no secret
    count = max(len(kinds), round(seconds / _USUAL_SECONDS))
    order: list[Kind] = []
    while len(order) < count:
        order += chance.sample(kinds, len(kinds))
    slot = seconds / count
    pauses = [slot * chance.uniform(0.2, 0.5) for _ in range(count)]
    return [Fault(kind, pause, slot - pause) for kind, pause in zip(order, pauses, strict=False)]


class Faults:
    """All faults of one storm, one after another, in a thread of their own."""

    def __init__(self, faults: Sequence[Fault], ways: Mapping[Kind, Way], notes: Notes) -> None:
        self._faults, self._ways, self._notes = faults, ways, notes
        self.tried: Counter[Kind] = Counter()
        self.not_made: Counter[Kind] = Counter()
        """How often one was given up before it began."""
        self.now = Now()
        self.ended_at = time.monotonic()
        """When the last one was undone, so far."""
        self._thread = threading.Thread(target=self._make_all, name="faults", daemon=True)
        self._must_end = threading.Event()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def are_over(self) -> bool:
        """Whether the last one has been undone."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Undo what is on, and make no other."""
        self._must_end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _make_all(self) -> None:
        for fault in self._faults:
            self._wait(fault.kind, fault.pause_seconds, is_on=False)
            if self._must_end.is_set():
                break
            try:
                with self._ways[fault.kind]():
                    self._wait(fault.kind, fault.seconds, is_on=True)
                self.tried[fault.kind] += 1
            except NotMade:
                self.not_made[fault.kind] += 1
            except Exception as error:  # noqa: BLE001 - a storm must not pass because its faults failed
                self._notes.complain(f"the fault could not be made or undone: {fault.kind}: {error!r}")
            self.ended_at = time.monotonic()
        self.now = Now()

    def _wait(self, kind: Kind, seconds: float, *, is_on: bool) -> None:
        self.now = Now(kind, is_on, time.monotonic() + seconds)
        self._must_end.wait(seconds)


class Again:
    """Something that is done again and again while a fault lasts, in a thread of its own."""

    def __init__(self, act: Callable[[], object], seconds: float = _AGAIN_SECONDS) -> None:
        self._act, self._seconds = act, seconds
        self._is_over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._go_on, name="fault", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _go_on(self) -> None:
        try:
            while not self._is_over.is_set():
                self._act()
                self._is_over.wait(self._seconds)
        except Exception as error:  # noqa: BLE001 - raised where the fault ends
            self._error = error
