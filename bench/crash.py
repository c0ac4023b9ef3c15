"""From a SIGKILL to the first answer and to the next tick, also with many orders in flight."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from statistics import median

from bench import load
from bench.figures import Bench, Figure
from bench.servers import SUPERVISED, Database, Server

GROUP = "crash"
_TICK_SECONDS = 0.25
_PATIENCE_SECONDS = 60.0
_NEWEST = "SELECT pid FROM executors ORDER BY number DESC LIMIT 1"
_TICKED_AT = (
    "SELECT updated_at_ms FROM orders WHERE order_id = :number AND updated_at_ms > :at_ms AND progress > 0"
)
_MOVED_AT = "SELECT updated_at_ms FROM orders WHERE order_id = :number"
_DONE = "SELECT count(*) FROM orders WHERE order_id = :number AND progress = 10"
_ADOPTED_AT = "SELECT adopted_at_ms FROM executors WHERE pid = :pid AND adopted_at_ms IS NOT NULL"


def steps(bench: Bench) -> int:
    """How often `run` says what it does next."""
    return len(bench.databases) * 2 * (1 + bench.scale.crashes)


def run(bench: Bench) -> None:
    """Measure it on each database."""
    for kind in bench.databases:
        database = bench.place.new_database(kind)
        settings = {"STORE_DISPATCH_TICK_SECONDS": _TICK_SECONDS}
        with bench.place.serving(SUPERVISED, database, **settings) as server:
            for in_flight in (0, bench.scale.in_flight):
                bench.say(f"crash: {in_flight} orders in flight on {kind}")
                if in_flight:
                    load.run("holds", server.address, count=in_flight)
                _measure(bench, server, database, f"on {kind}, {1 + in_flight} in flight")


def _measure(bench: Bench, server: Server, database: Database, case: str) -> None:
    found: dict[str, list[float]] = {}
    for turn in range(bench.scale.crashes):
        bench.say(f"crash: {turn + 1} {case}")
        for what, ms in _crash(server, database).items():
            found.setdefault(what, []).append(ms)
    for what, times in found.items():
        bench.add(Figure(GROUP, case, f"to {what}, median", median(times), "ms"))
        bench.add(Figure(GROUP, case, f"to {what}, worst", max(times), "ms"))


def _crash(server: Server, database: Database) -> dict[str, float]:
    """Kill the server while an order is being dispatched; the ms until each thing that follows."""
    [number] = load.run("holds", server.address, count=1, is_paid=True)["numbers"]
    _until(lambda: database.value(_TICKED_AT, number=number, at_ms=0))
    pid = database.value(_NEWEST)
    # A request that was on its way when its server died is not what is asked here: each is a new one.
    killed_at, killed_at_ms = time.monotonic(), time.time_ns() // 1_000_000
    os.kill(pid, signal.SIGKILL)
    # Now, while nobody moves it: the next server may have by its first answer.
    due_at_ms = database.value(_MOVED_AT, number=number) + round(1000 * _TICK_SECONDS)
    while not server.answers():
        if time.monotonic() - killed_at > _PATIENCE_SECONDS:
            raise TimeoutError("the store did not answer any more")
    answered_ms = (time.monotonic() - killed_at) * 1000
    ticked_at_ms = _until(lambda: database.value(_TICKED_AT, number=number, at_ms=killed_at_ms))
    adopted_at_ms = _until(lambda: database.value(_ADOPTED_AT, pid=pid))
    # It goes to its end, so that the next crash finds none but its own.
    _until(lambda: database.value(_DONE, number=number))
    return {
        "the first answer": answered_ms,
        "the next tick": ticked_at_ms - killed_at_ms,
        "the next tick, since it was due": ticked_at_ms - due_at_ms,
        "every order taken up": adopted_at_ms - killed_at_ms,
    }


def _until(look: Callable[[], int]) -> int:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError("the store did not go on")
        time.sleep(0.01)  # between two looks
    return seen


def about() -> str:
    """What one must know to read these."""
    return (
        f"SIGKILL to the server under `python app.py`; a tick is {_TICK_SECONDS * 1000:g} ms. One order is "
        "being dispatched, and the others in flight wait for their payment."
    )
