"""The presenter's page that runs the durable and the naive lane side by side.

Its routes are among the presenter's tools, for the same few.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Response, abort, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from store import commands
from store.database import Databases
from store.durable import runtime
from store.durable.deadlines import DeadlineExceeded, call_with_deadline
from store.reads.crashes import Crash
from store.reads.greetings import Greeting
from store.reads.records import Order
from store.settings import Settings
from store.stage import naive, shortest_losses
from store.stage.listing import code
from store.stage.presenter_bar import is_meant_for_this_server, presenter
from store.vocabulary import Outcome, Reason, Status, is_key, new_key
from store.web.every_request import abort_not_there, fragment, page
from store.web.origin import client_of
from store.web.shop import queries, the_shop
from store.web.track import Track

_ASKED_WITHIN = timedelta(seconds=10)
"""Of the end of a sale: a greeting that was not asked for by then was refused."""


@dataclass(frozen=True)
class NaiveRun:
    """What the naive lane has made of one click."""

    status: str | None
    """Of its order; None if it has none."""
    progress: int
    charged_cents: int
    """All that was taken for it."""
    signature: int | None
    """Its number in the online guestbook, if it has signed there."""
    is_recorded: bool
    """Whether our own book has the greeting."""
    is_dead: bool
    """Whether the server that ran it is gone, so that nothing more will come of it."""
    greets: bool = True
    """Whether anybody greets at all: in a storm, nobody does."""
    trouble_of_sale: str = ""
    """Why its sale was given up, one sentence; empty if it was not."""
    trouble_of_greeting: str = ""
    """The same of its greeting."""

    @property
    def is_charged(self) -> bool:
        """Whether money was taken."""
        return self.charged_cents > 0

    @property
    def charges(self) -> int:
        """How often it was."""
        return self.charged_cents // naive.PRICE_CENTS

    @property
    def is_whole(self) -> bool:
        """Whether both have come to a good end."""
        return self.status == Status.DISPATCHED and (self.is_recorded or not self.greets)

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        has_sold = self.status == Status.DISPATCHED or self.trouble_of_sale
        has_greeted = self.is_recorded or not self.greets or self.trouble_of_greeting
        return self.is_dead or bool(has_sold and has_greeted)

    @property
    def sale(self) -> str:
        """How the sale stands: `dispatched`, `on_its_way`, or what is left of it, for ever."""
        if self.status == Status.DISPATCHED:
            return "dispatched"
        if not self.is_dead and not self.trouble_of_sale:
            return "on_its_way"
        return "charged_for_nothing" if self.is_charged else "held_for_ever" if self.status else "nothing"

    @property
    def track(self) -> Track:
        """Its sale as a picture: at its first crash it stops, for ever."""
        is_stopped = self.sale not in {"dispatched", "on_its_way"}
        return Track.of("the naive order", self.progress, is_stopped=is_stopped)

    @property
    def greeting(self) -> str:
        """The same of the greeting: `in_both_books`, `signing`, `signed`, or what is left of it, for ever.

        `nobody` where nobody greets.
        """
        if not self.greets:
            return "nobody"
        if self.is_recorded:
            return "in_both_books"
        if not self.is_dead and not self.trouble_of_greeting:
            return "signed" if self.signature else "signing"
        return "signed_for_nothing" if self.signature else "nothing"


@dataclass(frozen=True)
class Run:
    """One click, in both lanes."""

    order: Order | None
    greeting: Greeting | None
    naive: NaiveRun
    crashes: tuple[Crash, ...]
    """That met the durable order, oldest first."""

    @property
    def track(self) -> Track:
        """The durable sale as a picture."""
        return Track.of("the durable order", self.order.progress if self.order else 0, self.crashes)

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more in either lane."""
        is_sold = self.order is not None and self.order.is_final
        has_greeted = self.greeting.is_final if self.greeting else self.durable_greeting == "nobody"
        return is_sold and has_greeted and self.naive.is_final

    @property
    def state(self) -> str:
        """How both lanes stand together, at this moment.

        `running`, `naive_is_dead`, `naive_goes_on` or `durable_goes_on`; at their end `one_is_whole`,
        `both_are_whole` or `ended`; `sold_out` where the durable one found the shelf empty, `cancelled`
        where it was not paid in time, or somebody has cancelled it.
        """
        if self.sale in {"sold_out", "cancelled"}:
            return self.sale
        if not self.is_final:
            if self.naive.is_final and not self.naive.is_whole:
                return "one_is_whole" if self.durable_is_whole else "naive_is_dead"
            if self.naive.is_whole == self.durable_is_whole:
                return "running"
            return "durable_goes_on" if self.naive.is_whole else "naive_goes_on"
        if not self.durable_is_whole:  # its greeting was given up
            return "ended"
        return "both_are_whole" if self.naive.is_whole else "one_is_whole"

    @property
    def sale(self) -> str:
        """How the durable sale stands: `reserving`, `on_its_way`, `dispatched`, `sold_out` or `cancelled`."""
        if self.order is None:
            return "reserving"
        if self.order.status is Status.CANCELLED:
            return "sold_out" if self.order.reason is Reason.SOLD_OUT else "cancelled"
        return "dispatched" if self.order.status is Status.DISPATCHED else "on_its_way"

    @property
    def durable_is_whole(self) -> bool:
        """Whether the durable lane has come to its end, as it does unless it was cancelled."""
        is_sold = self.order is not None and self.order.status is Status.DISPATCHED
        return is_sold and self.durable_greeting in {"greeted", "nobody"}

    @property
    def durable_greeting(self) -> str:
        """How the durable greeting stands, as its own page says; `nobody` where none was asked for."""
        if self.greeting is not None:
            return str(self.greeting.state)
        ended_at = self.order.updated_at if self.order and self.order.is_final else None
        is_too_late = ended_at is not None and datetime.now(UTC) - ended_at > _ASKED_WITHIN
        return "nobody" if not self.naive.greets or is_too_late else "signing"


