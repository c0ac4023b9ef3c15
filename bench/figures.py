"""What was measured: figures, how they are gathered, and how long each group is to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.servers import Place


@dataclass(frozen=True)
class Scale:
    """How much is measured; `WHOLE` is what `make bench` does."""

    name: str
    rounds: int
    """Of what is interleaved; a figure is the median over them."""
    seconds: float
    """Of one run of shoppers or polls."""
    idle_seconds: float
    shoppers: tuple[int, ...]
    processes: tuple[int, ...]
    counted: int
    """Orders whose transactions and statements are counted."""
    sizes: tuple[int, ...]
    waiting: tuple[int, ...]
    polling: int
    rush: int
    """Buyers who come in one moment."""
    crashes: int
    in_flight: int


WHOLE = Scale(
    name="whole",
    rounds=5,
    seconds=8,
    idle_seconds=5,
    shoppers=(1, 8, 32),
    processes=(1, 2, 4),
    counted=30,
    sizes=(10, 10_000, 1_000_000),
    waiting=(100, 1000, 5000),
    polling=1000,
    rush=1000,
    crashes=10,
    in_flight=1000,
)
QUICK = Scale(
    name="quick",
    rounds=3,
    seconds=4,
    idle_seconds=3,
    shoppers=(1, 8),
    processes=(1, 2),
    counted=20,
    sizes=(10, 10_000),
    waiting=(100,),
    polling=100,
    rush=100,
    crashes=10,
    in_flight=100,
)
SMALLEST = Scale(
    name="smallest",
    rounds=1,
    seconds=0.3,
    idle_seconds=0.5,
    shoppers=(1,),
    processes=(1,),
    counted=3,
    sizes=(10,),
    waiting=(10,),
    polling=10,
    rush=20,
    crashes=1,
    in_flight=10,
)


@dataclass(frozen=True)
class Figure:
    """One number, with what it is a number of."""

    group: str
    case: str
    what: str
    value: float
    unit: str
    ratio: float | None = None
    """Of this to what `to` says, in the same run; the median over the rounds."""
    to: str = ""


@dataclass
class Bench:
    """One run of the benchmark."""

    scale: Scale
    place: Place
    databases: tuple[str, ...]
    say: Callable[[str], None] = lambda _: None
    """Told what is done next."""
    figures: list[Figure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """One sentence for each thing that could not be measured."""

    def add(self, figure: Figure) -> None:
        """One more."""
        self.figures.append(figure)

    def leave_out(self, sentence: str) -> None:
        """Say what could not be measured, and why."""
        self.left_out.append(sentence)


def add_latencies(bench: Bench, group: str, case: str, what: str, seconds: Sequence[float]) -> None:
    """The median, the 99th percentile and the worst of some latencies."""
    for name, value in (
        ("p50", percentile(seconds, 50)),
        ("p99", percentile(seconds, 99)),
        ("worst", max(seconds)),
    ):
        bench.add(Figure(group, case, f"{what}, {name}", value * 1000, "ms"))


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of them that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median of the ratios of the rounds; None where there is nothing to divide by."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True) if other]
    return median(ratios) if ratios else None
