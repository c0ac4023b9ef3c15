"""The fault storm: the databases and the guestbook break too.

Whatever it was, a minute after the last fault every order and every greeting has ended, nothing is stuck,
and the ledger balances. An older copy of a database takes with it what was made since it was taken: what a
shopper was shown since then is forgotten (see `notes`), and everything else must be as it was shown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from store.database_errors import DatabaseRefused
from store.serving.supervised_programs import GUESTBOOK
from store.serving.supervisor import Supervisor
from store.settings import ROOT, Settings, is_sqlite
from store.storm import postgres_faults, shop_faults, sqlite_faults, storm
from store.storm.faults import Faults, Kind, Way, schedule
from store.storm.held_server import Held
from store.storm.notes import Notes, Visit
from store.storm.own_postgres import Cluster
from store.storm.shop_faults import Shop
from store.storm.shoppers import Shopper
from store.storm.verdict import Plan, Progress, Verdict
from store.vocabulary import GreetingOutcome, greeting_id

_RECONCILE_SECONDS = 2.0
_GREETING_WINDOW_SECONDS = 15.0
_STUCK_SECONDS = 120.0
"""How long `app.py stuck` may take, where a start of Python takes long: one that hangs takes for ever."""


def refuse_what_cannot_be_broken(settings: Settings, cluster: Cluster | None) -> None:
    """Look whether the database is the storm's to break, and this system one to break it on.

    Raises:
        DatabaseRefused: it is not.
    """
    if os.name != "posix":
        raise DatabaseRefused("A fault storm needs signals and a shell: run it on Linux or macOS.")
    if cluster is None and not is_sqlite(settings.database_url):
        raise DatabaseRefused(
            "A fault storm stops and breaks its Postgres, so it uses one of its own: say --postgres "
            "instead of --database."
        )


def run(plan: Plan, settings: Settings, cluster: Cluster | None, tell: Callable[[Progress], None]) -> Verdict:
    """Run it; on Postgres over the storm's own `cluster`.

    Raises:
        DatabaseRefused: no server could open on that database.
    """
    with tempfile.TemporaryDirectory(prefix="widget-faults-") as name, _guestbook(Path(name)) as guestbook:
        held = Held(Path(name))
        settings = replace(
            settings,
            guestbook_url=guestbook.address,
            greeting_window_seconds=_GREETING_WINDOW_SECONDS,
            reconcile_seconds=_RECONCILE_SECONDS,
        )
        trouble = _Trouble(plan, settings, cluster, held, guestbook)
        return storm.run(plan, settings, tell, trouble=trouble)


@contextmanager
def _guestbook(folder: Path) -> Iterator[Supervisor]:
    """An online guestbook that is started again when it dies."""
    command = (*GUESTBOOK.command, "--database", str(folder / "guestbook.sqlite3"))
    with tempfile.TemporaryFile() as log:
        guestbook = Supervisor(
            Settings(host="127.0.0.1", port=0, hang_seconds=0),
            on_event=lambda _: None,
            program=replace(GUESTBOOK, command=command),
            log=log,
        )
        keeper = threading.Thread(target=guestbook.run, args=[str], name="guestbook", daemon=True)
        keeper.start()
        try:
            yield guestbook
        finally:
            guestbook.stop()
            keeper.join()
            guestbook.close()


class _Trouble:
    """All that happens beside the kills; a `storm.Trouble`."""

    def __init__(
        self, plan: Plan, settings: Settings, cluster: Cluster | None, held: Held, guestbook: Supervisor
    ) -> None:
        self._plan, self._settings, self._cluster = plan, settings, cluster
        self._held, self._guestbook = held, guestbook
        self.program = held.program
        self._not_tried: dict[Kind, str] = {}
        self._faults: Faults | None = None
        self._notes = Notes()
        self._observer: Shopper | None = None
        self._visits = 0

    def begin(self, notes: Notes, supervisor: Supervisor) -> None:
        """Begin, now that the shop is open."""
        self._notes = notes
        self._observer = self._visitor(supervisor, notes)
        shop = Shop(supervisor, self._held, self._guestbook, notes, lambda: self._visitor(supervisor, notes))
        ways, self._not_tried = self._ways(shop)
        ways |= shop_faults.ways(shop)
        planned = schedule(self._plan.seed, self._plan.seconds, [kind for kind in Kind if kind in ways])
        self._faults = Faults(planned, ways, notes)
        self._faults.start()

    def _ways(self, shop: Shop) -> tuple[dict[Kind, Way], dict[Kind, str]]:
        if self._cluster is None:
            return sqlite_faults.ways(shop, self._settings)
        return postgres_faults.ways(shop, self._cluster)

    def _visitor(self, supervisor: Supervisor, notes: Notes) -> Shopper:
        self._visits += 1
        return Shopper(supervisor.address, f"{self._plan.seed}-visitor-{self._visits}", notes, 0)

    def is_over(self) -> bool:
        """Whether the last fault is undone."""
        return self._faults is not None and self._faults.are_over()

    def ended_at(self) -> float:
        """When that was, on the monotonic clock."""
        return self._faults.ended_at if self._faults is not None else 0.0

    def now(self) -> str:
        """What happens at the moment, for people."""
        return str(self._faults.now) if self._faults is not None else ""

    def unrest(self) -> str:
        """What has not come to rest, beside the orders."""
        for visit in self._notes.visits:
            if visit.outcome is None and self._observer is not None:
                shown = self._observer.look_at_greeting(visit)
                if visit.outcome is None:
                    return f"a greeting has not ended: {shown}"
        stuck = self._stuck()
        return f"{len(stuck)} are stuck, first {stuck[0]}" if stuck else ""

    def _stuck(self) -> list[Any]:
        """What `app.py stuck --json` lists."""
        asked = subprocess.run(
            [sys.executable, "app.py", "stuck", "--json"],
            cwd=ROOT,
            env=self._settings.environment(),
            capture_output=True,
            text=True,
            timeout=_STUCK_SECONDS,
            check=False,
        )
        try:
            found: list[Any] = json.loads(asked.stdout)
        except ValueError:
            return [asked.stderr.strip() or "no answer"]
        return found

    def verdict(self) -> dict[str, Any]:
        """What came of it; each greeting is looked at once more."""
        tried = self._faults.tried if self._faults is not None else Counter()
        not_made = self._faults.not_made if self._faults is not None else Counter()
        for kind in not_made:
            if not tried[kind]:
                self._notes.complain(f"the fault could never be made: {kind}")
        for visit in self._notes.visits:
            self._look_into_both_books(visit)
        return {
            "tried": {kind: tried[kind] for kind in Kind if tried[kind]},
            "given_up_before_they_began": {str(kind): times for kind, times in not_made.items()},
            "not_tried": {str(kind): why for kind, why in self._not_tried.items()},
            "greetings": dict(Counter(str(visit.outcome) for visit in self._notes.visits)),
            "orders_younger_than_a_restored_copy": self._notes.younger_than_a_copy,
        }

    def _look_into_both_books(self, visit: Visit) -> None:
        """Who is greeted has signed over there, once, with that name."""
        if self._observer is None:
            return
        self._observer.look_at_greeting(visit)
        if visit.outcome is GreetingOutcome.GREETED:
            elsewhere = Shopper(self._guestbook.address, "reader", self._notes, 0)
            found = json.loads(elsewhere.get(f"/signatures?key={greeting_id(visit.key)}").text)
            if [each["name"] for each in found["signatures"]] != [visit.name]:
                self._notes.complain(f"{visit.name} was greeted, and is not in the online guestbook once")

    def stop(self) -> None:
        """Undo what is on, and make no other fault."""
        if self._faults is not None:
            self._faults.stop()
