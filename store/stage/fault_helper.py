"""Makes one of the presenter's faults and ends it: a process of its own, which outlives the server.

It is told by JSON on its standard input, because an address may hold a password. Whatever happens to it,
what it has done ends. A lock goes with its connection. A server that it has stopped goes on as it ends; if it
is killed by SIGKILL itself, nobody answers the looks of the server's parent, which kills that server and
starts the next one.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from contextlib import closing, suppress
from typing import Any

_LOCK_SECONDS = 3.0
"""For those that are at work to let go."""


def main() -> None:
    """Make the fault, and end it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    told: dict[str, Any] = json.load(sys.stdin)
    _WAYS[told["kind"]](told)


def freeze(told: dict[str, Any]) -> None:
    """Stop the server that asked, and let it go on."""
    time.sleep(told["lead_seconds"])
    if os.getppid() != told["pid"]:
        return  # it has died meanwhile, and its number may be somebody else's
    try:
        os.kill(told["pid"], signal.SIGSTOP)
        time.sleep(told["seconds"])
    finally:
        with suppress(ProcessLookupError):
            os.kill(told["pid"], signal.SIGCONT)


def lock_sqlite(told: dict[str, Any]) -> None:
    """Be the one who writes."""
    with closing(sqlite3.connect(told["database"], timeout=_LOCK_SECONDS, isolation_level=None)) as somebody:
        somebody.execute("BEGIN EXCLUSIVE")
        time.sleep(told["seconds"])


def lock_postgres(told: dict[str, Any]) -> None:
    """Have the table that everything reads and writes to oneself."""
    import psycopg  # noqa: PLC0415 - a server that is to be frozen need not wait for it

    with psycopg.connect(told["database"], connect_timeout=2, options="-c lock_timeout=3000") as somebody:
        somebody.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        time.sleep(told["seconds"])


_WAYS = {"freeze": freeze, "lock_sqlite": lock_sqlite, "lock_postgres": lock_postgres}

if __name__ == "__main__":
    main()
