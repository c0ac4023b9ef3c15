"""Polls and the store's page against a bare `return "ok"` in the same run, and the bytes of a poll."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from statistics import median
from typing import Any

from bench import load
from bench.figures import Bench, Figure, median_ratio
from bench.processor import Meter
from bench.servers import BARE, STORE, Server
from bench.wire import Line, Reply

GROUP = "polls"
_CONNECTIONS = 8
_BARE = "bare"
_MOST = 0.9
"""Of the unchanged polls after each connection's first, so many are 304: a payment changes once a minute."""


def steps(bench: Bench) -> int:
    """How often `run` says what it does next."""
    return len(bench.databases) * (1 + bench.scale.rounds)


def run(bench: Bench) -> None:
    """Measure it on each database."""
    for kind in bench.databases:
        bench.say(f"polls: opening on {kind}")
        database = bench.place.new_database(kind)
        with bench.place.serving(STORE, database) as store, bench.place.serving(BARE) as bare:
            load.buy(store, shoppers=2, count=10)
            held = load.run("holds", store.address, count=1)["keys"][0]
            polls = {
                "a payment that waits": f"/pay/{held}/status",
                "an order": f"/orders/{held}/progress",
                "the newest orders": "/recent",
                "the shelf": f"/shelf?key={load.new_key()}",
            }
            _weigh(bench, kind, store, polls)
            _time(bench, kind, {"store": store, _BARE: bare}, polls)


def get(server: Server, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """One GET as a browser does, on a connection of its own."""

    async def ask() -> Reply:
        line = Line(*server.address)
        try:
            return await line.ask("GET", path, {**load.BROWSER, **(headers or {})})
        finally:
            line.close()

    return asyncio.run(ask())


def _weigh(bench: Bench, kind: str, store: Server, polls: dict[str, str]) -> None:
    if kind != bench.databases[0]:
        return  # they are the same
    for name, path in polls.items():
        changed = get(store, path)
        unchanged = get(store, path, {"HX-PTag": changed.headers["hx-ptag"]})
        bench.add(Figure(GROUP, name, "bytes of a poll, changed", changed.size, "bytes"))
        if unchanged.status == 304:
            bench.add(Figure(GROUP, name, "bytes of a poll, unchanged", unchanged.size, "bytes"))
        else:
            bench.leave_out(f"The bytes of an unchanged poll of {name}: it is never the same twice.")


def _time(bench: Bench, kind: str, servers: dict[str, Server], polls: dict[str, str]) -> None:
    cases: dict[str, tuple[str, bool]] = {"the store's page": ("/", False)}
    for name, path in polls.items():
        cases[f"{name}, changed"] = path, False
        cases[f"{name}, unchanged"] = path, True
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}

    def poll(case: str, server: Server, path: str, *, as_pages: bool = False) -> None:
        seen: dict[str, Any] = {}
        used = Meter(server.pid, None).over(
            lambda: seen.update(_poll(bench, server, path, as_pages=as_pages))
        )
        if as_pages and seen["statuses"].get("304", 0) < _MOST * (len(seen["took"]) - _CONNECTIONS):
            bench.leave_out(f"{case}, on {kind}: it was sent again and again, so it is not unchanged.")
            return
        rates.setdefault(case, []).append(len(seen["took"]) / float(seen["elapsed"]))
        costs.setdefault(case, []).append(used.server * 1000 / len(seen["took"]))

    for turn in range(bench.scale.rounds):
        bench.say(f"polls: round {turn + 1} on {kind}")
        poll(_BARE, servers[_BARE], "/")
        for case, (path, as_pages) in cases.items():
            poll(case, servers["store"], path, as_pages=as_pages)
    for case in rates:
        shown = 'a bare return "ok"' if case == _BARE else f"{case}, on {kind}"
        for what, found, unit in (("polls", rates, "per second"), ("processor", costs, "ms per poll")):
            ratio = None if case == _BARE else median_ratio(found[case], found[_BARE])
            to = "" if ratio is None else _BARE
            bench.add(Figure(GROUP, shown, what, median(found[case]), unit, ratio, to))


def _poll(bench: Bench, server: Server, path: str, *, as_pages: bool) -> dict[str, Any]:
    seconds = bench.scale.seconds / 2
    plan: dict[str, Any] = {"paths": [path], "as_pages": as_pages, "connections": _CONNECTIONS}
    return load.run("asks", server.address, seconds=seconds, **plan)


def about() -> str:
    """What one must know to read these."""
    return (
        f"{_CONNECTIONS} kept connections, each asking again as soon as it is answered. Processor is that of "
        "the server alone."
    )
