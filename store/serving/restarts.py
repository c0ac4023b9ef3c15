"""Keeps one server up: starts the next one whenever the last has died, until it is told to stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from store.serving.fork_client import UNSEEN
from store.serving.probe import FirstAnswer, Question
from store.serving.server_processes import Launcher, ServerProcess
from store.serving.supervised_programs import Program
from store.settings import LOST, REFUSED

_STOP_SECONDS = 2.5
"""A server that was told to stop and has not by then is killed; its orders go on at the next start."""
_REPLACE_SECONDS = 10.0  # nobody waits at a terminal for it
_KILLED = -getattr(signal, "SIGKILL", 9)
"""The exit code; on Windows, which knows no such signal, nobody has it."""
_LONGEST_PAUSE_SECONDS = 5.0
_SHORTEST_PAUSE_SECONDS = 0.1
_BROKEN_FACTOR, _KILLED_FACTOR = 2.0, 1.1
"""What each pause is longer by than the one before it, where nobody is answered in between."""
_LOOK_SECONDS = 1.0
"""Between two looks at whether the server still answers, and the longest that one look waits."""

Saying = Callable[[int], str]
"""What is said once a server of this process id answers."""


@dataclass(frozen=True)
class Parent:
    """What all keepers of one parent have in common."""

    program: Program
    launcher: Launcher
    new_token: Callable[[], str]
    """Makes what the next server is called."""
    note_death: Callable[[str], None]
    """Have the others told of a death, `<name>@<ms since 1970>`."""
    deaths: deque[str]
    """The last ones, for the next servers: one that answers may not have reached the database yet."""
    tell: Callable[[str], None]
    hang_seconds: float
    are_several: bool
    """Whether its servers share one address, so that one can leave its connections to the others."""


class Keeper:
    """Keeps one server up.

    `where` are the words that tell it where to listen, and `probe_url` an address that it alone answers.
    `on_open` is called, in a thread, once a server answers; `on_end`, once this keeper has stopped.
    """

    def __init__(
        self,
        parent: Parent,
        where: Sequence[str],
        probe_url: str,
        on_open: Callable[[Keeper], None],
        on_end: Callable[[], None],
    ) -> None:
        self._parent, self._where, self._probe_url = parent, where, probe_url
        self._on_open, self._on_end = on_open, on_end
        self._changed = threading.Event()
        """Set when the server has ended, or something is wanted."""
        self._is_stopping = self.is_replacing = False
        self._server: ServerProcess | None = None
        self._token = ""
        self.is_running = False
        """From its start until it has stopped."""
        self.exit_code = 0
        """Once it has stopped: that of a first server that refused to start, or 0."""

    def start(self, said: Saying, *, after_another: bool) -> None:
        """Begin, in a thread. `after_another` server of this parent, the first one must not refuse."""
        self.is_running = True
        threading.Thread(target=self._run, args=[said, after_another], name="keeper", daemon=True).start()

    def stop(self) -> None:
        """Have the server stop in good order, and start no more."""
        self._is_stopping = True
        self._changed.set()

    def replace(self) -> None:
        """Have the server stop in good order, and the next one start from the files as they are then."""
        self.is_replacing = True
        self._changed.set()

    def kill(self, token: str = "") -> bool:
        """Kill the server with SIGKILL, as a presenter does, if it is called so; whether there was one."""
        server = self._server
        if server is None or server.poll() is not None or token not in {"", self._token}:
            return False
        server.kill()
        return True

    def freeze(self) -> Callable[[], None] | None:
        """Have the server stand still; what has it go on, or None if there is none."""
        server = self._server
        if server is None or server.poll() is not None:
            return None
        server.signal(signal.SIGSTOP)
        return lambda: server.signal(signal.SIGCONT)

    def tell(self, line: str) -> None:
        """Tell the server something, if it runs."""
        server = self._server
        if server is not None and server.poll() is None:
            server.tell(line)

    def _run(self, said: Saying, after_another: bool) -> None:  # noqa: FBT001 - of a thread
        try:
            self.exit_code = self._keep_up(said, has_opened=after_another)
        finally:
            self.is_running = False
            self._on_end()

    def _keep_up(self, said: Saying, *, has_opened: bool) -> int:
        pause_seconds = 0.0
        while not self._is_told_to_stop_within(pause_seconds):
            try:
                server = self._start(self._parent.program.successor if has_opened else ())
            except OSError as error:  # no memory or no process to be had: that passes
                pause_seconds = next_pause(pause_seconds, is_broken=True)
                self._parent.tell(
                    f"No server could be started ({error}); the next try is in {pause_seconds:g} s."
                )
                continue
            if server is None:
                break
            first_answer = FirstAnswer(
                server, self._probe_url + self._parent.program.probe_path, partial(self._open, server, said)
            )
            code = self._wait_for_the_end_of(server)
            has_been_open = server.has_opened  # which a server that is let go of no longer tells
            was_killed = has_been_open or code == _KILLED
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
            self._parent.note_death(f"{self._token}@{time.time_ns() // 1_000_000}")
            if first_answer.came:
                said = self._announce_successor(server.pid, f"died ({_cause(code)})")
                # One that waits for its database answers before it is open.
                was_whole = has_been_open or not self._parent.program.successor
                pause_seconds = 0.0 if was_whole else next_pause(pause_seconds, is_broken=not was_killed)
            else:
                pause_seconds = next_pause(pause_seconds, is_broken=not was_killed)
                self._tell_of_young_death(server.pid, code, pause_seconds)
        return 0

    def _was_stopped(self, pid: int, code: int) -> bool:
        """Whether it was stopped in good order, by somebody else than us; which is said."""
        if code != 0 or self.is_replacing:
            return False
        self._parent.tell(f"{self._parent.program.name} {pid} was stopped, and is not started again.")
        return True

    def _tell_of_young_death(self, pid: int, code: int, pause_seconds: float) -> None:
        self._parent.tell(
            f"{self._parent.program.name} {pid} died ({_cause(code)}) before it answered anybody; "
            f"the next one starts in {pause_seconds:.1f} s."
        )

    def _announce_successor(self, pid: int, end: str) -> Saying:
        died_at = time.monotonic()
        name = self._parent.program.name
        return lambda successor: (
            f"{name} {pid} {end}; "
            f"{name.lower()} {successor} answered {time.monotonic() - died_at:.2f} s later."
        )

    def _open(self, server: ServerProcess, said: Saying, pid: int) -> None:
        self._parent.tell(said(pid))
        self._on_open(self)
        if self._parent.hang_seconds:
            self._watch_for_a_hang(server)

    def _watch_for_a_hang(self, server: ServerProcess) -> None:
        """Kill the server once it answers nothing for too long; return when it is dead.

        Failed looks are counted, and no time is measured: a parent that was suspended itself has not looked.
        """
        question = Question(self._probe_url + self._parent.program.probe_path)
        most = max(2, math.ceil(self._parent.hang_seconds / _LOOK_SECONDS))
        failed = 0
        while failed < most and server.poll() is None and not self._is_stopping:
            failed = 0 if question.is_answered_within(_LOOK_SECONDS) else failed + 1
        question.close()
        if failed == most and server.poll() is None and not self._is_stopping:
            self._parent.tell(
                f"{self._parent.program.name} {server.pid} has not answered for "
                f"{self._parent.hang_seconds:g} s and is killed."
            )
            server.kill()

    def _is_told_to_stop_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._is_stopping and (left := deadline - time.monotonic()) > 0:
            self._changed.wait(left)
            self._changed.clear()
        return self._is_stopping

    def _start(self, more: Sequence[str]) -> ServerProcess | None:
        """Start a server; None if we were told to stop meanwhile."""
        program = self._parent.program
        self.is_replacing = False
        words = [*self._where, *more]
        if program.is_told_of_deaths:
            self._token = self._parent.new_token()
            words += ["--token", self._token]
            words += [word for death in list(self._parent.deaths) for word in ("--died", death)]
        self._server = self._parent.launcher.start(words, lambda: self._is_stopping)
        return self._server

    def _wait_for_the_end_of(self, server: ServerProcess) -> int:
        """The exit code of a server, which is told to stop once we are, and killed if it does not."""

        def watch() -> None:
            server.wait()
            self._changed.set()

        threading.Thread(target=watch, name="watch", daemon=True).start()
        told, kill_at = "", math.inf
        while server.poll() is None:
            wish = "stop" if self._is_stopping else "replace" if self.is_replacing else ""
            if wish and told not in {wish, "stop"}:
                told = wish
                kill_at = min(kill_at, time.monotonic() + self._tell_to_end(server))
            if not self._changed.wait(max(0.0, kill_at - time.monotonic()) if told else None):
                server.kill()
                server.wait()
            self._changed.clear()
        code = server.wait()
        # Where files have changed, the process that it was forked from is replaced as well, and tells nobody.
        return 0 if code == UNSEEN and self.is_replacing else code

    def _tell_to_end(self, server: ServerProcess) -> float:
        """Have a server end in good order; how many seconds it has for that."""
        if self._is_stopping:
            server.terminate()
            return _STOP_SECONDS
        if self._parent.are_several:
            server.signal(signal.SIGUSR1)  # it leaves its connections to the others
        else:
            server.terminate()
        return _REPLACE_SECONDS


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
    if code == LOST:
        return "it counted as lost"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"
