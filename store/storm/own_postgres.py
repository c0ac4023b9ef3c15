"""A Postgres of the storm's own, in a folder that is thrown away: it may be stopped, hung and broken."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from sqlalchemy import URL

from store.database_errors import DatabaseRefused
from store.storm.process_trees import all_processes, children_of, send_signal

STORE, CHECKPOINTS = "widgets", "widget_checkpoints"
"""Its databases."""
_OWNER = "postgres"
_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)
"""Where systems put Postgres without its being on the PATH."""
_OPTIONS = {
    "listen_addresses": "",  # on a socket in its folder alone
    "fsync": "off",  # its processes die, and the machine does not
}
_START_SECONDS = 60.0
_END_SECONDS = 30.0


class Cluster:
    """One Postgres server, a child of this process, that takes so many `connections`.

    Raises:
        DatabaseRefused: there is no Postgres on this machine, or it cannot be started.
    """

    def __init__(self, folder: Path, connections: int = 100) -> None:
        if os.name != "posix":
            raise DatabaseRefused("A Postgres of the storm's own needs Linux or macOS: use --database.")
        self._bin = _find_binaries()
        self._folder = folder
        self._options = {**_OPTIONS, "max_connections": str(connections)}
        # Postgres does not run as root.
        self._user = _another_user() if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            shutil.chown(folder, self._user)
        made = subprocess.run(  # noqa: S603 - the Postgres of this machine
            [self._bin / "initdb", "-D", folder / "data", "-U", _OWNER, "-A", "trust", "-E", "UTF8", "-N"],
            cwd="/",
            user=self._user,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise DatabaseRefused(f"No Postgres could be made: {made.stderr.strip().splitlines()[-1]}")
        self.start()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_at_once()

    def urls(self) -> tuple[str, str]:
        """Where a shop keeps its tables, and its checkpoints, here."""
        return self._url(STORE), self._url(CHECKPOINTS)

    def _url(self, database: str) -> str:
        where = {"host": str(self._folder)}
        return URL.create("postgresql+psycopg", _OWNER, database=database, query=where).render_as_string()

    def start(self) -> None:
        """Start the server; what it kept is still there. It is up once it answers."""
        options = [word for name, value in self._options.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the Postgres of this machine
                [self._bin / "postgres", "-D", self._folder / "data", "-k", self._folder, *options],
                cwd="/",
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl+C in a terminal is for the storm, which stops it then
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise DatabaseRefused(f"The Postgres of the storm did not start: {error}") from error
                time.sleep(0.05)  # between two looks
            else:
                return

    def stop_at_once(self) -> None:
        """Stop the server without a word to its clients, as `pg_ctl stop -m immediate` does."""
        process = self._running()
        if process is not None:
            self.go_on()
            send_signal([process.pid], signal.SIGQUIT)
            process.wait()

    def kill_postmaster(self) -> None:
        """Kill its first process with SIGKILL, and wait until the others have ended because of that.

        Raises:
            TimeoutError: they have not.
        """
        process = self._running()
        if process is None:
            return
        # So that it starts no more while they are counted; they go on.
        send_signal([process.pid], signal.SIGSTOP)
        others = set(children_of(process.pid))
        process.kill()
        process.wait()
        deadline = time.monotonic() + _END_SECONDS
        while others & all_processes():
            if time.monotonic() > deadline:
                raise TimeoutError("processes of a killed Postgres have not ended")
            time.sleep(0.05)  # between two looks

    def hang(self) -> None:
        """Have all its processes stand still."""
        process = self._running()
        if process is not None:
            # The parent first, so that it has no more children while they are counted.
            send_signal([process.pid], signal.SIGSTOP)
            send_signal(children_of(process.pid), signal.SIGSTOP)

    def go_on(self) -> None:
        """Have them all go on."""
        process = self._running()
        if process is not None:
            send_signal([*children_of(process.pid), process.pid], signal.SIGCONT)

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection as its owner, on which each statement is a transaction."""
        return psycopg.connect(
            host=str(self._folder), user=_OWNER, dbname=database, autocommit=True, connect_timeout=10
        )

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of the programs that came with it, such as pg_dump."""
        subprocess.run(  # noqa: S603 - the Postgres of this machine
            [self._bin / program, "-h", self._folder, "-U", _OWNER, *arguments],
            check=True,
            capture_output=True,
        )

    def _running(self) -> subprocess.Popen[bytes] | None:
        """The server, unless it has ended: its number may be somebody else's then."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process


def _find_binaries() -> Path:
    programs = ("initdb", "postgres", "pg_dump", "pg_restore")
    on_path = shutil.which("postgres")
    places = [Path(on_path).resolve().parent] if on_path else []
    for pattern in _PLACES:
        places += sorted(Path("/").glob(pattern.removeprefix("/")), reverse=True)
    for place in places:
        if all((place / program).is_file() for program in programs):
            return place
    raise DatabaseRefused(
        f"There is no Postgres on this machine: install one, or put its {', '.join(programs)} on the PATH."
    )


def _another_user() -> str:
    import pwd  # noqa: PLC0415 - there is none on Windows

    names = {each.pw_name for each in pwd.getpwall()}
    found = next((name for name in (_OWNER, "nobody") if name in names), None)
    if found is None:
        raise DatabaseRefused("Postgres does not run as root: run the storm as another user.")
    return found
