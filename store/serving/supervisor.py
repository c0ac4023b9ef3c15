"""Owns a listening socket, and has servers kept up on it: one, or several that share the requests.

The parent binds the socket once and hands it down to each server. While one is dead and the next not yet
up, new connections wait in the socket's backlog: none is refused, and a visitor who comes in that second
sees a page that takes a second. Of several servers, another one answers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import secrets
import select
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO

from store.serving import requests
from store.serving.fork_client import ForkLauncher, can_fork
from store.serving.listener import address_of, listen
from store.serving.restarts import Keeper, Parent, Saying
from store.serving.server_processes import FreshLauncher, InTurn, Surroundings
from store.serving.supervised_programs import SERVER, Program
from store.settings import BadSetting, Settings

_CAN_INHERIT_SOCKETS = os.name == "posix"
"""Elsewhere each server binds the address anew, and connections are refused in between."""
_DEATHS = 20
"""So many are told of: what died before those has been written down, or never will be."""
_MESSAGE_BYTES = 4096

OnEvent = Callable[[str], None]


class Supervisor:
    """One listening socket, and the servers that answer on it, each followed by another one when it dies.

    `on_event` gets one line for each death, with what the next server's first answer took. What the
    servers themselves print goes to `log`, or where ours goes.

    Raises:
        BadSetting: the address cannot be listened on, or servers cannot share it here.
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
        if settings.processes > 1 and not _CAN_INHERIT_SOCKETS:
            raise BadSetting("STORE_PROCESSES must be 1 here: on Windows, servers cannot share a socket.")
        self._listener = listen(settings.host, settings.port)
        self.address = address_of(settings.host, self._listener)
        # Of what they share, servers have the same descriptors as we.
        self._asked, self._for_servers = socket.socketpair()
        self._half_message = b""
        self._asked.settimeout(0)
        # A byte in here wakes `run`. Signal handlers may do no more than that: any lock that
        # they want may be held by the very thread that they interrupt.
        self._awake, self._alarm = socket.socketpair()
        # Of several servers each has an address of its own: on the shared one, another might answer for it.
        several = range(settings.processes) if settings.processes > 1 else ()
        self._probes = [listen("127.0.0.1", 0) for _ in several]
        inherited = self._inherited(may_ask=program.may_ask)
        surroundings = Surroundings(settings.environment(), log, inherited)
        launcher = ForkLauncher if program.can_be_forked and can_fork() else FreshLauncher
        self._launcher = InTurn(launcher(program.command, surroundings))
        self._deaths: deque[str] = deque(maxlen=_DEATHS)
        family, numbers = secrets.token_hex(6), itertools.count(1)
        parent = Parent(
            program,
            self._launcher,
            new_token=lambda: f"{family}-{next(numbers)}",
            note_death=self._note_death,
            deaths=self._deaths,
            tell=self._tell,
            hang_seconds=settings.hang_seconds,
            are_several=bool(self._probes),
        )
        self._is_stopping = False
        self._is_asked_to_replace = False
        self._to_start: list[Keeper] = []
        self._to_replace: list[Keeper] = []
        """Whose server is replaced once that of the one before is up again."""
        probes: list[socket.socket | None] = [*self._probes] or [None]
        self._keepers = [
            Keeper(parent, self._where(program, probe), self._probe_url(probe), self._note_open, self._wake)
            for probe in probes
        ]

    def _inherited(self, *, may_ask: bool) -> tuple[int, ...]:
        """The descriptors that each server has of ours."""
        if not _CAN_INHERIT_SOCKETS:
            self._listener.close()
            return ()
        shared = [self._listener, *self._probes, *([self._for_servers] if may_ask else [])]
        return tuple(each.fileno() for each in shared)

    def _where(self, program: Program, probe: socket.socket | None) -> Sequence[str]:
        """The words that tell a server where it listens, and whom it may ask."""
        if not _CAN_INHERIT_SOCKETS:
            return ["--port", self.address.rpartition(":")[2]]
        words = ["--socket", str(self._listener.fileno())]
        if program.may_ask:
            words += ["--requests", str(self._for_servers.fileno())]
        return words if probe is None else [*words, "--probe", str(probe.fileno())]

    def _probe_url(self, probe: socket.socket | None) -> str:
        return self.address if probe is None else address_of("127.0.0.1", probe)

    def run(self, opening: Saying) -> int:
        """Keep the servers up until told to stop; the exit code.

        `opening` makes the first line, once the first server with this process id answers.
        A first server that refuses a setting or a database has said why, and its exit code is ours. The
        others are started once it answers.
        """
        first, *others = self._keepers
        self._to_start = list(others)
        try:
            first.start(opening, after_another=False)
            while any(keeper.is_running for keeper in self._keepers):
                self._look_around()
            return first.exit_code
        finally:
            self._launcher.close()

    def _look_around(self) -> None:
        """Wait until something is asked for, or a keeper has ended, and do it."""
        woken, _, _ = select.select([self._awake, self._asked], [], [])
        said = {each: each.recv(_MESSAGE_BYTES) for each in woken}
        *asked, self._half_message = (self._half_message + said.get(self._asked, b"")).split(b"\n")
        if self._is_stopping:
            self._to_start = []
            for keeper in self._keepers:
                keeper.stop()
        if requests.REPLACE in asked or self._is_asked_to_replace:
            self._is_asked_to_replace = False
            self._to_replace = list(self._keepers)
            self._replace_next()
        for message in asked:
            if message == requests.KILL_ALL:
                for keeper in self._keepers:
                    keeper.kill()
            elif message.startswith(requests.KILL):
                self.kill_server(message.removeprefix(requests.KILL).decode(errors="replace"))

    def _note_death(self, death: str) -> None:
        """Have the servers that live take up its work, and the next ones told of it in any case."""
        self._deaths.append(death)
        for keeper in self._keepers:
            keeper.tell(death)

    def _note_open(self, keeper: Keeper) -> None:
        """Start the others once the first server is up; replace the next one once the last has been."""
        others, self._to_start = self._to_start, []
        for other in others:
            other.start(
                lambda pid: f"Another server shares the requests (process {pid}).", after_another=True
            )
        if self._to_replace and self._to_replace[0] is keeper and not keeper.is_replacing:
            self._to_replace.pop(0)
            self._replace_next()

    def _replace_next(self) -> None:
        self._to_replace = [keeper for keeper in self._to_replace if keeper.is_running]
        if self._to_replace:
            self._to_replace[0].replace()

    def kill_server(self, token: str = "") -> bool:
        """Kill one server with SIGKILL, as a presenter does, or the one called so; whether there was one."""
        keepers = random.sample(self._keepers, len(self._keepers))
        return any(keeper.kill(token) for keeper in keepers)

    def freeze_server(self) -> Callable[[], None] | None:
        """Have one server stand still; what has it go on, or None if there is none."""
        return random.choice(self._keepers).freeze()  # noqa: S311 - it keeps no secret

    def stop(self) -> None:
        """Have the servers stop in good order, and `run` return; soon, whatever they do."""
        self._is_stopping = True
        self._wake()

    def replace(self) -> None:
        """Have one server after another stop in good order, and another start from the files as they are."""
        self._is_asked_to_replace = True
        self._wake()

    def stop_on_signals(self) -> None:
        """Stop on SIGTERM and Ctrl+C, and replace the servers on SIGUSR2. Only in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        if hasattr(signal, "SIGUSR2"):
            signal.signal(signal.SIGUSR2, lambda *_: self.replace())

    def close(self) -> None:
        """Let the address go."""
        for end in (self._listener, self._awake, self._alarm, self._asked, self._for_servers, *self._probes):
            end.close()

    def _tell(self, line: str) -> None:
        # A log on a full disk, or at the end of a pipe that nobody reads any more, must not
        # end the shop.
        with contextlib.suppress(OSError, ValueError):
            self._on_event(line)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # closed by now
            self._alarm.send(b"!")
