"""How the parent starts a server: afresh, or as a fork of a process that has the imports done."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

from store.serving.lifeline import ParentsEnd
from store.settings import ROOT

_IS_POSIX = os.name == "posix"


class ServerProcess(Protocol):
    """A server that was started, and may have ended."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def has_opened(self) -> bool:
        """Whether it has ever been open, as far as it has said."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def wait(self) -> int:
        """The same, once it has ended."""

    def tell(self, line: str) -> None:
        """Tell it something, which it may miss."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""

    def kill(self) -> None:
        """Send it SIGKILL, if it still runs."""

    def terminate(self) -> None:
        """Send it SIGTERM, if it still runs."""

    def close(self) -> None:
        """Let go of it: if it still runs, it ends."""


class Launcher(Protocol):
    """Starts one server after another."""

    def start(self, words: Sequence[str], is_stopping: Callable[[], bool]) -> ServerProcess | None:
        """Start one with these words on its command line; None if we were told to stop meanwhile.

        Raises:
            OSError: there is no memory or no process to be had.
        """

    def close(self) -> None:
        """Start no more."""


@dataclass(frozen=True)
class Surroundings:
    """What every process of one parent is given."""

    environment: Mapping[str, str]
    log: IO[bytes] | None
    """Where what it prints goes; None for where ours goes."""
    inherited: tuple[int, ...]
    """The descriptors of the sockets that it inherits."""

    def start(self, command: Sequence[str], stdin: int, *more: int) -> subprocess.Popen[bytes]:
        """Start a process, with `more` file descriptors inherited."""
        return subprocess.Popen(  # noqa: S603 - our own program
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=self.log,
            stderr=self.log,
            stdin=stdin,
            pass_fds=(*self.inherited, *more),
            start_new_session=True,  # Ctrl+C in a terminal is for the parent alone, which passes it on
        )


class InTurn:
    """Starts servers for several threads, one at a time."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._lock = threading.Lock()

    def start(self, words: Sequence[str], is_stopping: Callable[[], bool]) -> ServerProcess | None:
        """Start one."""
        with self._lock:
            return None if is_stopping() else self._launcher.start(words, is_stopping)

    def close(self) -> None:
        """Start no more."""
        self._launcher.close()


class FreshLauncher:
    """Starts each server as a program of its own, as on a terminal."""

    def __init__(self, command: Sequence[str], surroundings: Surroundings) -> None:
        self._command, self._surroundings = command, surroundings

    def start(self, words: Sequence[str], is_stopping: Callable[[], bool]) -> ServerProcess | None:
        """Start one."""
        return None if is_stopping() else _Fresh([*self._command, *words], self._surroundings)

    def close(self) -> None:
        """Start no more."""


class _Fresh:
    def __init__(self, command: Sequence[str], surroundings: Surroundings) -> None:
        self._line = ParentsEnd()
        try:
            # A socket is no standard input on Windows.
            stdin = self._line.servers_end.fileno() if _IS_POSIX else subprocess.PIPE
            self._process = surroundings.start(command, stdin)
        except OSError:
            self._line.close()
            raise
        self._line.servers_end.close()
        self.pid = self._process.pid
        self.poll, self.wait = self._process.poll, self._process.wait
        self.kill, self.terminate = self._process.kill, self._process.terminate
        self.signal = self._process.send_signal

    @property
    def has_opened(self) -> bool:
        return self._line.has_opened

    def tell(self, line: str) -> None:
        self._line.tell(line)

    def close(self) -> None:
        self._line.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
