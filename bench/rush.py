"""A rush: a thousand people press Buy Now in one moment, for a hundred units; who has one pays at once."""

from __future__ import annotations

import time

from bench import load
from bench.figures import Bench, Figure, add_latencies
from bench.servers import STORE, Database

GROUP = "rush"
_BUYERS_PER_UNIT = 10
_SOLD = "SELECT count(*) FROM orders WHERE status IN ('paid', 'dispatched')"
_UNSETTLED = "SELECT count(*) FROM orders WHERE status = 'pending'"
_SETTLE_SECONDS = 30.0


def steps(bench: Bench) -> int:
    """How often `run` says what it does next."""
    return len(bench.databases)


def run(bench: Bench) -> None:
    """Measure it on each database, once: the first moment of a sale is what it is about."""
    buyers = bench.scale.rush
    units = buyers // _BUYERS_PER_UNIT
    for kind in bench.databases:
        bench.say(f"rush: {buyers} buyers on {kind}")
        database = bench.place.new_database(kind, units)
        with bench.place.serving(STORE, database) as store:
            seen = load.run("rush", store.address, shoppers=buyers)
            _wait_until_settled(database)
        sold, case = database.value(_SOLD), f"on {kind}, {buyers:,} buyers for {units} units"
        bench.add(Figure(GROUP, case, "units sold", sold, "units"))
        bench.add(Figure(GROUP, case, "until everybody was answered", seen["elapsed"], "s"))
        for what, name in (("Buy Now", "buy"), ("Confirm", "confirm")):
            add_latencies(bench, GROUP, case, what, seen[name])
        if seen["failed"]:
            bench.leave_out(f"A rush on {kind}: {len(seen['failed'])} buyers gave up: {seen['failed'][0]}")


def _wait_until_settled(database: Database) -> None:
    """Confirm answers before the payment is settled, where that takes longer than a page may."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while database.value(_UNSETTLED) and time.monotonic() < deadline:
        time.sleep(0.05)  # between two looks


def about() -> str:
    """What one must know to read these."""
    return "Buy Now is until the page that comes next: the payment page, or that everything is sold."
