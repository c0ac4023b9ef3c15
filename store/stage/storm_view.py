"""What the storm's page shows, read from the database: where each shopper is, and what it has come to."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from store.durable.step_decorators import now_ms
from store.reads.crashes import Crash
from store.stage import storm_state
from store.stage.naive import PRICE_CENTS
from store.stage.storm_picture import Death, Naive, Result
from store.stage.storm_state import Phase, Rows, Storm
from store.vocabulary import DISPATCH_TICKS, Status
from store.web.shop import queries, the_shop
from store.web.track import Track

_SHOPPING = "shopping"
_SHOPPERS = """
SELECT s.shopper, s.payment_id, o.status, o.progress,
    EXISTS (SELECT 1 FROM takeovers t JOIN executors d ON d.number = t.left_by
        WHERE t.payment_id = s.payment_id AND d.how_ended <> 'stopped') AS was_hit
FROM storm_sales s LEFT JOIN orders o ON o.payment_id = s.payment_id
WHERE s.storm = :number AND s.sale = (
    SELECT max(sale) FROM storm_sales n WHERE n.storm = s.storm AND n.shopper = s.shopper)
"""
_SALES = """
SELECT count(o.payment_id) AS orders, count(r.key) AS naive_sales,
    count(*) FILTER (WHERE o.status IN ('paid', 'dispatched')) AS sales,
    count(p.payment_id) FILTER (WHERE n.status <> 'dispatched' AND e.ended_at_ms IS NOT NULL) AS cheated
