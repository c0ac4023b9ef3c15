"""The witnesses of an account: evidence that the store's own tables cannot give.

There are two. DBOS keeps a workflow for each order, restock and greeting, with what it was started with and
what it returned at its end: its receipt, a value of `outcomes`. And the online guestbook, somebody else's,
has its own book. Whoever changes the store's tables by hand changes neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from store.clients.guestbook import Signature
from store.ledger import witness_rules
from store.ledger.accounts import Account, Fault
from store.reads.checkpoints import AWAY, Place, newest_first, reading_client, workflows_of
from store.vocabulary import (
    CHECKOUT,
    GREETING,
    RESTOCK,
    Movement,
    dispatch_id,
)

_LIVE_LOOKS = 200
_KEPT = 10_000
"""Receipts of `reserve` that are remembered: they never change."""
TheirBook = Callable[[], tuple[Sequence[Signature], str]]
"""The newest signatures of the online guestbook, or why it cannot be asked."""


class WitnessAway(Exception):
    """DBOS's checkpoints cannot be read now; the text is one sentence."""


class Witnesses:
    """DBOS and the online guestbook, asked about accounts."""

    def __init__(self, system_reader: sa.Engine, their_book: TheirBook) -> None:
        self._client = reading_client(system_reader)
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
            receipt = witness_rules.receipt_of(account, workflow)
            if (
                workflow is not None
                and workflow.name == CHECKOUT
                and witness_rules.speaks(account, workflow)
                and not receipt
                and looks
            ):
                looks -= (key, workflow.created_at) not in self._reserved
                receipt = self._reservation(workflow)
            if account.orders:
                yield from witness_rules.faults_of_order(
                    account, workflow, workflows.get(dispatch_id(key)), receipt
                )
            elif account.of("greeting_requests") or account.of("greetings"):
                yield from witness_rules.faults_of_greeting(account, workflow, theirs)
            elif account.of("stock_movements", Movement.RESTOCK):
                yield from witness_rules.faults_of_restock(account, workflow)
            elif account.of("refusals"):
                if workflow is None and not account.needs_no_witness:
                    yield account.fault("witnesses", "is refused, and no workflow has refused it")
            else:
                yield from witness_rules.faults_of_nothing(account, workflow, receipt)

    def next_keys(self, after: Place, size: int) -> tuple[list[str], Place]:
        """The keys of the next `size` workflows, newest first, after a place; and the place then.

        Raises:
            WitnessAway: the checkpoints cannot be read now.
        """
        with _away():
            found, place = newest_first(self._client, [CHECKOUT, GREETING, RESTOCK], after, size)
        return [each.workflow_id for each in found], place

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
    except AWAY as trouble:
        raise WitnessAway("The checkpoints of the workflows cannot be read now.") from trouble
