"""What many who wait cost: memory, processor, and the next purchase beside them; also while many poll."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench import load, processor
from bench.figures import Bench, Figure, percentile
from bench.servers import STORE, Database, Server

GROUP = "waiting"
_PURCHASES = 20
_POLL_SECONDS = 1.0
_SETTLE_SECONDS = 2.0


def steps(bench: Bench) -> int:
    """How often `run` says what it does next."""
    return len(bench.databases) * (2 + len(bench.scale.waiting))


def run(bench: Bench) -> None:
    """Measure it on each database, with more and more of them."""
    for kind in bench.databases:
        database, so_far = bench.place.new_database(kind), 0
        with bench.place.serving(STORE, database) as store:
            load.buy(store, shoppers=2, count=10)
            keys: list[str] = []
            bench.say(f"waiting: nobody on {kind}")
            _measure(bench, store, database, f"on {kind}, nobody waiting")
            for count in bench.scale.waiting:
                bench.say(f"waiting: {count} on {kind}")
                keys += load.run("holds", store.address, count=count - so_far)["keys"]
                so_far = count
                _measure(bench, store, database, f"on {kind}, {count:,} waiting")
            bench.say(f"waiting: {bench.scale.polling} polling on {kind}")
            _poll(bench, store, database, keys)


def _measure(bench: Bench, store: Server, database: Database, case: str) -> None:
    meter = bench.place.meter(store, database)
    meter.idle(_SETTLE_SECONDS)
    idle = meter.idle(bench.scale.idle_seconds)
    bench.add(Figure(GROUP, case, "memory of the server", processor.memory_mb(store.pid), "MB"))
    bench.add(Figure(GROUP, case, "threads of the server", processor.threads_of(store.pid), "threads"))
    bench.add(Figure(GROUP, case, "processor of the server", 100 * idle.server / idle.wall, "% of a core"))
    if database.kind == "Postgres":
        bench.add(
            Figure(GROUP, case, "processor of Postgres", 100 * idle.postgres / idle.wall, "% of a core")
        )
    _add_purchases(bench, store, case)


def _add_processor(bench: Bench, database: Database, case: str, used: processor.Used) -> None:
    parts = {"the server": used.server}
    if database.kind == "Postgres":
        parts["Postgres"] = used.postgres
    for who, seconds in parts.items():
        bench.add(Figure(GROUP, case, f"processor of {who}", 100 * seconds / used.wall, "% of a core"))


def _add_purchases(bench: Bench, store: Server, case: str) -> None:
    seen = load.buy(store, shoppers=1, count=_PURCHASES)
    for what, name in (("the next Buy Now", "buy"), ("the next Confirm", "confirm")):
        bench.add(Figure(GROUP, case, f"{what}, p50", median(seen[name]) * 1000, "ms"))
        bench.add(Figure(GROUP, case, f"{what}, worst", max(seen[name]) * 1000, "ms"))


def _poll(bench: Bench, store: Server, database: Database, keys: list[str]) -> None:
    count = bench.scale.polling
    case = f"on {database.kind}, {count:,} who poll"
    paths = [f"/pay/{key}/status" for key in (keys * (1 + count // len(keys)))[:count]]
    seconds = _SETTLE_SECONDS + 2 * bench.scale.idle_seconds + 5
    plan: dict[str, Any] = {"paths": paths, "connections": count, "every": _POLL_SECONDS, "as_pages": True}
    meter = bench.place.meter(store, database)
    pollers = load.start("asks", store.address, seconds=seconds, **plan)
    meter.idle(_SETTLE_SECONDS)
    used = meter.idle(bench.scale.idle_seconds)
    _add_purchases(bench, store, case)
    seen = load.finish(pollers)
    _add_processor(bench, database, case, used)
    bench.add(Figure(GROUP, case, "polls", len(seen["took"]) / float(seen["elapsed"]), "per second"))
    bench.add(Figure(GROUP, case, "a poll, p50", median(seen["took"]) * 1000, "ms"))
    bench.add(Figure(GROUP, case, "a poll, p99", percentile(seen["took"], 99) * 1000, "ms"))


def about() -> str:
    """What one must know to read these."""
    return (
        "A waiting shopper has bought and not paid. Processor is of a time without purchases. Open "
        "pages poll once a second, or as soon as the last answer is there."
    )
