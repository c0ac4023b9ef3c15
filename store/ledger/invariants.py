"""The lines of the ledger: what each one claims, when it holds, and what it says when it does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from store.ledger.accounts import Fault
from store.money import price

_DAMAGE = (
    "naive_runs",
    "units_held_for_ever",
    "charged_and_never_shipped",
    "charged_more_than_once",
    "greetings_never_written_down",
)


class State(StrEnum):
    """How a line of the ledger stands, or all of it."""

    HOLDS = "holds"
    LATE = "late"
    """Nothing is wrong; something is due, and not done yet."""
    BROKEN = "broken"


@dataclass(frozen=True)
class Line:
    """One thing that must hold: its figures, and whether it does."""

    name: str
    figures: dict[str, int]
    ok: bool
    off: str = ""
    """By how much its totals are off, if they are: "3 units"."""
    faults: tuple[Fault, ...] = ()
    """What is wrong with which orders, if something is."""
    late: str = ""
    """What is due and not done yet, or cannot be compared now, though nothing is wrong; one sentence."""

    @property
    def state(self) -> State:
        """The worst that is so of it."""
        return State.BROKEN if not self.ok else State.LATE if self.late else State.HOLDS


@dataclass(frozen=True)
class Ledger:
    """All lines, at one moment."""

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
    def state(self) -> State:
        """The worst that is so of any line."""
        return State.BROKEN if not self.balanced else State.LATE if self.catching_up else State.HOLDS

    @property
    def balanced(self) -> bool:
        """Whether every line holds."""
        return all(line.ok for line in self.lines)

    @property
    def catching_up(self) -> bool:
        """Whether something is late, and nothing is wrong."""
        return self.balanced and any(line.late for line in self.lines)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All that is wrong with single orders."""
        return tuple(fault for line in self.lines for fault in line.faults)

    @property
    def alarm(self) -> tuple[str, ...]:
        """By how much which line is off, and what is wrong with which orders; nothing if every line holds.

        Only some of it may be shown, so the first total is followed by the orders, and those by the others.
        """
        off = tuple(f"{line.name}: {line.off}" for line in self.lines if line.off)
        return off[:1] + tuple(f"{fault.subject} {fault.says}" for fault in self.faults) + off[1:]


def draw_up(f: dict[str, int], faults: list[Fault], missing: list[int], trouble: str) -> Ledger:
    """The lines of the ledger.

    Args:
        f: the figures by name.
        faults: what is wrong with single orders, for the line that each names.
        missing: the first numbers that no order has.
        trouble: why the rows cannot be compared with the workflows, one sentence; nothing if they can.
    """

    def line(
        name: str, *names: str, off: str = "", about: str = "", late: str = "", **worked_out: int
    ) -> Line:
        found = tuple(fault for fault in faults if fault.line == about)
        figures = {**{each: f[each] for each in names}, **worked_out}
        return Line(name, figures, ok=not off and not found, off=off, faults=found, late=late)

    def units(off: int) -> str:
        return f"off by {abs(off)} unit{'' if abs(off) == 1 else 's'}" if off else ""

    def count(off: int) -> str:
        return f"off by {abs(off)}" if off else ""

    def cents(off: int) -> str:
        return f"off by {price(abs(off))}" if off else ""

    def lacks(off: int) -> str:
        numbers = ", ".join(f"No. {number}" for number in missing)
        return f"off by {abs(off)}" + (f": there is no {numbers}" if numbers else "") if off else ""

    took_a_unit = f["orders"] - f["sold_out"]
    gave_it_back = f["cancelled"] - f["sold_out"]
    numbers_off = f["numbers_given"] - f["orders"] or f["highest_number"] - f["orders"]
    servers_off = f["servers_started"] - f["servers"] or f["newest_server"] - f["servers"]
    late = f"{f['late']} late, by up to {f['late_by_seconds']} s" if f["late"] else ""
    charged_twice = max(0, f["charges"] - f["refunds"] - f["sold"])
    return Ledger(
        invariants=(
            line(
                "Every unit stocked is on the shelf, held or sold",
                "stocked", "on_the_shelf", held=f["pending"], sold=f["sold"],
                off=units(f["stocked"] - f["on_the_shelf"] - f["pending"] - f["sold"]), about="stock",
            ),
            line(
                "The shelf holds what the movements add up to",
                "stocked", "reserved", "released", "on_the_shelf",
                off=units(f["stocked"] - f["reserved"] + f["released"] - f["on_the_shelf"]), about="shelf",
            ),
            line(
                "Every order took one unit, unless it was sold out",
                orders=took_a_unit, reserved=f["reserved"],
                off=count(took_a_unit - f["reserved"]), about="reserves",
            ),
            line(
                "Every cancelled order gave its unit back, and no other did",
                "released", cancelled=gave_it_back, off=count(gave_it_back - f["released"]), about="releases",
            ),
            line(
                "Every order that is paid or dispatched has one charge and no refund",
                orders=f["sold"], charges=f["charges"] - f["refunds"],
                off=count(f["sold"] - f["charges"] + f["refunds"]), about="charges",
            ),
            line(
                "Every cancelled order has no charge, or a charge and its refund",
                "cancelled", "refunds", about="refunds",
            ),
            line("No order is charged before it is paid", "pending", about="unpaid"),
            line(
                "The money kept is the price of what was sold",
                "charged_cents", "refunded_cents", "sold_cents",
                off=cents(f["charged_cents"] - f["refunded_cents"] - f["sold_cents"]),
            ),
            line("Every payment did what was first heard of it", orders=f["sold"], about="notices"),
            line(
                "Progress is 10 exactly when dispatched, and 0 before paid",
                "dispatched", "out_of_step", off=count(f["out_of_step"]), about="progress",
            ),
            line(
                "No key has two orders, and no order number is missing",
                "orders", "numbers_given", "highest_number", off=lacks(numbers_off), about="numbers",
            ),
            line(
                "Every order is as its workflow remembers it",
                "orders", "unwitnessed", about="witnesses", late=trouble,
            ),
            line("Every greeting is in both books, once", "greetings", about="greetings"),
            line("Only unpaid orders count as unpaid units", "unpaid_units_counted", about="holds"),
            line(
                "Every order that is under way moves",
                "under_way", "late", "late_by_seconds", about="moves", late=late,
            ),
            line("No server is missing from the record", "servers", off=count(servers_off)),
            line(
                "What has ended is closed, and no closing is missing",
                "closed_orders", "closings", off=count(f["closings_made"] - f["closings"]),
            ),
        ),
        record=(
            line("Crashes survived", "crashes"),
            line("Orders recovered", "recovered"),
            line("Orders lost", lost=max(_lost(faults), f["numbers_given"] - f["orders"]),
                 off=count(f["numbers_given"] - f["orders"]), about="lost"),
            line("Orders charged twice", charged_twice=charged_twice, off=count(charged_twice)),
        ),
        damage={each: f[each] for each in _DAMAGE} if f["naive_runs"] else {},
    )  # fmt: skip


def _lost(faults: list[Fault]) -> int:
    return sum(fault.line == "lost" for fault in faults)
