"""A real shop in a process of its own, which tests start, kill and start again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
PYTHON = (sys.executable, "-X", "dev", "-W", "error")
"""Warnings in the shop are failures, as they are in the tests."""
_PATIENCE_SECONDS = 30.0


class Server:
    """`python app.py` on a free port of loopback, keeping its data where it is told."""

    def __init__(self, database_url: str, *, script: tuple[str, ...] = ("app.py",), **settings: object) -> None:
        self._script = script
        self._env = {
            # Nothing of the developer's own settings comes in.
            **{k: v for k, v in os.environ.items() if not k.startswith(("STORE_", "DBOS_", "FLASK_"))},
            "STORE_PORT": "0",
            "DBOS_DATABASE_URL": database_url,
            "PYTHONUNBUFFERED": "1",
            **{name: str(value) for name, value in settings.items()},
        }
        self.url = ""
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Server:
        """Start it and wait until it says where it is open."""
        process = subprocess.Popen(
            [sys.executable, *self._script],
            cwd=ROOT,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._process = process
        opened = threading.Event()
        assert process.stdout is not None
        threading.Thread(target=self._listen, args=(process.stdout, opened), daemon=True).start()
        if not opened.wait(_PATIENCE_SECONDS) or not self.url:
            raise AssertionError("the shop did not open:\n" + self.output)
        return self

    def _listen(self, stream: IO[str], opened: threading.Event) -> None:
        with stream:
            for line in stream:
                self.log.append(line)
                if found := re.search(r"(http://\S+) ", line):
                    self.url = found[1]
                    opened.set()
        opened.set()

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None
        return self._process.pid

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
        """Wait until it has ended by itself; the exit code, negative for a signal."""
        assert self._process is not None
        return self._process.wait(_PATIENCE_SECONDS)

    def restart(self, *, script: tuple[str, ...] = ("app.py",)) -> Server:
        """Start again after a death, on the same data."""
        self._script = script
        return self.start()

    def close(self) -> None:
        """Make sure that it is gone."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(_PATIENCE_SECONDS)
