"""A real shop in a process of its own, which tests start, kill and start again."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO

from tests.support.shopper import Client
from tests.support.started import ROOT, Started, start, start_afresh

SERVER = ("app.py", "server")
SUPERVISED = ("app.py",)
MORTAL = ("-m", "tests.crash.mortal")
"""And at which point it dies."""
_PATIENCE_SECONDS = 30.0


class Server:
    """A server on a free port of loopback, keeping its data where it is told.

    Without the parent that would start it again, unless the script is `SUPERVISED`: the tests
    that kill it want to look at what it left. With `afresh` it is started as users do, and not forked; so it
    is from the checkout in another `folder`.
    """

    def __init__(
        self,
        database_url: str,
        settings: Mapping[str, object] = MappingProxyType({}),
        *,
        script: tuple[str, ...] = SERVER,
        afresh: bool = False,
        folder: Path = ROOT,
    ) -> None:
        self.database_url = database_url
        self.script = script
        is_afresh = afresh or script == SUPERVISED or folder != ROOT
        self._start = partial(start_afresh, folder=folder) if is_afresh else start
        self._env = {
            # Nothing of the developer's own settings comes in.
            **{k: v for k, v in os.environ.items() if not k.startswith(("STORE_", "DBOS_", "FLASK_"))},
            "STORE_PORT": "0",
            # All the shoppers of the tests have one address.
            "STORE_UNPAID_PER_CLIENT": "0",
            "STORE_GREETINGS_PER_CLIENT": "0",
            # Nobody's: a shop with a parent would otherwise run one of its own.
            "STORE_GUESTBOOK_URL": "http://127.0.0.1:9",
            "DBOS_DATABASE_URL": database_url,
            "PYTHONUNBUFFERED": "1",
            # `dbos start` runs `python app.py`, as in an activated virtual environment.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **{name: str(value) for name, value in settings.items()},
        }
        self.url = ""
        self.log: list[str] = []
        self._process: Started | None = None
        self._starts, self._family = 0, secrets.token_hex(6)
        self._died: list[str] = []

    def start(self, *, url: str = "", expect_to_open: bool = True) -> Server:
        """Start it and wait until it is open, at `url` or where it says that it is."""
        self.url = url
        process = self._start(*self.script, *self._told(), environment=self._env)
        self._process = process
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._listen, args=(process.stdout,), daemon=True)
        self._reader.start()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while expect_to_open and not (self.url and Client(self.url).is_open()):
            if process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise AssertionError("the shop did not open:\n" + self.output)
            time.sleep(0.01)  # between two looks
        return self

    def _told(self) -> list[str]:
        """What a parent would tell it: its name, and which of those before it were seen to die, and when."""
        if self.script != SERVER and self.script[:2] != MORTAL:
            return []
        self._starts += 1
        deaths = [word for death in self._died for word in ("--died", death)]
        return ["--token", f"{self._family}-{self._starts}", *deaths]

    def _listen(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.log.append(line)
                if not self.url and (found := re.search(r"open at (http://\S+) ", line)):
                    self.url = found[1]

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone."""
        assert self._process is not None
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        """All that it has printed, over every start."""
        return "".join(self.log)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def wait_for_death(self) -> int:
        """Wait until it has ended; the exit code, negative for a signal."""
        assert self._process is not None
        code = self._process.wait(_PATIENCE_SECONDS)
        self._died.append(f"{self._family}-{self._starts}@{time.time_ns() // 1_000_000}")
        self._reader.join(_PATIENCE_SECONDS)
        return code

    def signal_group(self, number: signal.Signals) -> None:
        """Signal it and its children, as a terminal does on Ctrl+C."""
        os.killpg(self.pid, number)

    def restart(self, *, script: tuple[str, ...] = SERVER, expect_to_open: bool = True) -> Server:
        """Start again after a death, on the same data."""
        self.script = script
        return self.start(expect_to_open=expect_to_open)

    def close(self) -> None:
        """Make sure that it is gone, and its children with it."""
        if self._process is not None:
            if self._process.poll() is None:
                self.stop()  # `dbos start` passes it on to its child, which is in no group of ours
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait_for_death()
