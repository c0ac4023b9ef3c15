"""Owns the books: what must hold at any moment, whatever crashed.

Imports `queries`, `shared` and `vocabulary`.

All of it is read by one statement, so every figure is of the same moment. What has ended is
counted by index; what is under way or was cancelled, where things go wrong, is looked at
order by order, and so is every refund.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from store.queries import CRASHES
from store.shared import Shared
from store.vocabulary import PRODUCT_ID

_SECONDS = 1.0
"""How old the books on a page may be: every watcher in that time is served by one reading."""
_OVERDUE_MS = 30_000
"""An order that should have moved this long ago, with a server up all the while, is stuck."""

_FIGURES = f"""
WITH
ended AS MATERIALIZED (
    SELECT status, reason, count(*) AS n, sum(price_cents) AS cents FROM orders GROUP BY status, reason
),
moved AS MATERIALIZED (
    SELECT kind, count(*) AS n, sum(units) AS units FROM stock_movements GROUP BY kind
),
money AS MATERIALIZED (
    SELECT kind, count(*) AS n, sum(amount_cents) AS cents FROM payments GROUP BY kind
),
live AS MATERIALIZED (
    SELECT
        count(*) AS under_way,
        count(*) FILTER (WHERE o.status = 'pending' AND charge.payment_id IS NOT NULL) AS pending_charged,
        count(*) FILTER (WHERE o.status = 'paid' AND charge.payment_id IS NULL) AS paid_without_charge,
        count(*) FILTER (WHERE release.cause IS NOT NULL) AS released_too_early,
        count(*) FILTER (WHERE
            (SELECT max(started_at_ms) FROM generations) < :now_ms - {_OVERDUE_MS}
            AND ((o.status = 'pending' AND o.pay_by_ms < :now_ms - {_OVERDUE_MS})
              OR (o.status = 'paid' AND o.updated_at_ms < :now_ms - :tick_ms - {_OVERDUE_MS}))
        ) AS overdue
    FROM orders o
    LEFT JOIN payments charge ON charge.kind = 'charge' AND charge.payment_id = o.payment_id
    LEFT JOIN stock_movements release ON release.kind = 'release' AND release.cause = o.payment_id
    WHERE o.status IN ('pending', 'paid')
),
cancelled AS MATERIALIZED (
    SELECT
        count(charge.payment_id) AS charged,
        count(*) FILTER (WHERE charge.payment_id IS NOT NULL AND refund.payment_id IS NULL) AS owed,
        count(*) FILTER (WHERE o.reason <> 'sold_out' AND release.cause IS NULL) AS still_held
    FROM orders o
    LEFT JOIN payments charge ON charge.kind = 'charge' AND charge.payment_id = o.payment_id
    LEFT JOIN payments refund ON refund.kind = 'refund' AND refund.payment_id = o.payment_id
    LEFT JOIN stock_movements release ON release.kind = 'release' AND release.cause = o.payment_id
    WHERE o.status = 'cancelled'
),
damage AS MATERIALIZED (
    SELECT
        count(o.payment_id) FILTER (WHERE p.payment_id IS NULL) AS units_held_for_ever,
        count(p.payment_id) FILTER (WHERE o.status <> 'dispatched') AS charged_and_never_shipped,
        count(*) FILTER (WHERE g.name IS NULL) AS greetings_never_written_down
    FROM naive_runs r
    LEFT JOIN naive_orders o ON o.payment_id = r.key
    LEFT JOIN naive_payments p ON p.payment_id = r.key
    LEFT JOIN naive_greetings g ON g.name = r.visitor
    WHERE r.generation < (SELECT max(generation) FROM generations)
),
refunded AS MATERIALIZED (
    SELECT
        count(*) FILTER (WHERE o.status <> 'cancelled') AS of_sold,
        count(*) FILTER (WHERE charge.payment_id IS NULL) AS never_charged
    FROM payments refund
    JOIN orders o ON o.payment_id = refund.payment_id
    LEFT JOIN payments charge ON charge.kind = 'charge' AND charge.payment_id = refund.payment_id
    WHERE refund.kind = 'refund'
)
SELECT
    (SELECT on_hand FROM products WHERE product_id = {PRODUCT_ID}) AS on_the_shelf,
    (SELECT units FROM moved WHERE kind = 'restock') AS stocked,
    (SELECT n FROM moved WHERE kind = 'reserve') AS reserved,
    (SELECT n FROM moved WHERE kind = 'release') AS released,
    (SELECT sum(n) FROM ended) AS orders,
    (SELECT n FROM ended WHERE status = 'pending') AS pending,
    (SELECT sum(n) FROM ended WHERE status IN ('paid', 'dispatched')) AS sold,
    (SELECT n FROM ended WHERE status = 'dispatched') AS dispatched,
    (SELECT sum(n) FROM ended WHERE status = 'cancelled') AS cancelled,
    (SELECT n FROM ended WHERE reason = 'sold_out') AS sold_out,
    (SELECT n FROM money WHERE kind = 'charge') AS charges,
    (SELECT n FROM money WHERE kind = 'refund') AS refunds,
    (SELECT cents FROM money WHERE kind = 'charge') AS charged_cents,
    (SELECT cents FROM money WHERE kind = 'refund') AS refunded_cents,
    (SELECT sum(cents) FROM ended WHERE status IN ('paid', 'dispatched')) AS sold_cents,
    (SELECT charged FROM cancelled) AS cancelled_charged,
    (SELECT owed FROM cancelled) AS owed,
    (SELECT still_held FROM cancelled) AS still_held,
    (SELECT of_sold FROM refunded) AS refunds_of_sold,
    (SELECT never_charged FROM refunded) AS refunds_never_charged,
    (SELECT under_way FROM live) AS under_way,
    (SELECT pending_charged FROM live) AS pending_charged,
    (SELECT paid_without_charge FROM live) AS paid_without_charge,
    (SELECT released_too_early FROM live) AS released_too_early,
    (SELECT overdue FROM live) AS overdue,
    (SELECT count(*) FROM orders WHERE (status = 'dispatched') <> (progress = 10)
        OR (status IN ('pending', 'cancelled') AND progress <> 0)) AS out_of_step,
    (SELECT value FROM counters WHERE counter = 'orders') AS numbers_given,
    (SELECT max(order_id) FROM orders) AS highest_number,
    (SELECT count(DISTINCT payment_id) FROM recoveries) AS recovered,
    ({CRASHES}) AS crashes,
    (SELECT count(*) FROM naive_runs) AS naive_runs,
    damage.*
