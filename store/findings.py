"""Owns what is said of stuck work, and what is asked of its checkpoints to say it.

Imports `steps` and `vocabulary`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dbos import DBOSClient

from store.steps import now_ms
from store.vocabulary import Outcome, dispatch_id

MARGIN_MS = 20_000
"""What should have moved this long ago is stuck, if the shop was well all the while."""
BATCH = 500


@dataclass(frozen=True)
class Terms:
    """What tells stuck from late."""

    calm_ms: int
    """How long the shop has been up and its database well."""
    tick_ms: int
    version: str
    """Of the application: workflows of another are run by nobody."""

    @property
    def late_before_ms(self) -> int:
        """What was due before this time, in ms since 1970, should have been done."""
        return now_ms() - MARGIN_MS if self.calm_ms > MARGIN_MS else 0


@dataclass(frozen=True)
class Stuck:
    """One workflow that will not come to its end by itself."""

    workflow_id: str
    workflow_name: str
    arguments: tuple[Any, ...]
    """What it is run again with."""
    order_id: int | None
    """Of its order, if it has one."""
    subject: str
    """What it is for people: "order 7", "a greeting"."""
    since_ms: int
    """When it should have moved, in ms since 1970."""
    why: str
    """One sentence, for everybody."""
    detail: str = ""
    """The error that its workflow ended with, for operators."""
    tries: int = 0
    """How often it was run again before."""
    outcome: str | None = None
    """What its checkpoints know of the payment of an order that is lost, an `Outcome`."""
    with_it: tuple[str, ...] = ()
    """Other workflows that are forgotten with it, because it starts them anew."""


def workflows_of(client: DBOSClient, ids: Iterable[str], *, load_output: bool = False) -> dict[str, Any]:
    """The workflows of these ids that there are, with what they returned if that is wanted."""
    wanted = list(ids)
    found: dict[str, Any] = {}
    for first in range(0, len(wanted), BATCH):
        batch = wanted[first : first + BATCH]
        for each in client.list_workflows(workflow_ids=batch, load_input=False, load_output=load_output):
            found[each.workflow_id] = each
    return found


def outcome_heard(client: DBOSClient, payment_id: str) -> str | None:
    """What the checkpoints of a checkout remember of its payment, should the store have forgotten it."""
    if workflows_of(client, [dispatch_id(payment_id)]):
        return Outcome.PAID
    heard: str | None = None
    for step in client.list_workflow_steps(payment_id):
        if step["function_name"] == "settle" and step["output"] and step["output"].get("first_outcome"):
            return str(step["output"]["first_outcome"])  # the message only wakes; this decided
        if step["function_name"] == "DBOS.recv" and step["output"] in set(Outcome):
            heard = str(step["output"])
    return heard
