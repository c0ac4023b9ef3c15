"""Owns the evidence about an account that the store's own tables cannot give.

Imports `audit`, `findings`, `online`, `results` and `vocabulary`.

Two witnesses. DBOS keeps a workflow for each order, restock and greeting, with what it was started with and
what it returned at its end: its receipt, a value of `results`. And the online guestbook, somebody else's, has
its own book. Whoever changes the store's tables by hand changes neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient, DBOSPortableJSONSerializer, error
from sqlalchemy.exc import DBAPIError

from store.audit import OPENING, Account, Fault
from store.findings import workflows_of
from store.online import Signature
from store.results import LOST, REFUSED
from store.vocabulary import (
    CHECKOUT,
    GREETING,
    RESTOCK,
    GreetingOutcome,
    Movement,
    Outcome,
    Status,
    dispatch_id,
    price,
)

_LIVE_LOOKS = 200
_KEPT = 10_000
"""Receipts of `reserve` that are remembered: they never change."""
_CLOCK_MS = 1_000
"""On SQLite, DBOS notes the beginning of a workflow in whole seconds."""
_ALIVE = {"PENDING", "ENQUEUED", "DELAYED"}
TheirBook = Callable[[], tuple[Sequence[Signature], str]]
"""The newest signatures of the online guestbook, or why it cannot be asked."""


@dataclass(frozen=True)
class Place:
    """How far the workflows were gone through, newest first."""

    time: str | None
    """That began at this time or before, ISO 8601; None for any time."""
    offset: int
    """So many of them were seen."""


NEWEST = Place(None, 0)


class WitnessAway(Exception):
    """DBOS's checkpoints cannot be read now; the text is one sentence."""


class Witnesses:
    """DBOS and the online guestbook, asked about accounts."""

    def __init__(self, system_reader: sa.Engine, their_book: TheirBook) -> None:
        # It asks once: a page cannot wait for a database as long as a workflow can.
        self._client = DBOSClient(
            system_database_engine=system_reader,
            serializer=DBOSPortableJSONSerializer(),
            lazy=True,
            retry_connection_errors=False,
            observability_query_timeout_sec=0,  # the reader has its own
        )
        self._their_book = their_book
        self._reserved: dict[tuple[str, int], Mapping[str, Any]] = {}

    def testify(self, accounts: Mapping[str, Account]) -> list[Fault]:
        """What they remember otherwise than the store has it.

        Raises:
            WitnessAway: the checkpoints cannot be read now.
        """
        with _away():
            return list(self._testify(accounts))

    def _testify(self, accounts: Mapping[str, Account]) -> Iterator[Fault]:
        dispatches = [dispatch_id(key) for key, account in accounts.items() if account.orders]
        workflows = self._workflows([*accounts, *dispatches])
        theirs, _ = self._their_book()
        looks = _LIVE_LOOKS
        for key, account in accounts.items():
            workflow = workflows.get(key)
            receipt = _receipt(account, workflow)
            if (
                workflow is not None
                and workflow.name == CHECKOUT
                and _speaks(account, workflow)
                and not receipt
                and looks
            ):
                looks -= (key, workflow.created_at) not in self._reserved
                receipt = self._reservation(workflow)
            if account.orders:
                yield from _faults_of_order(account, workflow, workflows.get(dispatch_id(key)), receipt)
            elif account.of("greeting_requests") or account.of("greetings"):
                yield from _faults_of_greeting(account, workflow, theirs)
            elif account.of("stock_movements", Movement.RESTOCK):
                yield from _faults_of_restock(account, workflow)
            elif account.of("refusals"):
                if workflow is None and not account.needs_no_witness:
                    yield account.fault("witnesses", "is refused, and no workflow has refused it")
            else:
                yield from _faults_of_nothing(account, workflow, receipt)

    def next_keys(self, after: Place, size: int) -> tuple[list[str], Place]:
        """The keys of the next `size` workflows, newest first, after a place; and the place then.

        After the oldest comes `NEWEST` again.

        Raises:
            WitnessAway: the checkpoints cannot be read now.
        """
        with _away():
            found = self._client.list_workflows(
                name=[CHECKOUT, GREETING, RESTOCK],
                end_time=after.time,
                offset=after.offset,
                sort_desc=True,
                limit=size,
                load_input=False,
                load_output=False,
            )
        keys = [each.workflow_id for each in found]
        if len(found) < size or found[-1].created_at is None:
            return keys, NEWEST
        # Several begin at the same time, which on SQLite is a whole second: the next look begins with that.
        time = _iso(found[-1].created_at)
        at_that_time = sum(each.created_at == found[-1].created_at for each in found)
        return keys, Place(time, at_that_time + (after.offset if time == after.time else 0))

    def begun_ms(self, ids: Iterable[str]) -> dict[str, int]:
        """When the workflows of these ids began, in ms since 1970; those that there are."""
        return {key: workflow.created_at or 0 for key, workflow in self._workflows(ids).items()}

    def _workflows(self, ids: Iterable[str]) -> dict[str, Any]:
        return workflows_of(self._client, ids, load_output=True)

    def _reservation(self, workflow: Any) -> Mapping[str, Any]:
        """What the first step of a checkout has returned, if that has; without its state."""
        run = (workflow.workflow_id, workflow.created_at)
        if run not in self._reserved:
            for step in self._client.list_workflow_steps(workflow.workflow_id, limit=1):
                if step["function_name"] == "reserve" and isinstance(step["output"], dict):
                    while len(self._reserved) >= _KEPT:
                        del self._reserved[next(iter(self._reserved))]
                    # Without its state, which was that of the beginning.
                    self._reserved[run] = {**step["output"], "status": None, "has_been_paid": False}
        return self._reserved.get(run, {})


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sa.exc.TimeoutError, error.DBOSQueryTimeoutError) as trouble:
        raise WitnessAway("The checkpoints of the workflows cannot be read now.") from trouble


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _speaks(account: Account, workflow: Any) -> bool:
    """Whether what a workflow remembers is about what the store has now.

    A run that began before the last time that the workflow was run again has come back with an older copy of
    the checkpoints: what it made was lost with an older copy of the store, and has been made again since.
    """
    return workflow is not None and (workflow.created_at or 0) + _CLOCK_MS >= account.run_again_ms


