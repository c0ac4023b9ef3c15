"""What is killed and frozen in a storm, and when: servers, whole machines, and Postgres."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from store.storm.aimed_kills import Aim
from store.storm.machines import Machines
from store.storm.notes import Notes
from store.storm.own_postgres import Cluster
from store.storm.servers import GoOn, Servers
from store.storm.verdict import Landed, Plan

LEASE_SECONDS = 2.0
"""Of servers of which some stand still, or whose machine is killed."""
_FREEZE_SECONDS = 3.5
_FREEZE_CHANCE = 0.2
_MOST_YOUNG = 2
"""Servers in a row that are killed before anybody is answered."""
_POSTGRES_AWAY_SECONDS = (0.5, 4.0)


_ROUND = (Landed.MACHINE_KILLED, *[Landed.SERVER_KILLED] * 3)
"""Of several machines, one is killed as often as this, in an order that chance picks."""


class Kills:
    """All of them, in threads of their own; of `postgres`, if there is one, the first process once.

    Every second kill of a server is aimed, where there is an `aim`.
    """

    def __init__(
        self, plan: Plan, servers: Servers, notes: Notes, postgres: Cluster | None, aim: Aim | None
    ) -> None:
        self._plan, self._servers, self._notes, self._aim = plan, servers, notes, aim
        self.landed: Counter[Landed] = Counter()
        self._going_on: list[threading.Timer] = []
        self._threads = [self._thread(self._kill)]
        if postgres is not None:
            self._threads.append(self._thread(lambda: self._kill_postmaster(postgres)))

    def _thread(self, do: Callable[[], None]) -> threading.Thread:
        def do_and_tell() -> None:
            try:
                do()
            except Exception as error:  # noqa: BLE001 - a storm must not pass because its kills failed
                self._notes.complain(f"what was to be killed could not be: {error!r}")

        return threading.Thread(target=do_and_tell, name="kills", daemon=True)

    @property
    def count(self) -> int:
        """Servers and machines that were killed."""
        return self.landed[Landed.SERVER_KILLED] + self.landed[Landed.MACHINE_KILLED]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def are_under_way(self) -> bool:
        """Whether something is still to be killed, or to go on."""
        return any(thread.is_alive() for thread in self._threads)

    def _kill(self) -> None:
        """SIGKILL at moments that chance picks: between two requests, within one, or while it starts.

        But where so many in a row have died before anybody was answered, the next one lives until somebody
        is: on a machine where a start takes longer than lies between two kills, nobody ever would be.
        """
        chance = random.Random(self._plan.seed)  # noqa: S311 - it keeps no secret
        usual_seconds = self._plan.seconds / max(1, self._plan.kills)
        kinds = self._kinds(chance)
        killed_at, died_young = float("-inf"), 0
        while self.count < self._plan.kills and self._servers.are_kept_up():
            time.sleep(chance.uniform(0, 2 * usual_seconds))
            while (
                died_young >= _MOST_YOUNG
                and self._notes.answered_at < killed_at
                and self._servers.are_kept_up()
            ):
                time.sleep(0.05)
            kind = next(kinds)
            if not self._until_it_lands(self._killer_of(kind), chance):
                break
            self.landed[kind] += 1
            died_young = 0 if self._notes.answered_at > killed_at else died_young + 1
            killed_at = time.monotonic()
            self._perhaps_freeze(chance)
        for timer in self._going_on:
            timer.join()
        if not self._servers.are_kept_up():
            self._notes.complain("the parent gave up")

    def _kinds(self, chance: random.Random) -> Iterator[Landed]:
        if not isinstance(self._servers, Machines):
            yield from itertools.repeat(Landed.SERVER_KILLED)
        # However few there are to be, one of them is of a machine.
        first = _ROUND[: self._plan.kills]
        yield from chance.sample(first, len(first))
        while True:
            yield from chance.sample(_ROUND, len(_ROUND))

    def _killer_of(self, kind: Landed) -> Callable[[], bool]:
        if kind is Landed.MACHINE_KILLED and isinstance(self._servers, Machines):
            return self._servers.kill_machine
        if self._aim is not None and self.count % 2:
            return self._aim_and_kill
        return self._servers.kill_server

    def _aim_and_kill(self) -> bool:
        return (
            self._aim is not None and self._aim.hit(self._servers.kill_server)
        ) or self._servers.kill_server()

    def _until_it_lands(self, do: Callable[[], object], chance: random.Random) -> bool:
        """Do it as soon as it can be done; False where the servers are kept up no more."""
        while not do():
            if not self._servers.are_kept_up():
                return False
            # The last one is dead, and the next not yet born. It gets some time to live.
            time.sleep(chance.random())
        return True

    # --- what stands still --------------------------------------------------------------------

    def _perhaps_freeze(self, chance: random.Random) -> None:
        """Of several servers, freeze one now and then; of several machines, sometimes a whole one."""
        if isinstance(self._servers, Machines):
            if self.count % 2 == 0:
                of_machine = self.count % 4 == 0
                freeze = self._servers.freeze_machine if of_machine else self._servers.freeze_server
                kind = Landed.MACHINE_FROZEN if of_machine else Landed.SERVER_FROZEN
                self._until_it_lands(lambda: self._freeze(freeze, kind), chance)
        elif self._plan.processes > 1 and chance.random() < _FREEZE_CHANCE:
            self._freeze(self._servers.freeze_server, Landed.SERVER_FROZEN)

    def _freeze(self, freeze: Callable[[], GoOn | None], kind: Landed) -> bool:
        go_on = freeze()
        if go_on is None:
            return False
        timer = threading.Timer(_FREEZE_SECONDS, go_on)
        timer.daemon = True
        timer.start()
        self._going_on.append(timer)
        self.landed[kind] += 1
        return True

    # --- Postgres -----------------------------------------------------------------------------

    def _kill_postmaster(self, postgres: Cluster) -> None:
        """Once, somewhere in the middle; it is started again after a while."""
        chance = random.Random(f"postmaster {self._plan.seed}")  # noqa: S311 - it keeps no secret
        time.sleep(self._plan.seconds * chance.uniform(0.3, 0.7))
        postgres.kill_postmaster()
        self.landed[Landed.POSTMASTER_KILLED] += 1
        time.sleep(chance.uniform(*_POSTGRES_AWAY_SECONDS))
        postgres.start()
