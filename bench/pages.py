"""What every page and the ledger cost at 10, 10,000 and 1,000,000 orders, with DBOS's tables filled too."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from bench import fill, load
from bench.figures import Bench, Figure
from bench.polls import get
from bench.servers import STORE, Database, Server

GROUP = "pages"
_ASKS = 60
_FIRST = 10
"""Orders that are really bought; the others are copies of one of them."""


def steps(bench: Bench) -> int:
    """How often `run` says what it does next."""
    return len(bench.databases) * 2 * len(bench.scale.sizes)


def run(bench: Bench) -> None:
    """Measure it on each database."""
    for kind in bench.databases:
        database = bench.place.new_database(kind)
        key = _buy_the_first(bench, database)
        for size in bench.scale.sizes:
            bench.say(f"pages: filling {kind} to {size:,} orders")
            fill.fill(database, key, size)
            with bench.place.serving(STORE, database) as store:
                bench.say(f"pages: {size:,} orders on {kind}")
                _measure(bench, store, database, size, key)


def _buy_the_first(bench: Bench, database: Database) -> str:
    with bench.place.serving(STORE, database) as store:
        seen = load.run("holds", store.address, count=_FIRST, is_paid=True)
        deadline = time.monotonic() + 30
        while database.value("SELECT count(*) FROM orders WHERE status = 'dispatched'") < _FIRST:
            if time.monotonic() > deadline:
                raise TimeoutError("the first orders were not dispatched")
            time.sleep(0.05)  # between two looks
        time.sleep(1)  # DBOS records the end of each dispatch after its last tick
    return str(seen["keys"][0])


def _measure(bench: Bench, store: Server, database: Database, size: int, key: str) -> None:
    case, meter = f"on {database.kind}, {size:,} orders", bench.place.meter(store, database)
    idle = meter.idle(bench.scale.idle_seconds)
    paths = {
        "/": "/",
        "/recent": "/recent",
        "/orders, JSON": "/orders",
        "/orders, an old page": f"/orders?before={max(2, size // 2)}",
        "/orders/<key>": f"/orders/{key}",
        "/orders/<key>/progress": f"/orders/{key}/progress",
        "/orders/<key>/timeline": f"/orders/{key}/timeline",
        "/guestbook": "/guestbook",
        "/health": "/health",
        "/ledger": "/ledger",
        "/ledger.json": "/ledger.json",
        "/stage": "/stage",
    }
    for name, path in paths.items():
        began_at = time.monotonic()
        status = get(store, path).status
        first_ms = (time.monotonic() - began_at) * 1000
        if status != 200:
            bench.leave_out(f"{name} {case}: it answered {status}.")
            continue
        bench.add(Figure(GROUP, case, f"{name}, first answer", first_ms, "ms"))
        seen: dict[str, Any] = {}

        def ask(path: str = path, seen: dict[str, Any] = seen) -> None:
            plan = {"paths": [path], "connections": 1, "count": _ASKS, "seconds": bench.scale.seconds}
            seen.update(load.run("asks", store.address, **plan))

        used = meter.over(ask).beyond(idle)
        count = len(seen["took"])
        bench.add(Figure(GROUP, case, f"{name}, p50", median(seen["took"]) * 1000, "ms"))
        total = (used.server + used.postgres) * 1000 / count
        bench.add(Figure(GROUP, case, f"{name}, processor with Postgres", max(0.0, total), "ms per answer"))


def about() -> str:
    """What one must know to read these."""
    return (
        "Copies of one real order, in every table where it left rows. A first answer also pays for what the "
        "store then keeps for a moment; of the ledger, that is reading the books."
    )
