"""Storms on an open shop: how a test starts one, finds its process, and waits for its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.shop import Shop
from tests.support.shopper import Answer, eventually

ENDS_SECONDS = 150.0
"""Within which a short storm has its verdict, on a machine that may be busy."""


def start_storm(shop: Shop, *, number: int = 1, **plan: object) -> Answer:
    """Press the button of the storm's page."""
    form = {"shoppers": 3, "seconds": 5, "kills": 2, "seed": 7, "number": number, **plan}
    return shop.shopper.submit("/stage/storm", do="start", **{name: str(each) for name, each in form.items()})


def storm_row(shop: Shop) -> Any:
    """The newest storm as its table has it; None if there is none."""
    rows = shop.tables.rows("SELECT * FROM storms ORDER BY number DESC LIMIT 1")
    return rows[0] if rows else None


def wait_for_phase(shop: Shop, *phases: str) -> Any:
    """Until the newest storm has come to one of these; its row."""
    return eventually(lambda: storm_row(shop), lambda row: row.phase in phases, timeout_seconds=ENDS_SECONDS)


def storm_process(shop: Shop) -> int:
    """The process id of the storm on this shop."""
    [pid] = eventually(lambda: storm_processes(shop), lambda pids: len(pids) == 1)
    return pid


def storm_processes(shop: Shop) -> list[int]:
    """The process ids of all storms on this shop."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        if b"store.storm.shop_storm" in words and shop.server.url.encode() in words:
            found.append(int(path.parent.name))
    return found
