"""Whether orders are dispatched, read from the database for all who wait for one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable

from bench.wire import ANSWER_SECONDS

LOOK_SECONDS = 0.02
"""Between two looks."""
WATCHER = "bench-watcher"
"""What Postgres knows it by."""
_DISPATCHED = "SELECT order_id FROM orders WHERE status = 'dispatched' AND order_id IN"
Look = Callable[[list[int]], list[int]]


class Watcher:
    """Looks which orders are dispatched, for all who wait for one."""

    def __init__(self, url: str) -> None:
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._look = _sqlite_look(url) if url.startswith("sqlite:") else _postgres_look(url)
        self._task: asyncio.Task[None] | None = None

    async def dispatched(self, number: int) -> None:
        """Wait until this order is.

        Raises:
            TimeoutError: it takes too long.
        """
        self._waiting[number] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.wait([self._waiting[number], self._task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.pop(number)
        if self._task.done():
            self._task.result()  # raises what it died of

    async def _watch(self) -> None:
        while self._waiting:
            for number in await asyncio.to_thread(self._look, list(self._waiting)):
                future = self._waiting.get(number)
                if future is not None and not future.done():
                    future.set_result(None)
            await asyncio.sleep(LOOK_SECONDS)


def _sqlite_look(url: str) -> Look:
    path = url.removeprefix("sqlite:///")
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False, timeout=30)

    def look(numbers: list[int]) -> list[int]:
        marks = ", ".join("?" * len(numbers))
        return [number for (number,) in connection.execute(f"{_DISPATCHED} ({marks})", numbers).fetchall()]

    return look


def _postgres_look(url: str) -> Look:
    import psycopg  # noqa: PLC0415 - not needed for SQLite

    connection = psycopg.connect(url, autocommit=True, application_name=WATCHER)

    def look(numbers: list[int]) -> list[int]:
        found = connection.execute(f"{_DISPATCHED} (SELECT unnest(%s::integer[]))".encode(), [numbers])
        return [number for (number,) in found.fetchall()]

    return look
