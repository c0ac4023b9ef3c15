"""Programs of the store, started without waiting for their imports: forks of a process that has them.

A start of Python with all that the store imports costs more than a second of a processor, and the tests start
hundreds of shops. So one process, the standard library's fork server, imports it all once and does nothing
else; every program is a fork of it. Where there is no fork, each is started afresh, as users start it.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import re
import runpy
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Protocol

ROOT = Path(__file__).parents[2]
_PRELOADED = (
    __name__,
    "app",
    "guestbook_service",
    "dbos",
    "flask",
    "flask_htmx",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "waitress.server",
    *(module.name for module in pkgutil.walk_packages([str(ROOT / "store")], "store.")),
)


class Started(Protocol):
    """A program that was started, as `subprocess.Popen` shows one."""

    @property
    def stdout(self) -> IO[str] | None:
        """What it prints."""

    @property
    def stderr(self) -> IO[str] | None:
        """What it complains of; None where that goes with what it prints."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal, if it still runs."""


def start(*words: str, environment: dict[str, str], stderr: int = subprocess.STDOUT) -> Started:
    """Start `python <words>` in the checkout, in a session of its own.

    Its complaints go with what it prints, or with `subprocess.PIPE` apart.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        return _Forked(words, environment, stderr)
    return start_afresh(*words, environment=environment, stderr=stderr)


def start_afresh(
    *words: str, environment: dict[str, str], stderr: int = subprocess.STDOUT, folder: Path = ROOT
) -> Started:
    """The same as users do it, with a Python of its own; in another checkout, if that is said."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def run(*words: str, environment: dict[str, str], timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run `python <words>` in the checkout to its end.

    Raises:
        subprocess.TimeoutExpired: it has not ended within so many seconds.
    """
    process = start(*words, environment=environment, stderr=subprocess.PIPE)
    read: dict[IO[str], str] = {}
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    readers = [
        threading.Thread(target=lambda each=stream: read.update({each: each.read()}), daemon=True)
        for stream in streams
    ]
    for reader in readers:
        reader.start()
    code = process.wait(timeout)
    for reader in readers:
        reader.join(timeout)
    for stream in streams:
        stream.close()
    return subprocess.CompletedProcess(words, code, *(read[stream] for stream in streams))


class _Forked:
    """A fork of the process that has the imports done."""

    stderr: IO[str] | None = None

    def __init__(self, words: tuple[str, ...], environment: dict[str, str], stderr: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_PRELOADED))
        pipes = [context.Pipe(duplex=False) for _ in range(1 + (stderr == subprocess.PIPE))]
        outputs = [writer for _, writer in pipes]
        # A daemon: a test run that ends does not wait for it.
        self._process = context.Process(target=_become, args=(words, environment, *outputs), daemon=True)
        self._process.start()
        streams = [os.fdopen(os.dup(reader.fileno()), encoding="utf-8") for reader, _ in pipes]
        for ends in pipes:
            for end in ends:
                end.close()
        self.stdout: IO[str] | None = streams[0]
        if stderr == subprocess.PIPE:
            self.stderr = streams[1]

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return code

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def _become(
    words: tuple[str, ...], environment: dict[str, str], out: Connection, err: Connection | None = None
) -> None:
    """Be the program, as `python <words>` would be it."""
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name, output in ((1, "stdout", out), (2, "stderr", err or out)):
        os.dup2(output.fileno(), descriptor)
        setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", buffering=1, closefd=False))
    for end in (out, err):
        if end is not None:
            end.close()
    if words[0] == "-m":
        sys.argv = list(words[1:])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        runpy.run_path(words[0], run_name="__main__")


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def family_of(pid: int) -> list[int]:
    """A process, and all that it and those have started, as a supervisor's fork server and its servers."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # it has ended meanwhile
            [parent] = re.findall(r"^PPid:\s+(\d+)$", status.read_text(encoding="utf-8"), re.MULTILINE)
            parents[int(status.parent.name)] = int(parent)
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found
