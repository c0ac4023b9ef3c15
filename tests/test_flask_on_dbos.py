"""The page on Flask and DBOS, followed word for word: program saved, commands run, server killed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from store.settings import ROOT
from tests.support.ports import free_port
from tests.support.shopper import eventually

_TEXT = (ROOT / "docs" / "flask_on_dbos.md").read_text(encoding="utf-8")
[_PROGRAM] = re.findall(r"```python\n(.*?)```", _TEXT, re.DOTALL)
_COMMANDS = [shlex.split(command) for command in re.findall(r"```sh\n(.*?)\n```", _TEXT)]
_SERVERS = [command for command in _COMMANDS if "routes" not in command]
_TICK = re.compile(r"tick (\d) in process (\d+)")


class Counter:
    """An empty folder with the program in it, and the server that is started there."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, folder / "log"
        self._server: subprocess.Popen[bytes] | None = None
        (folder / "app.py").write_text(_PROGRAM, encoding="utf-8")
        self._port = free_port()

    def run(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a command of the page, on a port that is free."""
        assert command[0] == "python"
        words = [word.replace("8001", str(self._port)) for word in command[1:]]
        # Apart: a server's log goes to the one, in the middle of a line of what is printed to the other.
        with self._log.open("ab") as log, (self._folder / "errors").open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, *words],
                cwd=self._folder,
                stdout=log,
                stderr=errors,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith("FLASK_")},
            )

    def start(self, command: list[str]) -> None:
        """Start a server, and wait until it answers."""
        self._server = self.run(command)
        eventually(lambda: self.answer("GET", "/counts/nothing"), lambda said: said is not None)

    def answer(self, method: str, path: str) -> dict[str, Any] | None:
        """What it says; None while nobody is there."""
        try:
            with closing(HTTPConnection("127.0.0.1", self._port, timeout=30)) as connection:
                connection.request(method, path)
                found: dict[str, Any] = json.loads(connection.getresponse().read())
                return found
        except OSError:
            return None

    def end(self) -> None:
        """Kill whatever of it is left."""
        if self._server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()
            self._server = None

    def ticks(self) -> list[tuple[int, int]]:
        """The ticks that were counted, each with its process."""
        return [(int(n), int(pid)) for n, pid in _TICK.findall(self._log.read_text(encoding="utf-8"))]

    def recorded(self) -> int:
        """How many of them are checkpointed."""
        with closing(sqlite3.connect(self._folder / "counter.sqlite3")) as database:
            [count] = database.execute("SELECT count(*) FROM operation_outputs").fetchone()
        return int(count)


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    """One counter, ended at the end."""
    counter = Counter(tmp_path)
    yield counter
    counter.end()


def _is(wanted: int) -> Callable[[dict[str, Any] | None], bool]:
    return lambda said: said is not None and said["done"] >= wanted


@pytest.mark.parametrize("command", _SERVERS, ids=lambda command: " ".join(command[2:4]))
def test_a_count_goes_on_after_a_kill(counter: Counter, command: list[str]) -> None:
    """By each of the servers; and `flask routes`, run while it is down, takes nothing up."""
    counter.start(command)
    begun = counter.answer("POST", "/counts/first")
    assert begun is not None
    eventually(lambda: counter.answer("GET", "/counts/first"), _is(2))
    os.kill(begun["process"], signal.SIGKILL)
    counter.end()
    recorded = counter.recorded()

    [routes] = [each for each in _COMMANDS if "routes" in each]
    assert counter.run(routes).wait() == 0
    assert counter.recorded() == recorded < 5

    counter.start(command)
    eventually(lambda: counter.answer("GET", "/counts/first"), _is(5))
    ticks = counter.ticks()
    assert [tick for tick, pid in ticks if pid != begun["process"]] == list(range(recorded + 1, 6))
    assert len({pid for _, pid in ticks}) == 2, "the parent of a reloader counted, too"


def test_the_page_names_each_server() -> None:
    """So that the test before this one has something to start."""
    assert [" ".join(command[2:4]) for command in _SERVERS] == [
        "flask run",
        "flask run",
        "waitress --listen",
    ]
