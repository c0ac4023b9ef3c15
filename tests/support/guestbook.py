"""A real online guestbook in a process of its own, which tests make trouble in, kill and start again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from store.settings import ROOT
from tests.support.ports import free_port
from tests.support.shopper import Answer, Client

_PATIENCE_SECONDS = 30.0
JSON = {"Content-Type": "application/json"}


class Guestbook(Client):
    """The service on a port of loopback that it keeps from start to start."""

    def __init__(self, path: Path) -> None:
        self._port = free_port()
        super().__init__(f"http://127.0.0.1:{self._port}")
        self._path = path
        self.output = ""
        self.start()

    def __enter__(self) -> Guestbook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "guestbook_service.py", "--port", str(self._port), "--database", self._path],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._listen, args=[self._process.stdout], daemon=True)
        self._reader.start()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self.is_open():
            assert self._process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.01)  # between two looks

    def kill(self) -> None:
        """SIGKILL."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self.wait_for_death()

    def wait_for_death(self) -> int:
        """Wait until it has ended; the exit code, negative for a signal."""
        code = self._process.wait(_PATIENCE_SECONDS)
        self._reader.join(_PATIENCE_SECONDS)
        return code

    def sign(self, name: str, key: str | None = None) -> Answer:
        """Sign it."""
        headers = {**JSON, **({"Idempotency-Key": key} if key else {})}
        return self.request("POST", "/record_greeting", json.dumps({"name": name}), headers)

    def make_trouble(self, **trouble: object) -> None:
        """Tell it what to do wrong."""
        answer = self.request("POST", "/trouble", json.dumps(trouble), JSON)
        assert answer.status == 200, answer

    @property
    def names(self) -> list[str]:
        """Who has signed, oldest first."""
        return [each["name"] for each in self.get("/signatures").json["signatures"]][::-1]

    def _listen(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.output += line
