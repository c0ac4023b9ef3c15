"""Servers that stand still for longer than their lease, and go on once others have taken up their work."""

from __future__ import annotations

import random
import threading

from store.serving.supervisor import Supervisor

LEASE_SECONDS = 2.0
"""Of the servers of such a storm."""
_SECONDS = 3.5
_SHARE = 0.2


class Freezes:
    """Freezes one of several servers now and then."""

    def __init__(self, supervisor: Supervisor, *, are_wanted: bool) -> None:
        self._supervisor, self._are_wanted = supervisor, are_wanted
        self._going_on: list[threading.Timer] = []

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self._going_on)

    def perhaps(self, chance: random.Random) -> None:
        """Freeze one, if that is wanted and chance wants it, too."""
        if self._are_wanted and chance.random() < _SHARE and (go_on := self._supervisor.freeze_server()):
            timer = threading.Timer(_SECONDS, go_on)
            timer.daemon = True
            timer.start()
            self._going_on.append(timer)

    def end(self) -> None:
        """Wait until the last one goes on."""
        for timer in self._going_on:
            timer.join()
