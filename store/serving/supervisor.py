"""Owns a listening socket, and starts a server on it again whenever the last one has died.

The parent binds the socket once and hands it down to each server. While one is dead and the next not yet
up, new connections wait in the socket's backlog: none is refused, and a visitor who comes in that second
sees a page that takes a second.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO

from store.serving import requests
from store.serving.forks import UNSEEN, ForkLauncher, can_fork
from store.serving.listener import address_of, listen
from store.serving.probe import FirstAnswer, Question
from store.serving.processes import FreshLauncher, Launcher, ServerProcess, Surroundings
from store.serving.programs import SERVER, Program
from store.settings import REFUSED, Settings

_CAN_INHERIT_SOCKETS = os.name == "posix"
"""Elsewhere each server binds the address anew, and connections are refused in between."""
_STOP_SECONDS = 2.5
"""A server that was told to stop and has not by then is killed; its orders go on at the next start."""
_REPLACE_SECONDS = 10.0  # nobody waits at a terminal for it
_KILLED = -getattr(signal, "SIGKILL", 9)
"""The exit code; on Windows, which knows no such signal, nobody has it."""
_LONGEST_PAUSE_SECONDS = 5.0
_SHORTEST_PAUSE_SECONDS = 0.1
_BROKEN_FACTOR, _KILLED_FACTOR = 2.0, 1.1
"""What each pause is longer by than the one before it, where nobody is answered in between."""
_DEATHS = 20
"""So many are told of: what died before those has been written down, or never will be."""
_LOOK_SECONDS = 1.0
"""Between two looks at whether the server still answers, and the longest that one look waits."""

OnEvent = Callable[[str], None]


class Supervisor:
    """One listening socket, and one server process after another that answers on it.

    `on_event` gets one line for each death, with what the next server's first answer took. What the
    servers themselves print goes to `log`, or where ours goes.

    Raises:
        BadSetting: the address cannot be listened on.
    """

    def __init__(
        self,
        settings: Settings,
        on_event: OnEvent,
        *,
        program: Program = SERVER,
        log: IO[bytes] | None = None,
    ) -> None:
        self._on_event = on_event
        self._program = program
        self._hang_seconds = settings.hang_seconds
        self._listener = listen(settings.host, settings.port)
        self.address = address_of(settings.host, self._listener)
        # Of what they share, servers have the same descriptors as we.
        self._asked, self._for_servers = socket.socketpair()
        self._asked.settimeout(0)
        where, inherited = ["--port", str(self._listener.getsockname()[1])], list[int]()
        if _CAN_INHERIT_SOCKETS:
            where, inherited = ["--socket", str(self._listener.fileno())], [self._listener.fileno()]
        else:
            self._listener.close()
        if program.may_ask and inherited:
            inherited.append(self._for_servers.fileno())
            where += ["--requests", str(self._for_servers.fileno())]
        self._where = where
        launcher = ForkLauncher if program.can_be_forked and can_fork() else FreshLauncher
        surroundings = Surroundings(settings.environment(), log, tuple(inherited))
        self._launcher: Launcher = launcher(program.command, surroundings)
        # A byte in here wakes `run`. Signal handlers may do no more than that: any lock that
        # they want may be held by the very thread that they interrupt.
        self._awake, self._alarm = socket.socketpair()
        self._is_stopping = False
        self._is_replacing = False
        self._server: ServerProcess | None = None
        self._deaths: deque[str] = deque(maxlen=_DEATHS)
        """As the next servers are told of them: one that answers may not have reached the database yet."""
        self._started_at_ms = 0

    def run(self, opening: Callable[[int], str]) -> int:
        """Keep a server up until told to stop; the exit code.

        `opening` makes the first line, once the first server with this process id answers.
        A first server that refuses a setting or a database has said why, and its exit code is ours.
        """
        try:
            return self._keep_up(opening)
        finally:
            self._launcher.close()

    def _keep_up(self, said: Callable[[int], str]) -> int:
        has_opened = False
        pause_seconds = 0.0
        while not self._is_told_to_stop_within(pause_seconds):
            try:
                server = self._start(self._program.successor if has_opened else ())
            except OSError as error:  # no memory or no process to be had: that passes
                pause_seconds = next_pause(pause_seconds, is_broken=True)
                self._tell(f"No server could be started ({error}); the next try is in {pause_seconds:g} s.")
                continue
            if server is None:
                break
            first_answer = FirstAnswer(
                server, self.address + self._program.probe_path, partial(self._open, server, said)
            )
            code = self._wait_for_the_end_of(server)
            was_killed = server.has_opened or code == _KILLED
            server.close()
            if self._is_stopping or self._was_stopped(server.pid, code):
                break
            has_opened = has_opened or first_answer.came
            if code == 0:
                said = self._announce_successor(server.pid, "was replaced")
                pause_seconds = 0.0
                continue
            if code == REFUSED and not has_opened:
                return REFUSED
            self._deaths.append(f"{server.pid}@{self._started_at_ms}@{time.time_ns() // 1_000_000}")
            if first_answer.came:
                said = self._announce_successor(server.pid, f"died ({_cause(code)})")
                pause_seconds = 0.0
            else:
                pause_seconds = next_pause(pause_seconds, is_broken=not was_killed)
                self._tell_of_young_death(server.pid, code, pause_seconds)
        return 0

    def _was_stopped(self, pid: int, code: int) -> bool:
        """Whether it was stopped in good order, by somebody else than us; which is said."""
        if code != 0 or self._is_replacing:
            return False
        self._tell(f"{self._program.name} {pid} was stopped, and is not started again.")
        return True

    def _tell_of_young_death(self, pid: int, code: int, pause_seconds: float) -> None:
        self._tell(
            f"{self._program.name} {pid} died ({_cause(code)}) before it answered anybody; "
            f"the next one starts in {pause_seconds:.1f} s."
        )

    def kill_server(self) -> bool:
        """Kill the server with SIGKILL, as a presenter does; whether there was one."""
        server = self._server
        if server is None or server.poll() is not None:
            return False
        server.kill()
        return True

    def stop(self) -> None:
        """Have the server stop in good order, and `run` return; soon, whatever the server does."""
        self._is_stopping = True
        self._wake()

    def replace(self) -> None:
        """Have the server stop in good order, and the next one start from the files as they are then."""
        self._is_replacing = True
        self._wake()

    def stop_on_signals(self) -> None:
        """Stop on SIGTERM and Ctrl+C, and replace the server on SIGUSR2. Only in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        if hasattr(signal, "SIGUSR2"):
            signal.signal(signal.SIGUSR2, lambda *_: self.replace())

    def close(self) -> None:
        """Let the address go."""
        for end in (self._listener, self._awake, self._alarm, self._asked, self._for_servers):
            end.close()

    def _announce_successor(self, pid: int, end: str) -> Callable[[int], str]:
        died_at = time.monotonic()
        return lambda successor: (
            f"{self._program.name} {pid} {end}; "
            f"{self._program.name.lower()} {successor} answered {time.monotonic() - died_at:.2f} s later."
        )

    def _open(self, server: ServerProcess, said: Callable[[int], str], pid: int) -> None:
        self._tell(said(pid))
        if self._hang_seconds:
            self._watch_for_a_hang(server)

    def _watch_for_a_hang(self, server: ServerProcess) -> None:
        """Kill the server once it answers nothing for too long; return when it is dead.

        Failed looks are counted, and no time is measured: a parent that was suspended itself has not looked.
        """
        question = Question(self.address + self._program.probe_path)
        most = max(2, math.ceil(self._hang_seconds / _LOOK_SECONDS))
        failed = 0
        while failed < most and server.poll() is None and not self._is_stopping:
            failed = 0 if question.is_answered_within(_LOOK_SECONDS) else failed + 1
        question.close()
        if failed == most and server.poll() is None and not self._is_stopping:
            self._tell(
                f"{self._program.name} {server.pid} has not answered for {self._hang_seconds:g} s "
                "and is killed."
            )
            server.kill()

    def _tell(self, line: str) -> None:
        # A log on a full disk, or at the end of a pipe that nobody reads any more, must not
        # end the shop.
        with contextlib.suppress(OSError, ValueError):
            self._on_event(line)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # closed by now
            self._alarm.send(b"!")

    def _is_told_to_stop_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._is_stopping:
            left = deadline - time.monotonic()
            if left <= 0 or not self._sleep(left):
                break
        return self._is_stopping

    def _sleep(self, seconds: float | None) -> bool:
        """Sleep until woken, or for so long; whether woken. What we were asked for meanwhile is done."""
        woken, _, _ = select.select([self._awake, self._asked], [], [], seconds)
        said = {end: end.recv(100) for end in woken}
        asked = said.get(self._asked, b"")
        if requests.REPLACE in asked:
            self._is_replacing = True
        if requests.KILL in asked:
            self.kill_server()
        return bool(woken)

    def _start(self, more: Sequence[str]) -> ServerProcess | None:
        """Start a server; None if we were told to stop meanwhile."""
        told = self._deaths if self._program.is_told_of_deaths else ()
        deaths = [word for death in told for word in ("--died", death)]
        self._started_at_ms = time.time_ns() // 1_000_000
        self._is_replacing = False
        self._forget_requests()  # they were about the one before
        self._server = self._launcher.start([*self._where, *more, *deaths], lambda: self._is_stopping)
        return self._server

    def _forget_requests(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._asked.recv(100):
                pass

    def _wait_for_the_end_of(self, server: ServerProcess) -> int:
        """The exit code of a server, which is told to stop once we are, and killed if it does not."""

        def watch() -> None:
            server.wait()
            self._wake()

        threading.Thread(target=watch, name="watch", daemon=True).start()
        kill_at: float | None = None
        while server.poll() is None:
            if self._is_stopping or self._is_replacing:
                if kill_at is None:
                    server.terminate()
                latest = time.monotonic() + (_STOP_SECONDS if self._is_stopping else _REPLACE_SECONDS)
                kill_at = latest if kill_at is None else min(kill_at, latest)
            if not self._sleep(None if kill_at is None else max(0.0, kill_at - time.monotonic())):
                server.kill()
        return server.wait()


def next_pause(pause_seconds: float, *, is_broken: bool) -> float:
    """How long to wait after a server that died before it answered, if the wait before it was so long.

    One that could not open is broken, and so is the next one. One that could, or was killed, had bad luck: of
    those, many may follow one another while visitors wait, as where every sale in progress is a crash.
    """
    factor = _BROKEN_FACTOR if is_broken else _KILLED_FACTOR
    return min(max(_SHORTEST_PAUSE_SECONDS, factor * pause_seconds), _LONGEST_PAUSE_SECONDS)


def _cause(code: int) -> str:
    """How a process ended, in a word that its reader knows."""
    if code == UNSEEN:
        return "cause unknown"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"
