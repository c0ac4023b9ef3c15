"""Kills that are aimed: a server dies at a named point of the workflows, the one that was hit least so far.

Chance alone seldom hits the moment between a commit and its checkpoint. The points are those that a presenter
may arm; which server died at which is in the record that the shop itself keeps of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from store import schema
from store.durable import step_decorators
from store.settings import Settings
from store.stage import crash_points
from store.statement_text import text

POINTS = tuple(name for name in crash_points.CRASH_POINTS if name != "greeting")
"""All at which an order may meet its crash."""
_PATIENCE_SECONDS = 15.0
"""Until somebody has come by. Orders do every second, but a server that comes after a death starts first."""
_LOOK_SECONDS = 0.05
_HITS = "SELECT point, count(*) AS times FROM fired_crashes GROUP BY point"


class Aim:
    """Has servers of one shop die at its points, and counts how often each was hit."""

    def __init__(self, settings: Settings) -> None:
        self._databases = schema.connect(settings)
        step_decorators.bind_to(settings.database_url, self._databases.store)

    def close(self) -> None:
        """Arm no more, and let the database go."""
        try:
            crash_points.disarm_all()
        finally:
            self._databases.close()

    def hits(self) -> dict[str, int]:
        """How many servers have died at each point."""
        with self._databases.reader.connect() as connection:
            found = {row.point: int(row.times) for row in connection.execute(text(_HITS))}
        return {name: found.get(name, 0) for name in POINTS}

    def hit(self, kill: Callable[[], object]) -> bool:
        """Have a server die at the point that was hit least; whether one has, within some seconds.

        `kill` takes one down somewhere: to die in a recovery, there must be one.
        """
        try:
            before = self.hits()
            point = min(POINTS, key=lambda name: before[name])
            crash_points.arm(point)
            if point == "recovery":
                kill()
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while self.hits()[point] == before[point]:
                if time.monotonic() > deadline:
                    # Where there is nothing to disarm, one has died of it in this moment.
                    return not crash_points.disarm(point)
                time.sleep(_LOOK_SECONDS)
        except DBAPIError:  # the storm has killed Postgres as well: this one is not aimed
            return False
        return True
