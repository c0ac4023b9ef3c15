"""The servers of one machine, which a storm kills. Several machines are `machines`' business."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Protocol

from store.database_errors import DatabaseRefused
from store.serving.supervised_programs import Program
from store.serving.supervisor import Supervisor
from store.settings import Settings

OPEN_SECONDS = 60.0
_LOG_BYTES = 100_000
"""Of the servers, shown where something is wrong."""

GoOn = Callable[[], None]
"""Has what stands still go on."""


class Addresses(Protocol):
    """Where shoppers send their requests."""

    def pick(self, failed: str = "") -> str:
        """The `host:port` for a request; another one than that where it has failed, if there is another."""

    def is_gone(self, host: str) -> bool:
        """Whether it may refuse connections, because its machine was killed."""


class OneAddress:
    """The same for every request; it may never refuse."""

    def __init__(self, url: str) -> None:
        self._host = url.removeprefix("http://")

    def pick(self, failed: str = "") -> str:  # noqa: ARG002 - there is no other
        """It."""
        return self._host

    def is_gone(self, host: str) -> bool:  # noqa: ARG002 - there is no other
        """Never."""
        return False


class Servers(Protocol):
    """The servers that a storm kills."""

    @property
    def addresses(self) -> Addresses:
        """Where they are asked."""

    @property
    def parent(self) -> Supervisor | None:
        """Theirs, where they have one in this process."""

    def are_kept_up(self) -> bool:
        """Whether a dead one is still followed by another."""

    def kill_server(self) -> bool:
        """Kill one with SIGKILL; whether there was one."""

    def freeze_server(self) -> GoOn | None:
        """Have one stand still; None if there is none."""

    def last_lines(self) -> tuple[str, ...]:
        """The last that they said."""


class OneMachine:
    """The servers of one parent, which runs in a thread of this process.

    Raises:
        DatabaseRefused: no server could open.
    """

    def __init__(self, settings: Settings, program: Program) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - read until the storm is over, and gone with it
        is_open = threading.Event()
        self.parent = Supervisor(settings, on_event=lambda _: is_open.set(), log=self._log, program=program)
        self._thread = threading.Thread(target=self.parent.run, args=[str], name="supervisor", daemon=True)
        self._thread.start()
        self.addresses = OneAddress(self.parent.address)
        deadline = time.monotonic() + OPEN_SECONDS
        while not is_open.wait(0.1):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.close()
                raise why_not_open(self._log)

    def close(self) -> None:
        """Stop them in good order."""
        self.parent.stop()
        self._thread.join()
        self.parent.close()

    def are_kept_up(self) -> bool:
        """Whether the parent runs."""
        return self._thread.is_alive()

    def kill_server(self) -> bool:
        """Kill one with SIGKILL."""
        return self.parent.kill_server()

    def freeze_server(self) -> GoOn | None:
        """Have one stand still."""
        return self.parent.freeze_server()

    def last_lines(self) -> tuple[str, ...]:
        """The last that they said."""
        return last_lines_of(self._log)


def why_not_open(log: IO[bytes]) -> DatabaseRefused:
    """What a server that did not open has said last."""
    *_, last = "The server did not start.", *last_lines_of(log)
    return DatabaseRefused(last.removeprefix("widget store: "))


def last_lines_of(log: IO[bytes]) -> tuple[str, ...]:
    """The end of a log."""
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - _LOG_BYTES))
    return tuple(log.read().decode(errors="replace").splitlines())
