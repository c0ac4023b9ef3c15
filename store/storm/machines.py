"""Several machines under one storm: process trees with names and ports of their own, on one Postgres.

A machine is killed with its parent and all its servers at once: nobody there can tell of a death. A new one
comes after a while. Shoppers are spread over those that are there, as by a load balancer.
"""

from __future__ import annotations

import itertools
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from store.database_errors import DatabaseRefused
from store.serving.fork_client import can_fork
from store.serving.supervisor import Supervisor
from store.settings import ROOT, Settings
from store.storm.process_trees import children_of, grandchildren_of, send_signal, stop_tree, tree_of
from store.storm.servers import OPEN_SECONDS, GoOn, last_lines_of, why_not_open

_OPENED = re.compile(r"open at http://(\S+) ")
_AWAY_SECONDS = (1.0, 4.0)
"""From the death of a machine until a new one starts."""
_LOOK_SECONDS = 0.05
_AGAIN_SECONDS = 1.0
_STOP_SECONDS = 10.0
_NO_GUESTBOOK = "http://127.0.0.1:9"
"""Nobody greets, and a machine would start one of its own."""


class Machine:
    """One process tree: a parent, and all that it has started."""

    def __init__(self, name: str, settings: Settings, folder: Path) -> None:
        self._log = folder / f"{name}.log"
        settings = replace(settings, machine=name, guestbook_url=_NO_GUESTBOOK)
        with self._log.open("wb") as log:
            self._parent = subprocess.Popen(
                [sys.executable, "app.py"],
                cwd=ROOT,
                env=settings.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl+C in a terminal is for the storm, which stops it then
            )
        self._host = ""
        self.is_killed = self.is_frozen = False

    @property
    def host(self) -> str:
        """Where it can be asked; nothing before it is open."""
        if not self._host and (said := _OPENED.search(self._log.read_text(errors="replace"))):
            self._host = said[1]
        return self._host

    @property
    def has_ended(self) -> bool:
        """Whether its parent has."""
        return self._parent.poll() is not None

    def servers(self) -> list[int]:
        """The process ids of its servers: forks of a child of the parent, where they can be forked."""
        if self.has_ended:
            return []
        return (grandchildren_of if can_fork() else children_of)(self._parent.pid)

    def kill(self) -> None:
        """Kill all of it at once."""
        self.is_killed = True
        if not self.has_ended:
            send_signal(stop_tree(self._parent.pid), signal.SIGKILL)
        self._parent.wait()

    def freeze(self) -> GoOn:
        """Have all of it stand still."""
        self.is_frozen = True
        stopped = stop_tree(self._parent.pid)

        def go_on() -> None:
            # The parent last: a child that has died meanwhile is there, unreaped, until it moves.
            send_signal(reversed(stopped), signal.SIGCONT)
            self.is_frozen = False

        return go_on

    def stop(self) -> None:
        """Stop it in good order, or else kill it."""
        family = tree_of(self._parent.pid) if not self.has_ended else []
        send_signal(family, signal.SIGCONT)
        if family:
            self._parent.terminate()
        try:
            self._parent.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def why_not_open(self) -> DatabaseRefused:
        """What it has said last."""
        with self._log.open("rb") as log:
            return why_not_open(log)

    def last_lines(self) -> tuple[str, ...]:
        """The last that it and its servers said."""
        with self._log.open("rb") as log:
            return last_lines_of(log)


class Machines:
    """So many machines; whichever is killed is followed by a new one, with another name and port.

    Raises:
        DatabaseRefused: one of them could not open at first.
    """

    parent: Supervisor | None = None

    def __init__(self, count: int, settings: Settings) -> None:
        self._settings, self._numbers = settings, itertools.count(1)
        self._turns = itertools.count()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._has_given_up = False
        self._keeper = threading.Thread(target=self._keep_up, name="machines", daemon=True)
        self.addresses = self
        self._folder = tempfile.TemporaryDirectory(prefix="widget-machines-")
        self._machines = [self._new() for _ in range(count)]
        self._all = list(self._machines)
        try:
            self._wait_until_all_are_open()
        except BaseException:
            self.close()
            raise
        self._keeper.start()

    def _new(self) -> Machine:
        return Machine(f"machine-{next(self._numbers)}", self._settings, Path(self._folder.name))

    def _wait_until_all_are_open(self) -> None:
        deadline = time.monotonic() + OPEN_SECONDS
        for machine in self._machines:
            while not machine.host:
                if machine.has_ended or time.monotonic() > deadline:
                    raise machine.why_not_open()
                time.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Stop them all."""
        self._is_over.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        for machine in self._machines:
            machine.stop()
        self._folder.cleanup()

    # --- the load balancer ------------------------------------------------------------------

    def pick(self, failed: str = "") -> str:
        """One after another, of those that are there."""
        hosts = [machine.host for machine in self._open()]
        others = [host for host in hosts if host != failed] or hosts or [failed]
        return others[next(self._turns) % len(others)]

    def is_gone(self, host: str) -> bool:
        """Whether that machine was killed."""
        return all(machine.host != host for machine in self._open())

    def _open(self) -> list[Machine]:
        with self._lock:
            return [each for each in self._machines if each.host and not each.is_killed]

    # --- what happens to them -----------------------------------------------------------------

    def are_kept_up(self) -> bool:
        """Whether no parent has given up by itself."""
        return not self._has_given_up

    def kill_server(self) -> bool:
        """Kill one of all their servers with SIGKILL."""
        server = self._any_server()
        if server is not None:
            send_signal([server], signal.SIGKILL)
        return server is not None

    def freeze_server(self) -> GoOn | None:
        """Have one of all their servers stand still."""
        server = self._any_server()
        if server is None:
            return None
        send_signal([server], signal.SIGSTOP)
        return lambda: send_signal([server], signal.SIGCONT)

    def kill_machine(self) -> bool:
        """Kill one with all that runs on it, if another is there; whether that was so."""
        machine = self._one_of_several()
        if machine is not None:
            machine.kill()
        return machine is not None

    def freeze_machine(self) -> GoOn | None:
        """Have one stand still with all that runs on it; None if no other is there."""
        machine = self._one_of_several()
        return None if machine is None else machine.freeze()

    def _any_server(self) -> int | None:
        servers = [pid for each in self._open() if not each.is_frozen for pid in each.servers()]
        return random.choice(servers) if servers else None  # noqa: S311 - it keeps no secret

    def _one_of_several(self) -> Machine | None:
        moving = [each for each in self._open() if not each.is_frozen]
        return random.choice(moving) if len(moving) > 1 else None  # noqa: S311 - it keeps no secret

    def _keep_up(self) -> None:
        """Start new machines in place of the dead."""
        while not self._is_over.wait(_LOOK_SECONDS):
            for machine in list(self._machines):
                if machine.is_killed:
                    self._replace(machine, random.uniform(*_AWAY_SECONDS))  # noqa: S311 - likewise
                elif machine.has_ended and not machine.host:
                    # It came while the database was away: what starts machines tries again.
                    self._replace(machine, _AGAIN_SECONDS)
                elif machine.has_ended:
                    self._has_given_up = True

    def _replace(self, dead: Machine, after_seconds: float) -> None:
        if not self._is_over.wait(after_seconds):
            new = self._new()
            with self._lock:
                self._machines[self._machines.index(dead)] = new
                self._all.append(new)

    def last_lines(self) -> tuple[str, ...]:
        """The last that each of them said."""
        return tuple(line for machine in self._all for line in machine.last_lines())