def _receipt(account: Account, workflow: Any) -> Mapping[str, Any]:
    """What a workflow returned at its end; nothing if it has not, or was of a shop that kept no receipts."""
    has_ended = _speaks(account, workflow) and workflow.status == "SUCCESS"
    output = workflow.output if has_ended else None
    return output if isinstance(output, dict) else {}


def _faults_of_order(
    account: Account, checkout: Any, dispatch: Any, receipt: Mapping[str, Any]
) -> Iterator[Fault]:
    order = account.orders[0]
    if checkout is None and dispatch is None:
        if not account.needs_no_witness:
            yield account.fault("witnesses", f"is {order.status}, and no workflow has ever made it")
        return
    for name, words, shown in (
        ("order_id", "the number", str),
        ("price_cents", "the price", price),
        ("pay_by_ms", "to be paid by", _time),
    ):
        remembered = receipt.get(name)
        if remembered and remembered != getattr(order, name):
            yield account.fault(
                "witnesses",
                f"has {words} {shown(getattr(order, name))}, and its workflow remembers {shown(remembered)}",
            )
    if receipt.get("has_been_paid") and Outcome.PAID not in account.notices:
        yield account.fault("notices", "was paid, as its workflow remembers, and nothing says so here")
    yield from _faults_of_ending(account, order, receipt, _receipt(account, dispatch))
    yield from _faults_of_standstill(account, order, checkout, dispatch)


def _faults_of_ending(
    account: Account, order: Any, receipt: Mapping[str, Any], dispatched: Mapping[str, Any]
) -> Iterator[Fault]:
    """Whether it has ended as its workflows say."""
    status = dispatched.get("status") or receipt.get("status")
    if status in {None, LOST, REFUSED}:
        return
    was_paid = status in {Status.PAID, Status.DISPATCHED}
    is_paid = order.status in {Status.PAID, Status.DISPATCHED}
    reason = receipt.get("reason")
    if was_paid != is_paid or (order.status == Status.CANCELLED and reason and reason != order.reason):
        yield account.fault(
            "witnesses",
            f"is {order.reason or order.status}, and its workflow remembers {reason or status}",
        )
    elif status == Status.DISPATCHED and dispatched and order.status != Status.DISPATCHED:
        yield account.fault("witnesses", f"is {order.status}, and its workflow remembers dispatched")


