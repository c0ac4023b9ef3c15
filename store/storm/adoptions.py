"""How long the work of dead servers waited until another one took it up, by the record of the servers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

from store.database import make_engines
from store.settings import Settings
from store.statement_text import text

_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.25
# Where the death was seen, from then; else from the last sign of life, so with the lease.
_OF_THE_DEAD = """
SELECT how_ended, adopted_at_ms - CASE how_ended WHEN 'lost' THEN seen_at_ms ELSE ended_at_ms END AS waited_ms
FROM executors WHERE how_ended IN ('died', 'lost') AND lease_ms IS NOT NULL
"""


@dataclass(frozen=True)
class Adoptions:
    """Those of the servers that ended in one way."""

    count: int
    usual_seconds: float
    longest_seconds: float


def wait_for_all(settings: Settings) -> tuple[dict[str, Adoptions], int]:
    """How fast the adoptions were, by how the dead had ended; and how many nobody adopts.

    One that died last of all gets some time to be adopted.
    """
    databases = make_engines(settings)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        while True:
            with databases.reader.connect() as connection:
                dead: list[Any] = list(connection.execute(text(_OF_THE_DEAD)))
            left = sum(each.waited_ms is None for each in dead)
            if not left or time.monotonic() > deadline:
                return _by_ending(dead), left
            time.sleep(_LOOK_SECONDS)
    finally:
        databases.close()


def _by_ending(dead: list[Any]) -> dict[str, Adoptions]:
    waited: dict[str, list[float]] = {}
    for each in dead:
        if each.waited_ms is not None:
            waited.setdefault(each.how_ended, []).append(each.waited_ms / 1000)
    return {
        ending: Adoptions(len(seconds), round(median(seconds), 2), round(max(seconds), 2))
        for ending, seconds in sorted(waited.items())
    }