FROM damage
"""  # noqa: S608 - constants of ours, no input


_DAMAGE = ("naive_runs", "units_held_for_ever", "charged_and_never_shipped", "greetings_never_written_down")


@dataclass(frozen=True)
class Line:
    """One thing that must hold: its figures, and whether it does."""

    name: str
    figures: dict[str, int]
    ok: bool


@dataclass(frozen=True)
class Ledger:
    """The books at one moment."""

    invariants: tuple[Line, ...]
    """What must hold, with the figures that show it."""
    record: tuple[Line, ...]
    """What crashes have done to the shop: one figure each."""
    damage: dict[str, int] = field(default_factory=dict)
    """What crashes have left behind in the naive lane, by name; nothing if that has never run."""

    @property
    def lines(self) -> tuple[Line, ...]:
        """All of them."""
        return self.invariants + self.record

    @property
    def balanced(self) -> bool:
        """Whether every line holds."""
        return all(line.ok for line in self.lines)


class Books:
    """The books of one shop."""

    def __init__(self, reader: sa.Engine, tick_seconds: float) -> None:
        self._reader = reader
        self._tick_ms = round(tick_seconds * 1000)
        self._ledger = Shared(self._read, _SECONDS)

    def ledger(self) -> Ledger:
        """The books, at most a second old, however many ask.

        Raises:
            TooSlow: whoever asked first is still waiting for the database.
        """
        return self._ledger.get()

    def _read(self) -> Ledger:
        with self._reader.connect() as connection:
            found: Any = connection.execute(
                sa.text(_FIGURES), {"now_ms": time.time_ns() // 1_000_000, "tick_ms": self._tick_ms}
            ).one()
        return draw_up({name: int(figure or 0) for name, figure in found._mapping.items()})  # noqa: SLF001 - its public name


def draw_up(f: dict[str, int]) -> Ledger:
    """The lines of the books, from the figures by name."""

    def line(name: str, *names: str, ok: bool, **worked_out: int) -> Line:
        return Line(name, {**{each: f[each] for each in names}, **worked_out}, ok)

    charges_of_sold = f["charges"] - f["cancelled_charged"] - f["pending_charged"]
    took_a_unit = f["orders"] - f["sold_out"]
    gave_it_back = f["cancelled"] - f["sold_out"]
    return Ledger(
        invariants=(
            line(
                "Every unit stocked is on the shelf, held or sold",
                "stocked", "on_the_shelf", held=f["pending"], sold=f["sold"],
                ok=f["stocked"] == f["on_the_shelf"] + f["pending"] + f["sold"],
            ),
            line(
                "The shelf holds what the movements add up to",
                "stocked", "reserved", "released", "on_the_shelf",
                ok=f["on_the_shelf"] == f["stocked"] - f["reserved"] + f["released"],
            ),
            line(
                "Every order took one unit, unless it was sold out",
                orders=took_a_unit, reserved=f["reserved"],
                ok=took_a_unit == f["reserved"],
            ),
            line(
                "Every cancelled order gave its unit back, and no other did",
                "released", "still_held", "released_too_early", cancelled=gave_it_back,
                ok=gave_it_back == f["released"] and not f["still_held"] and not f["released_too_early"],
            ),
            line(
                "Every order that is paid or dispatched has one charge and no refund",
                orders=f["sold"], charges=charges_of_sold, refunds=f["refunds_of_sold"],
                ok=f["sold"] == charges_of_sold and not f["refunds_of_sold"] and not f["paid_without_charge"],
            ),
            line(
                "Every cancelled order has no charge, or a charge and its refund",
                "cancelled", "owed", charges=f["cancelled_charged"], refunds=f["refunds"],
                ok=not f["owed"] and not f["refunds_never_charged"],
            ),
            line(
                "No order is charged before it is paid",
                "pending", charged=f["pending_charged"], ok=not f["pending_charged"],
            ),
            line(
                "The money kept is the price of what was sold",
                "charged_cents", "refunded_cents", "sold_cents",
                ok=f["charged_cents"] - f["refunded_cents"] == f["sold_cents"],
            ),
            line(
                "Progress is 10 exactly when dispatched, and 0 before paid",
                "dispatched", "out_of_step", ok=not f["out_of_step"],
            ),
            line(
                "No key has two orders, and no order number is missing",
                "orders", "numbers_given", "highest_number",
                ok=f["orders"] == f["numbers_given"] == f["highest_number"],
            ),
            line(
                "Every order that is under way moves",
                "under_way", "overdue", ok=not f["overdue"],
            ),
        ),
        record=(
            line("Crashes survived", "crashes", ok=True),
            line("Orders recovered", "recovered", ok=True),
            line(
                "Orders lost",
                lost=f["numbers_given"] - f["orders"], ok=f["numbers_given"] == f["orders"],
            ),
            line(
                "Orders charged twice",
                charged_twice=max(0, charges_of_sold - f["sold"]), ok=charges_of_sold <= f["sold"],
            ),
        ),
        damage={each: f[each] for each in _DAMAGE} if f["naive_runs"] else {},
    )  # fmt: skip
