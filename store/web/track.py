"""The track: one order as a picture, ten beads before the dispatch.

It has a crack for every crash that met the order, and a flag where other code went on with it.

Computed in the units of the picture, so that the template only places what is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby

from store.reads.crashes import Crash
from store.reads.timeline import Deploy
from store.vocabulary import DISPATCH_TICKS

LEFT = 60
"""Where the rail begins, in the units of the picture, which is 1000 wide."""
STEP = 88
"""From one bead to the next."""
_NARROWEST, _WIDEST = 14, 64
_MS_PER_UNIT = 30
"""A crack is so much wider for each so many milliseconds of darkness."""
_MOST_LABELLED = 4
_CLOSE = 190
"""Labels nearer than this would run into each other, so the next one stands a line lower."""


@dataclass(frozen=True)
class Crack:
    """One place where the track broke: by one crash, or by several at the same tick."""

    x: float
    width: float
    crashes: tuple[Crash, ...]
    is_lower: bool
    """Whether its label stands below its neighbour's."""

    @property
    def dark_ms(self) -> int | None:
        """How long nobody was there, all crashes together; None where that is not known of one."""
        return _dark_ms(self.crashes)

    @property
    def adopter(self) -> int:
        """The number of the server that went on after the last of them."""
        return self.crashes[-1].adopter

    @property
    def edges(self) -> tuple[str, str]:
        """The jagged edges of the rail on both sides, as points of a polyline."""
        shifts = [(4, 46), (-5, 62), (5, 74), (-5, 86), (5, 98), (-4, 114)]
        left, right = self.x - self.width / 2, self.x + self.width / 2
        return _points(left, shifts), _points(right, shifts)


@dataclass(frozen=True)
class Flag:
    """One place from which other code went on."""

    x: float
    server: int
    """The number of the first server that ran it."""
    progress: int


@dataclass(frozen=True)
class Track:
    """One order, or its naive twin."""

    subject: str
    """What it is of, for screen readers."""
    progress: int
    cracks: tuple[Crack, ...] = ()
    flags: tuple[Flag, ...] = ()
    is_stopped: bool = False
    """Whether it will never go further: a naive twin after its first crash."""

    @classmethod
    def of(
        cls, subject: str, progress: int, crashes: Iterable[Crash] = (), *, is_stopped: bool = False
    ) -> Track:
        """The picture of an order that is so far, and met these crashes, oldest first."""
        return cls(subject, progress, tuple(_cracks(crashes)), is_stopped=is_stopped)

    def with_deploys(self, deploys: Iterable[Deploy]) -> Track:
        """The same with a flag where other code went on; of several in one place, for the last one."""
        flags = {each.progress: Flag(_after(each.progress), each.server, each.progress) for each in deploys}
        return replace(self, flags=tuple(flags.values()))

    @property
    def is_crowded(self) -> bool:
        """Whether so many cracks are there that labels would hide them; sentences beside it say it all."""
        return len(self.cracks) > _MOST_LABELLED

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end: dispatched."""
        return self.progress == DISPATCH_TICKS

    @property
    def beads(self) -> list[tuple[int, bool]]:
        """Where each bead is, and whether it is done."""
        return [(LEFT + STEP * tick, tick <= self.progress) for tick in range(1, DISPATCH_TICKS + 1)]

    @property
    def done_width(self) -> int:
        """How much of the rail is behind the widget."""
        return STEP * self.progress


def _cracks(crashes: Iterable[Crash]) -> Iterable[Crack]:
    previous: Crack | None = None
    for progress, group in groupby(crashes, key=lambda crash: crash.progress):
        together = tuple(group)
        dark_ms = _dark_ms(together) or 0
        x = _after(progress)
        is_close = previous is not None and x - previous.x < _CLOSE
        previous = Crack(
            x=x,
            width=min(_NARROWEST + dark_ms / _MS_PER_UNIT, _WIDEST),
            crashes=together,
            is_lower=is_close and previous is not None and not previous.is_lower,
        )
        yield previous


def _after(progress: int) -> float:
    """Half-way from that bead to the next."""
    return LEFT + STEP * (progress + 0.5)


def _dark_ms(crashes: Iterable[Crash]) -> int | None:
    """How long nobody was there over all of them; None where that is not known of one.

    A server that died while it took over is dark at the same time as the one before it: that counts once.
    """
    total, counted_to = 0, None
    for crash in crashes:
        if crash.died_at is None or crash.back_at is None:
            return None
        begin = crash.died_at if counted_to is None else max(crash.died_at, counted_to)
        total += max(0, (crash.back_at - begin) // timedelta(milliseconds=1))
        counted_to = crash.back_at if counted_to is None else max(crash.back_at, counted_to)
    return total


def _points(x: float, shifts: Iterable[tuple[int, int]]) -> str:
    return " ".join(f"{x + shift:.1f},{y}" for shift, y in shifts)
