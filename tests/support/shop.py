"""A real shop: a server in a process of its own, its visitors, and the tables of its two databases."""

from __future__ import annotations

import os
import re
import signal

from tests.support.server import SUPERVISED, Server
from tests.support.shopper import Shopper, eventually
from tests.support.started import is_alive
from tests.support.tables import Tables, checkpoints_of

TICK_SECONDS = 0.02
PASSWORD = "correct horse: battery"  # noqa: S105 - of shops that close with the test
"""Of the presenter's tools, where a test sets one."""
DEATH = re.compile(r"Server (\d+) died \((.+)\); server (\d+) answered (\d+\.\d\d) s later\.")
"""What the parent says of each: who died, of what, who came after, how long it took."""


class Shop:
    """A running shop, its visitors and its tables."""

    def __init__(self, database_url: str, **settings: object) -> None:
        self.database_url = database_url
        self.server = Server(database_url, {"STORE_DISPATCH_TICK_SECONDS": TICK_SECONDS, **settings})
        self.tables = Tables(database_url)
        self.checkpoints = Tables(checkpoints_of(database_url), schema="dbos")

    @property
    def shopper(self) -> Shopper:
        """Somebody at the door, wherever the shop is now open."""
        return Shopper(self.server.url)


class SupervisedShop(Shop):
    """A shop with a parent, which starts the server again when it dies; open from the beginning."""

    def __init__(self, database_url: str, **settings: object) -> None:
        super().__init__(database_url)
        self.parent = self.server = Server(
            database_url, {"STORE_DISPATCH_TICK_SECONDS": 0.05, **settings}, script=SUPERVISED
        )
        self.parent.start()

    @property
    def server_pid(self) -> int:
        """The process that the parent last spoke of."""
        opened = re.search(r"\(process (\d+),", self.parent.output)
        assert opened
        return int(self.deaths[-1][2]) if self.deaths else int(opened[1])

    @property
    def deaths(self) -> list[tuple[str, ...]]:
        """What the parent has said of each."""
        return DEATH.findall(self.parent.output)

    def kill(self) -> None:
        """Kill the newest server, whether it has answered anybody or not, and leave the parent alone."""
        newest = "SELECT pid FROM executors ORDER BY number DESC LIMIT 1"
        # One that has answered may not have written down yet that it has started.
        [(pid,)] = eventually(lambda: self.tables.rows(newest), lambda rows: is_alive(rows[0].pid))
        os.kill(pid, signal.SIGKILL)

    def wait_for_deaths(self, count: int) -> None:
        """Until the parent has told of so many."""
        eventually(lambda: len(self.deaths), lambda told: told >= count)