def start(key: str, client: str) -> None:
    """Run a sale that is paid at once, and a greeting, in each lane; once for each key.

    The durable lane is told again however often the click comes, which is safe, and so it is whole even
    if the server dies in here. The naive lane runs once, or not at all.
    """
    status = commands.buy(key, client)
    # Before the durable one is paid: a crash that comes over its payment is to meet both.
    try:
        call_with_deadline(lambda: naive.run_once(key, runtime.executor_number()))
    finally:  # one that is late goes on by itself, and so does what is asked for here
        if status is not Status.CANCELLED:
            commands.settle(key, Outcome.PAID)
    number = _one("SELECT run FROM naive_runs WHERE key = :key", key=key).run
    with suppress(commands.TooManyGreetings):  # the sale is made, and is what is looked at
        commands.greet(_greeting_key(key), f"Durable visitor {number}", client, wait=False)


def find(key: str) -> Run | None:
    """What has become of a click; None if there was none with this key."""
    row = _one(
        "SELECT r.visitor, o.status, o.progress, p.amount_cents,"
        " EXISTS (SELECT 1 FROM naive_greetings g WHERE g.name = r.visitor) AS recorded,"
        " e.ended_at_ms IS NOT NULL AS is_dead"
        " FROM naive_runs r JOIN executors e ON e.number = r.executor"
        " LEFT JOIN naive_orders o ON o.payment_id = r.key"
        " LEFT JOIN naive_payments p ON p.payment_id = r.key"
        " WHERE r.key = :key",
        key=key,
    )
    if row is None:
        return None
    troubles = {
        each.work: each.reason
        for each in queries().rows("SELECT work, reason FROM naive_troubles WHERE key = :key", key=key)
    }
    run = NaiveRun(
        status=row.status,
        progress=row.progress or 0,
        charged_cents=row.amount_cents or 0,
        signature=the_shop().greetings.signature_of(row.visitor),
        is_recorded=bool(row.recorded),
        is_dead=bool(row.is_dead),
        greets=bool(row.visitor),
        trouble_of_sale=troubles.get("sale", ""),
        trouble_of_greeting=troubles.get("greeting", ""),
    )
    greeting = the_shop().greetings.find(_greeting_key(key))
    return Run(queries().find(key), greeting, run, queries().crashes_of(key))


def _one(statement: str, **values: object) -> Any:
    rows = queries().rows(statement, **values)
    return rows[0] if rows else None


def prepare(settings: Settings, databases: Databases) -> None:
    """Open the naive lane; its routes are registered with the other tools."""
    naive.lane.set(naive.Lane(databases.store, settings.guestbook_url, settings.dispatch_tick_seconds))


@presenter.get("/lanes")
def show_lanes() -> str:
    """Show the button, and the code of both lanes."""
    return _page(key=None, run=None)


@presenter.post("/lanes")
def run_lanes() -> AnyResponse:
    """Run both lanes with one click."""
    key = request.form.get("key", "")
    if not is_key(key):
        abort(400, "That button has no usable key: go back to the lanes for a new one.")
    try:
        start(key, client_of(request))
    except (commands.KeyTaken, commands.TooManyUnpaid, commands.UnknownPayment):
        abort(409, "That click cannot be run: go back to the lanes for a new one.")
    return redirect(url_for(".lanes_of", key=key), 303)


def _page(**context: Any) -> str:
    return page("lanes.html", new_key=new_key(), code=code(), losses=shortest_losses.recorded(), **context)


@presenter.get("/lanes/<key:key>")
def lanes_of(key: str) -> str:
    """Show what has become of one click."""
    run, executor = _find(key), runtime.executor_number()
    return _page(key=key, run=run, executor=executor)


@presenter.get("/lanes/<key:key>/progress")
def progress_of_lanes(key: str) -> Response:
    """What has become of it by now."""
    return fragment("_lanes.html", key=key, run=_find(key), executor=runtime.executor_number())


@presenter.post("/lanes/<key:key>/again")
def run_naive_again(key: str) -> AnyResponse:
    """Run the naive lane of a click once more; the durable one has a page of its own for that."""
    run = _find(key)
    if not run.is_final:
        abort(409, "The lanes are still running: run it again when both have ended.")
    if is_meant_for_this_server():
        # One that is late goes on by itself. Told to come again, the page would run it once more.
        with suppress(DeadlineExceeded):
            call_with_deadline(lambda: naive.run_again(key, runtime.executor_number()))
    return redirect(url_for(".lanes_of", key=key), 303)


def _greeting_key(key: str) -> str:
    """The key of a run's greeting: the key itself is its payment id, which is nobody else's business."""
    return hashlib.blake2b(key.encode(), digest_size=12).hexdigest()


def _find(key: str) -> Run:
    found = find(key)
    if found is None:
        abort_not_there("There is no such run: go back to the lanes.")
    return found
