"""The storm: many shoppers against a shop whose server is killed again and again.

It is what the shop claims, tried from outside: real requests, real SIGKILLs, and afterwards the ledger, and
for each order whether it is the one that its shopper was shown. What else may happen to it is
`fault_storm`'s.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from statistics import median
from typing import Any

from store import schema
from store.database import make_engines
from store.database_errors import DatabaseRefused
from store.durable.step_decorators import now_ms
from store.reads import crashes
from store.serving.supervised_programs import SERVER, Program
from store.settings import Settings, is_sqlite
from store.stage.storm_picture import Death
from store.stage.storm_view import death_of
from store.statement_text import text
from store.storm import adoptions
from store.storm.aimed_kills import Aim
from store.storm.audit import count_doubled, count_lost, endings_of, figure, look_at_every_order
from store.storm.kills import LEASE_SECONDS, Kills
from store.storm.machines import Machines
from store.storm.notes import Notes, Purchase
from store.storm.own_postgres import Cluster
from store.storm.servers import OneMachine, Servers
from store.storm.shoppers import Shopper
from store.storm.verdict import Landed, Plan, Progress, Trouble, Verdict

_WINDOW_SECONDS = 6.0
_TICK_SECONDS = 0.2
_REST_SECONDS = 120.0
"""The shop must have come to rest this long after the last kill."""
_CALM_SECONDS = 5.0
"""After faults, it has come to rest if it stays so for this long."""
_REST_AFTER_FAULTS_SECONDS = 60.0
"""Or this long after the last fault, with all that was stuck mended."""


def run(
    plan: Plan,
    settings: Settings,
    tell: Callable[[Progress], None],
    *,
    trouble: Trouble | None = None,
    postgres: Cluster | None = None,
) -> Verdict:
    """Run it over a shop on the database of `settings`; see `refuse_the_database_of_others`.

    Where `postgres` is given, the first process of that is killed as well.

    Raises:
        DatabaseRefused: no server could open on it.
    """
    settings = replace(
        settings,
        host="127.0.0.1",
        port=0,
        payment_window_seconds=_WINDOW_SECONDS,
        dispatch_tick_seconds=_TICK_SECONDS,
        presenter_password="",
        trusted_proxies=0,
        unpaid_per_client=0,  # all its shoppers have one address
        greetings_per_client=0,
        processes=plan.processes,
        lease_seconds=LEASE_SECONDS if plan.processes * plan.machines > 1 else settings.lease_seconds,
    )
    try:
        program = SERVER if trouble is None else trouble.program
        with closing(_opened(plan, settings, program)) as servers:
            kept = "SQLite" if is_sqlite(settings.database_url) else "Postgres"
            began_at_ms = now_ms()
            # Where everything else breaks, what is armed may be lost, or be in the copy that is put back.
            aim = Aim(settings) if trouble is None else None
            try:
                verdict = _Storm(plan, servers, trouble, postgres, aim).run(kept, tell)
            finally:
                if aim is not None:
                    aim.close()
            verdict = replace(verdict, deaths=_deaths(settings, began_at_ms))
            verdict = _with_adoptions(verdict, settings)
            return verdict if verdict.ok else replace(verdict, server_log=servers.last_lines())
    finally:
        if trouble is not None:
            trouble.stop()


def _opened(plan: Plan, settings: Settings, program: Program) -> OneMachine | Machines:
    if plan.machines > 1:
        return Machines(plan.machines, settings)
    return OneMachine(settings, program)


def _with_adoptions(verdict: Verdict, settings: Settings) -> Verdict:
    found, left = adoptions.wait_for_all(settings)
    if left:
        verdict.complaints.append(f"the work of {left} dead servers was not taken up")
    return replace(verdict, adoptions=found)


class _Storm:
    """One storm over one open shop."""

    def __init__(
        self,
        plan: Plan,
        servers: Servers,
        trouble: Trouble | None,
        postgres: Cluster | None,
        aim: Aim | None,
    ) -> None:
        self._plan, self._servers, self._trouble, self._aim = plan, servers, trouble, aim
        self._notes = Notes()
        self._kills = Kills(plan, servers, self._notes, postgres, aim)
        self._seconds_to_rest = 0.0
        self._began_at = time.monotonic()
        self._is_over = threading.Event()

    def run(self, kept: str, tell: Callable[[Progress], None]) -> Verdict:
        """All of it, from the first shopper to the verdict, on a database of that kind."""
        self._tell = tell
        shoppers = [
            threading.Thread(target=self._shopper(number).shop_and_tell, args=[self._is_over.is_set])
            for number in range(self._plan.shoppers)
        ]
        presenter = threading.Thread(target=self._keep_the_shelf_filled)
        for thread in [*shoppers, presenter]:
            thread.daemon = True
            thread.start()
        self._kills.start()
        if self._trouble is not None and self._servers.parent is not None:
            self._trouble.begin(self._notes, self._servers.parent)
        while self._seconds() < self._plan.seconds or self._kills.are_under_way() or self._is_troubled():
            self._report("storm")
            time.sleep(0.1)
        self._is_over.set()
        for thread in [*shoppers, presenter]:
            while thread.is_alive():
                thread.join(0.1)
                self._report("the last shoppers leave")
        ledger = self._come_to_rest()
        self._report("looking at every order")
        made = look_at_every_order(self._shopper(-3), self._notes)
        if figure(ledger, "orders") != len(made):
            self._notes.complain(f"{len(made)} clicks on Buy Now made {figure(ledger, 'orders')} orders")
        return self._verdict(kept, ledger, made)

    def _shopper(self, number: int) -> Shopper:
        seed = f"{self._plan.seed}-{number}"
        return Shopper(
            self._servers.addresses, seed, self._notes, _WINDOW_SECONDS, greets=self._trouble is not None
        )

    def _is_troubled(self) -> bool:
        return self._trouble is not None and not self._trouble.is_over()

    def _seconds(self) -> float:
        return time.monotonic() - self._began_at

    def _report(self, phase: str) -> None:
        notes = self._notes
        self._tell(
            Progress(
                phase,
                self._seconds(),
                self._kills.count,
                len(notes.purchases),
                notes.longest_pause_seconds,
                "" if self._trouble is None else self._trouble.now(),
            )
        )

    def _keep_the_shelf_filled(self) -> None:
        """A presenter who lets it run empty now and then."""
        chance = random.Random(~self._plan.seed)  # noqa: S311 - it keeps no secret
        presenter = self._shopper(-1)
        while not self._is_over.wait(chance.uniform(0.5, 4)):
            presenter.post("/restock")

    def _come_to_rest(self) -> dict[str, Any]:
        """Wait until nothing moves any more; the ledger then."""
        observer = self._shopper(-2)
        began_at, rest_seconds = time.monotonic(), _REST_SECONDS
        if self._trouble is not None:
            began_at, rest_seconds = self._trouble.ended_at(), _REST_AFTER_FAULTS_SECONDS
        calm_since = None
        while True:
            self._report("coming to rest")
            answer = observer.get("/ledger.json")
            ledger: dict[str, Any] = (
                json.loads(answer.text) if answer.status == 200 else {"balanced": False, "lines": []}
            )
            unrest, now = self._unrest(ledger), time.monotonic()
            if unrest:
                self._seconds_to_rest, calm_since = now - began_at, None
            elif calm_since is None:
                calm_since = now
            # An order that a restored copy has lost is in no table for a moment, while it is made again.
            if calm_since is not None and (self._trouble is None or now - calm_since > _CALM_SECONDS):
                return ledger
            if self._seconds_to_rest > rest_seconds:
                self._notes.complain(f"the shop had not come to rest after {rest_seconds:g} s: {unrest}")
                return ledger
            time.sleep(0.25)  # between two looks

    def _unrest(self, ledger: dict[str, Any]) -> str:
        """What has not come to rest; nothing if all has."""
        under_way = figure(ledger, "under_way")
        if under_way != 0:
            return f"{under_way} orders are under way"
        if self._trouble is None:
            return ""
        if not ledger["balanced"]:
            return "the books do not balance"
        return self._trouble.unrest()

    def _verdict(self, kept: str, ledger: dict[str, Any], made: list[Purchase]) -> Verdict:
        notes = self._notes
        return Verdict(
            plan=self._plan,
            database=kept,
            endings=endings_of(notes),
            kills=self._kills.count,
            points=self._aim.hits() if self._aim else {},
            landed={kind.value: self._kills.landed[kind] for kind in Landed if self._kills.landed[kind]},
            requests=notes.requests,
            sent_again=notes.unanswered,
            refused=notes.refused,
            usual_pause_seconds=round(median(notes.pauses), 2) if notes.pauses else None,
            longest_pause_seconds=round(notes.longest_pause_seconds, 2),
            longest_dark_seconds=round(notes.longest_dark_seconds, 2),
            seconds_to_rest=round(self._seconds_to_rest, 1),
            ledger=ledger,
            lost=count_lost(made),
            doubled=count_doubled(made),
            requests_made=tuple(notes.log),
            complaints=notes.complaints,
            faults={} if self._trouble is None else self._trouble.verdict(),
        )


def refuse_the_database_of_others(settings: Settings) -> None:
    """Look whether a storm may use this database, which is created if need be.

    Raises:
        DatabaseRefused: it cannot be used, or has orders in it.
    """
    databases = schema.connect(settings)
    try:
        with databases.reader.connect() as connection:
            orders = connection.execute(text("SELECT count(*) FROM orders")).scalar_one()
    finally:
        databases.close()
    if orders:
        raise DatabaseRefused(
            f"A storm needs a database of its own, and this one has {orders} orders: name a new one."
        )


def _deaths(settings: Settings, began_at_ms: int) -> tuple[Death, ...]:
    """Those of the servers since then, as the shop has recorded them."""
    databases = make_engines(settings)
    try:
        with databases.reader.connect() as connection:
            found = crashes.between(connection, began_at_ms, now_ms())
    finally:
        databases.close()
    return tuple(death_of(each, began_at_ms) for each in found)