def _faults_of_standstill(account: Account, order: Any, checkout: Any, dispatch: Any) -> Iterator[Fault]:
    """Whether something is there that moves it on, if it is under way. That it is late is no fault."""
    checkout_runs = checkout is not None and checkout.status in _ALIVE
    dispatch_runs = dispatch is not None and dispatch.status in _ALIVE
    if order.status == Status.PENDING and not checkout_runs:
        yield account.fault("moves", "is pending, and its workflow has ended")
    elif order.status == Status.PAID and not (dispatch_runs or (dispatch is None and checkout_runs)):
        yield account.fault("moves", "is paid, and no workflow dispatches it")


def _faults_of_greeting(account: Account, workflow: Any, theirs: Sequence[Signature]) -> Iterator[Fault]:
    requests, greetings = account.of("greeting_requests"), account.of("greetings")
    if workflow is None and not account.needs_no_witness and (greetings or requests[0].outcome):
        yield account.fault("greetings", "has ended, and no workflow has ever made it")
    receipt = _receipt(account, workflow)
    numbers = {each.number for each in theirs}
    is_over_there = any(greeting.signature in numbers for greeting in greetings)
    for request in requests if receipt else ():
        yield from _faults_of_greeting_end(account, request, receipt, is_over_there=is_over_there)
    # Theirs shows its newest only. One that ends before ours is another book than we signed.
    for greeting in greetings:
        number, remembered = greeting.signature, receipt.get("signature")
        if remembered and remembered != number:
            yield account.fault(
                "greetings", f"has signature {number}, and its workflow remembers {remembered}"
            )
        if numbers and min(numbers) <= number <= max(numbers) and number not in numbers:
            yield account.fault("greetings", f"has signature {number}, which the online guestbook has not")


def _faults_of_greeting_end(
    account: Account, request: Any, receipt: Mapping[str, Any], *, is_over_there: bool
) -> Iterator[Fault]:
    """Whether it has ended as its workflow says."""
    if receipt["name"] != request.name:
        yield account.fault("greetings", f"is that of {receipt['name']}, as its workflow remembers")
    if receipt["outcome"] == request.outcome:
        if receipt["reason"] != request.reason:
            yield account.fault(
                "greetings", f"has ended otherwise, as its workflow remembers: {receipt['reason']}"
            )
    # Two runs may end it, one that gives it up and one that has signed: what is in both books is greeted.
    elif request.outcome != GreetingOutcome.GREETED or not is_over_there:
        yield account.fault(
            "greetings", f"is {request.outcome}, and its workflow remembers {receipt['outcome']}"
        )


def _faults_of_restock(account: Account, workflow: Any) -> Iterator[Fault]:
    if account.key == OPENING:
        return
    if workflow is None:
        if not account.needs_no_witness:
            yield account.fault("witnesses", "is there, and no workflow has ever made it")
        return
    units = sum(movement.units for movement in account.of("stock_movements", Movement.RESTOCK))
    if not _speaks(account, workflow):
        return
    if workflow.status == "SUCCESS" and isinstance(workflow.output, int) and workflow.output != units:
        yield account.fault("witnesses", f"was {units} units, and its workflow remembers {workflow.output}")


def _faults_of_nothing(account: Account, workflow: Any, receipt: Mapping[str, Any]) -> Iterator[Fault]:
    """What a workflow has made, and the store does not have."""
    if workflow is None:
        return
    key, has_ended = account.key, workflow.status == "SUCCESS"
    gone = "is remembered by its workflow, and is not here"
    if workflow.name == CHECKOUT and receipt.get("order_id"):
        yield Fault("lost", key, f"order {receipt['order_id']}", gone, receipt["order_id"])
    elif workflow.name == CHECKOUT and receipt.get("status") == REFUSED:
        yield account.fault("witnesses", "was refused, as its workflow remembers, and nothing says so here")
    elif workflow.name == GREETING and receipt.get("outcome"):
        yield Fault("greetings", key, f"the greeting of {receipt['name']}", gone)
    elif workflow.name == RESTOCK and has_ended and workflow.output:
        yield Fault("witnesses", key, f"a restock of {workflow.output} units", gone)


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(sep=" ", timespec="seconds")
