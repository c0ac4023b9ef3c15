"""Whole orders per second, the latency of the two clicks, and what an order costs, beside the yardstick."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench import load, watcher
from bench.figures import Bench, Figure, add_latencies, median_ratio
from bench.processor import Used
from bench.servers import PLAIN, STORE, SUPERVISED, TICK_SECONDS, Database, Server, has_processes

GROUP = "orders"
_PLAIN = "plain"
_SETTLE_SECONDS = 1.5
_LEASE_SECONDS = 3600
_WARM_SHOPPERS, _WARM_SECONDS = 4, 2.0


@dataclass(frozen=True)
class Contender:
    """One of those that are compared."""

    name: str
    server: Server
    database: Database


@dataclass
class _Cell:
    """What one contender did with so many shoppers, round by round."""

    rates: list[float] = field(default_factory=list)
    server_ms: list[float] = field(default_factory=list)
    postgres_ms: list[float] = field(default_factory=list)
    buy: list[float] = field(default_factory=list)
    confirm: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, seen: dict[str, Any], used: Used) -> None:
        """One round."""
        count = len(seen["whole"])
        self.rates.append(count / seen["elapsed"])
        self.failed += seen["failed"]
        for name in ("buy", "confirm", "whole"):
            getattr(self, name).extend(seen[name])
        if count:
            self.server_ms.append(used.server * 1000 / count)
            self.postgres_ms.append(used.postgres * 1000 / count)


def steps(bench: Bench) -> int:
    """How often `run` says what it does next."""
    contenders = sum(len(_names(bench, kind)) for kind in bench.databases)
    cells = contenders * bench.scale.rounds * len(bench.scale.shoppers)
    return cells + 2 * contenders + 2 * ("Postgres" in bench.databases)


def run(bench: Bench) -> None:
    """Measure it on each database."""
    if max(bench.scale.processes) > 1 and not has_processes():
        bench.leave_out("Two and four processes: this version of the store has no setting STORE_PROCESSES.")
    if "SQLite" in bench.databases:
        bench.leave_out("Transactions and statements on SQLite: nobody beside the store can count them.")
    for kind in bench.databases:
        with _open(bench, kind) as contenders:
            _warm_up(bench, contenders)
            _time(bench, contenders)
            if kind == "Postgres":
                _count(bench, contenders)


def _names(bench: Bench, kind: str) -> list[str]:
    several = [count for count in bench.scale.processes if count > 1]
    more = (
        [f"store, {count} processes" for count in several] if kind == "Postgres" and has_processes() else []
    )
    return [_PLAIN, "store", *more]


@contextmanager
def _open(bench: Bench, kind: str) -> Iterator[list[Contender]]:
    with ExitStack() as closing:
        contenders = []
        for name in _names(bench, kind):
            bench.say(f"orders: opening {name} on {kind}")
            database = bench.place.new_database(kind)
            server = closing.enter_context(_serving(bench, name, database))
            contenders.append(Contender(name, server, database))
        yield contenders


def _serving(bench: Bench, name: str, database: Database) -> AbstractContextManager[Server]:
    if name == _PLAIN:
        return bench.place.serving(PLAIN, database)
    # While the others have their turn it is suspended, for longer than the usual lease.
    settings = {"STORE_LEASE_SECONDS": _LEASE_SECONDS}
    if name == "store":
        return bench.place.serving(STORE, database, **settings)
    return bench.place.serving(SUPERVISED, database, STORE_PROCESSES=name.split()[1], **settings)


@contextmanager
def _alone(contender: Contender, contenders: list[Contender]) -> Iterator[None]:
    """Suspend the others: each has threads that look at its database all the time."""
    with ExitStack() as suspended:
        for each in contenders:
            if each is not contender:
                suspended.enter_context(each.server.suspended())
        yield


def _warm_up(bench: Bench, contenders: list[Contender]) -> None:
    seconds = min(_WARM_SECONDS, bench.scale.seconds)
    for each in contenders:
        bench.say(f"orders: warming up {each.name} on {each.database.kind}")
        with _alone(each, contenders):
            load.buy(each.server, shoppers=_WARM_SHOPPERS, seconds=seconds)


def _time(bench: Bench, contenders: list[Contender]) -> None:
    meters = {each.name: bench.place.meter(each.server, each.database) for each in contenders}
    idle = {}
    for each in contenders:
        with _alone(each, contenders):
            time.sleep(_SETTLE_SECONDS)  # what the warming up left to be done is not idleness
            idle[each.name] = meters[each.name].idle(bench.scale.idle_seconds)
    cells: dict[tuple[int, str], _Cell] = {}
    for turn in range(bench.scale.rounds):
        for shoppers in bench.scale.shoppers:
            for each in contenders:
                bench.say(f"orders: round {turn + 1}, {shoppers} at {each.name} on {each.database.kind}")
                cell = cells.setdefault((shoppers, each.name), _Cell())
                with _alone(each, contenders):
                    _run_cell(bench, each, shoppers, cell, (meters[each.name], idle[each.name]))
    for (shoppers, name), cell in cells.items():
        _report(
            bench,
            f"{name} on {contenders[0].database.kind}, {_people(shoppers)}",
            cell,
            cells[shoppers, _PLAIN],
        )


def _run_cell(
    bench: Bench, contender: Contender, shoppers: int, cell: _Cell, measured: tuple[Any, Used]
) -> None:
    meter, idle = measured
    seen: dict[str, Any] = {}

    def shop() -> None:
        seen.update(load.buy(contender.server, shoppers=shoppers, seconds=bench.scale.seconds))

    used = meter.over(shop)
    cell.add(seen, used.beyond(idle))


def _people(count: int) -> str:
    return "1 shopper" if count == 1 else f"{count} shoppers"


def _report(bench: Bench, case: str, cell: _Cell, plain: _Cell) -> None:
    is_plain = cell is plain
    if cell.failed:
        count = len(cell.failed)
        bench.leave_out(f"{count} orders of {case}: they failed, the first because of {cell.failed[0]}.")
    if not cell.whole:
        return
    ratio = None if is_plain else median_ratio(cell.rates, plain.rates)
    to = "" if is_plain else _PLAIN
    bench.add(Figure(GROUP, case, "whole orders", median(cell.rates), "per second", ratio, to))
    add_latencies(bench, GROUP, case, "Buy Now", cell.buy)
    add_latencies(bench, GROUP, case, "Confirm", cell.confirm)
    for what, ours, theirs in (
        ("processor of the server", cell.server_ms, plain.server_ms),
        ("processor of Postgres", cell.postgres_ms, plain.postgres_ms),
    ):
        if any(ours):
            is_comparable = not is_plain and len(ours) == len(theirs)
            ratio = median_ratio(ours, theirs) if is_comparable else None
            bench.add(Figure(GROUP, case, what, median(ours), "ms per order", ratio, _PLAIN if ratio else ""))


def cost_of_an_order(bench: Bench, contender: Contender) -> tuple[float, ...]:
    """What `Counted` has, of one order, read from the log of Postgres.

    What the database is asked for while nobody shops is subtracted.
    """
    postgres, count = bench.place.postgres, bench.scale.counted
    assert postgres is not None  # noqa: S101 - its databases are there
    with postgres.every_statement_logged():
        idle_seconds, idle = _between(bench, contender, 0)
        seconds, busy = _between(bench, contender, count)
    share = seconds / idle_seconds
    return tuple((a - b * share) / count for a, b in zip(busy, idle, strict=True))


def _count(bench: Bench, contenders: list[Contender]) -> None:
    found: dict[str, tuple[float, ...]] = {}
    for each in contenders:
        if each.name not in {_PLAIN, "store"}:
            continue
        bench.say(f"orders: counting the transactions of {each.name}")
        with _alone(each, contenders):
            found[each.name] = cost_of_an_order(bench, each)
    for name, values in found.items():
        names = (
            "transactions of workflows and clicks",
            "statements of those",
            "transactions of pages that read",
            "pings of connections",
        )
        for what, value, theirs in zip(names, values, found[_PLAIN], strict=True):
            ratio = None if name == _PLAIN or not theirs else value / theirs
            figure = Figure(GROUP, f"{name} on Postgres, 1 shopper", what, value, "per order", ratio)
            bench.add(figure if ratio is None else Figure(**{**figure.__dict__, "to": _PLAIN}))


def _between(bench: Bench, contender: Contender, count: int) -> tuple[float, tuple[int, ...]]:
    """What the database was asked for, in how many seconds, while so many orders were made, or none."""
    postgres = bench.place.postgres
    assert postgres is not None  # noqa: S101 - its databases are there
    begin = postgres.mark()
    used = bench.place.meter(contender.server, contender.database).over(
        lambda: _make(bench, contender, count)
    )
    counted = postgres.counted(contender.database.url, begin, postgres.mark())
    return used.wall, tuple(vars(counted).values())


def _make(bench: Bench, contender: Contender, count: int) -> None:
    if count:
        load.buy(contender.server, shoppers=1, count=count)
        return
    bench.place.meter(contender.server, contender.database).idle(bench.scale.idle_seconds)


def about() -> str:
    """What one must know to read these."""
    return (
        f"A tick is {TICK_SECONDS * 1000:g} ms; what is dispatched is read from the database every "
        f"{watcher.LOOK_SECONDS * 1000:g} ms, for all shoppers at once."
    )
