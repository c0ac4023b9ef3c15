"""The track: one order as a picture, ten beads before the dispatch, with a crack for every crash that met it.

Computed in the units of the picture, so that the template only places what is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from store.reads.crashes import Crash
from store.vocabulary import DISPATCH_TICKS

LEFT = 60
"""Where the rail begins, in the units of the picture, which is 1000 wide."""
STEP = 88
"""From one bead to the next."""
_NARROWEST, _WIDEST = 14, 64
_MS_PER_UNIT = 30
"""A crack is so much wider for each so many milliseconds of darkness."""
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
        known = [crash.dark_ms for crash in self.crashes]
        return sum(ms for ms in known if ms is not None) if None not in known else None

    @property
    def successor(self) -> int:
        """The number of the server that went on after the last of them."""
        return self.crashes[-1].successor

    @property
    def edges(self) -> tuple[str, str]:
        """The jagged edges of the rail on both sides, as points of a polyline."""
        shifts = [(4, 46), (-5, 62), (5, 74), (-5, 86), (5, 98), (-4, 114)]
        left, right = self.x - self.width / 2, self.x + self.width / 2
        return _points(left, shifts), _points(right, shifts)


@dataclass(frozen=True)
class Track:
    """One order, or its naive twin."""

    subject: str
    """What it is of, for whoever hears it."""
    progress: int
    is_whole: bool
    """Whether it came to its end: dispatched."""
    cracks: tuple[Crack, ...] = ()
    is_stopped: bool = False
    """Whether it will never go further: a naive twin after its first crash."""

    @classmethod
    def of(cls, subject: str, progress: int, crashes: Iterable[Crash] = (), **how: bool) -> Track:
        """The picture of an order that is so far, and met these crashes, oldest first."""
        return cls(subject, progress, progress == DISPATCH_TICKS, tuple(_cracks(crashes)), **how)

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
        dark_ms = sum(crash.dark_ms or 0 for crash in together)
        x = LEFT + STEP * (progress + 0.5)
        is_close = previous is not None and x - previous.x < _CLOSE
        previous = Crack(
            x=x,
            width=min(_NARROWEST + dark_ms / _MS_PER_UNIT, _WIDEST),
            crashes=together,
            is_lower=is_close and previous is not None and not previous.is_lower,
        )
        yield previous


def _points(x: float, shifts: Iterable[tuple[int, int]]) -> str:
    return " ".join(f"{x + shift:.1f},{y}" for shift, y in shifts)