FROM storm_sales s
LEFT JOIN orders o ON o.payment_id = s.payment_id
LEFT JOIN naive_runs r ON r.key = s.payment_id AND o.payment_id IS NOT NULL
LEFT JOIN executors e ON e.number = r.executor
LEFT JOIN naive_orders n ON n.payment_id = r.key
LEFT JOIN naive_payments p ON p.payment_id = r.key
WHERE s.storm = :number
"""
_MET = """
SELECT o.order_id, o.payment_id, o.progress FROM takeovers t
JOIN executors d ON d.number = t.left_by AND d.how_ended <> 'stopped'
JOIN storm_sales s ON s.payment_id = t.payment_id AND s.storm = :number
JOIN orders o ON o.payment_id = t.payment_id
WHERE t.status = 'paid' ORDER BY t.left_by DESC, t.progress, o.order_id LIMIT 1
"""
"""Of those that the last kill met, the one that had the longest way before it."""

WIDTH, HEIGHT = 1600, 680
"""Of the field, in the units of its picture."""
_TOP, _MARGIN = 160, 14
_COLUMNS = {
    _SHOPPING: (0, 210, "shopping"),
    Status.PENDING: (225, 200, "held"),
    Status.PAID: (440, 710, "paid, on the way"),
    Status.DISPATCHED: (1165, 210, "shipped"),
    Status.CANCELLED: (1390, 210, "cancelled"),
}
"""Where each state begins, how wide it is, and what its heading is."""
_LARGEST = 24.0
"""Radius of a dot."""
_OF_ITS_PLACE = 0.42
"""So much of the width of its place is the radius of a dot."""
_STOPS = DISPATCH_TICKS + 1


@dataclass(frozen=True)
class Dot:
    """One shopper."""

    shopper: int
    x: float
    y: float
    state: str
    was_hit: bool
    """Whether a kill met the order that they have now."""


@dataclass(frozen=True)
class Column:
    """One state, and how many shoppers are in it."""

    x: float
    width: float
    words: str
    count: int


@dataclass(frozen=True)
class StormView:
    """All that the page shows of the newest storm."""

    storm: Storm | None
    next_number: int
    why_not: str
    """Why no storm can be started here; empty if one can."""
    seconds_left: int = 0
    radius: float = 0.0
    dots: tuple[Dot, ...] = ()
    columns: tuple[Column, ...] = ()
    stops: tuple[float, ...] = ()
    """Between two ticks, in the column of those that are on the way."""
    sales: int = 0
    """Orders that are paid, and so have a twin in the ordinary shop."""
    naive: Naive | None = None
    last_death: Crash | None = None
    deaths: int = 0
    lost: int = 0
    doubled: int = 0
    """Both of its own sales, as the ledger says, while there is no verdict."""
    met: Track | None = None
    """Of one order that the last kill met."""
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def is_on(self) -> bool:
        """Whether a storm is under way, or comes to rest."""
        return self.storm is not None and self.storm.is_on

    @property
    def verdict_words(self) -> str:
        """What it has come to, in a sentence, or what is wrong."""
        verdict = self.storm.verdict if self.storm else None
        if verdict is None:
            return ""
        if verdict["ok"]:
            return "The books balance, and every order is as it was shown."
        first = verdict["complaints"][:1] or ["a connection was refused, or the books do not balance"]
        return f"Something is wrong: {first[0]}."

    @property
    def words(self) -> str:
        """How far it is, in a sentence for everybody."""
        storm = self.storm
        if storm is None:
            return "No storm has blown over this shop."
        if storm.phase is Phase.BLOWING and not self.seconds_left:
            return "The last kills come."
        return {
            Phase.STARTING: "The storm is coming up.",
            Phase.BLOWING: "Shoppers buy, and the server is killed.",
            Phase.RESTING: "Nobody comes any more. What is under way goes on.",
            Phase.ENDED: f"It is over. {self.verdict_words}",
            Phase.STOPPED: "The storm was stopped. What is under way goes on.",
            Phase.LOST: "The storm has no process any more: the shop was closed, or that has died."
            " What is under way goes on.",
        }[storm.phase]


def read(why_not: str) -> StormView:
    """The newest storm, as it stands now."""
    rows = queries().rows
    storm = storm_state.newest(rows)
    if storm is None:
        return StormView(None, 1, why_not)
    dots, radius = _dots(storm, rows)
    deaths = _crashes(storm)
    sales = _sales(storm, rows)
    lost, doubled = _damage(storm, rows)
    met = rows(_MET, number=storm.number)
    return StormView(
        storm=storm,
        next_number=storm.number + 1,
        why_not=why_not,
        seconds_left=_seconds_left(storm),
        radius=radius,
        dots=dots,
        columns=_columns(dots),
        stops=_stops(),
        sales=sales.paid,
        naive=sales.naive,
        last_death=deaths[-1] if deaths else None,
        deaths=len(deaths),
        lost=len(lost - doubled),
        doubled=len(doubled),
        met=_track(met[0]) if met else None,
    )


def _damage(storm: Storm, rows: Rows) -> tuple[set[str], set[str]]:
    """Of its sales, those with which anything is wrong, and those of them that were charged wrongly."""
    faults = [fault for line in the_shop().ledger.latest().invariants for fault in line.faults]
    if not faults:
        return set(), set()
    sales = rows("SELECT payment_id FROM storm_sales WHERE storm = :number", number=storm.number)
    ours = {row.payment_id for row in sales} & {fault.key for fault in faults}
    return ours, ours & {fault.key for fault in faults if fault.line == "charges"}


def result_of(storm: Storm) -> Result:
    """What a storm that has a verdict came to."""
    rows, verdict = queries().rows, storm.verdict or {}
    began_at_ms = storm.began_at_ms or 0
    sales = _sales(storm, rows)
    return Result(
        plan=storm.plan,
        orders=sales.orders,
        lost=verdict["lost"],
        doubled=verdict["doubled"],
        is_ok=verdict["ok"],
        requests=storm_state.requests_of(rows, storm.number),
        deaths=[death_of(each, began_at_ms) for each in _crashes(storm)],
        naive=sales.naive,
        paid=sales.paid,
    )


def death_of(crash: Crash, began_at_ms: int) -> Death:
    """A crash on the clock of a storm."""
    back_at = None if crash.back_at is None else round(crash.back_at.timestamp() * 1000) - began_at_ms
    return Death(round(crash.came_at.timestamp() * 1000) - began_at_ms, back_at)


def _track(row: Any) -> Track:
    return Track.of(f"order No. {row.order_id}", row.progress, queries().crashes_of(row.payment_id))


def _seconds_left(storm: Storm) -> int:
    since_ms = now_ms() - (storm.began_at_ms or now_ms())
    return max(0, storm.seconds - since_ms // 1000)


def _crashes(storm: Storm) -> tuple[Crash, ...]:
    if storm.began_at_ms is None:
        return ()
    until_ms = now_ms() if storm.is_on else storm.heard_at_ms
    return queries().crashes_between(storm.began_at_ms, until_ms)


@dataclass(frozen=True)
class _Sales:
    """What the shoppers of a storm have bought."""

    orders: int
    paid: int
    """Of the orders."""
    naive: Naive
    """What has become of those in the ordinary shop."""


def _sales(storm: Storm, rows: Rows) -> _Sales:
    [found] = rows(_SALES, number=storm.number)
    naive = Naive(found.naive_sales, found.cheated, found.cheated * PRICE_CENTS)
    return _Sales(found.orders, found.sales, naive)


def _grid(shoppers: int) -> tuple[int, int, float]:
    """Places down and across in every column, so that dots are as large as can be; and their radius."""
    narrowest = min(width for _, width, _ in _COLUMNS.values()) - 2 * _MARGIN
    across = 1
    while math.ceil(shoppers / across) * narrowest / across > HEIGHT - _TOP - _MARGIN:
        across += 1
    down = math.ceil(shoppers / across)
    place = min(narrowest / across, (HEIGHT - _TOP - _MARGIN) / down)
    return down, across, round(min(_LARGEST, _OF_ITS_PLACE * place), 1)


def _dots(storm: Storm, rows: Rows) -> tuple[tuple[Dot, ...], float]:
    """Where each shopper is, in a place of their own in every column; and how large all are."""
    now: dict[int, Any] = {row.shopper: row for row in rows(_SHOPPERS, number=storm.number)}
    down, across, radius = _grid(storm.shoppers)
    row_height = (HEIGHT - _TOP - _MARGIN) / down
    dots = []
    for shopper in range(storm.shoppers):
        place, line = divmod(shopper, down)
        share, row = (place + 0.5) / across, now.get(shopper)
        state, progress, was_hit = _SHOPPING, 0, False
        if row is not None and row.status is not None:
            state, progress, was_hit = row.status, row.progress, bool(row.was_hit)
        left, width, _ = _COLUMNS[state]
        if state == Status.PAID:
            share = (progress + share) / _STOPS
        x = left + _MARGIN + (width - 2 * _MARGIN) * share
        y = _TOP + row_height * (line + 0.5)
        dots.append(Dot(shopper, round(x, 1), round(y, 1), state, was_hit))
    return tuple(dots), radius


def _stops() -> tuple[float, ...]:
    left, width, _ = _COLUMNS[Status.PAID]
    return tuple(round(left + width * stop / _STOPS, 1) for stop in range(1, _STOPS))


def _columns(dots: tuple[Dot, ...]) -> tuple[Column, ...]:
    counts: Counter[Any] = Counter(dot.state for dot in dots)
    return tuple(Column(x, width, words, counts[state]) for state, (x, width, words) in _COLUMNS.items())
