"""The sweep: a walk through every workflow that DBOS knows of, for what the store has lost or owes."""

from __future__ import annotations

import sqlalchemy as sa
from dbos import DBOSClient

from store.reads.checkpoints import NEWEST, newest_first
from store.repair import owed_money, restored_store
from store.repair.stuck_rules import BATCH, Stuck
from store.vocabulary import CHECKOUT, GREETING, RESTOCK


class Sweep:
    """One walk, newest first, a batch at a time.

    However large the shop has grown, whoever walks may pause after each of them and do other things.
    """

    def __init__(self) -> None:
        self._left = [CHECKOUT, GREETING, RESTOCK]
        self._place = NEWEST
        self._found: dict[str, Stuck] = {}
        self.has_begun = self.is_over = False

    @property
    def found(self) -> list[Stuck]:
        """On all of the walk so far, each workflow once."""
        return list(self._found.values())

    def go_on(self, store: sa.Connection, client: DBOSClient) -> list[Stuck]:
        """What is stuck of the next batch. One that could not be looked at is the next one again."""
        self.has_begun = True
        new = []
        for each in self._look(store, client):
            if each.workflow_id not in self._found:
                self._found[each.workflow_id] = each
                new.append(each)
        return new

    def _look(self, store: sa.Connection, client: DBOSClient) -> list[Stuck]:
        if not self._left:
            found = list(restored_store.find_half_mended(store, client))
            self.is_over = True
            return found
        name = self._left[0]
        batch, place = newest_first(client, [name], self._place, BATCH)
        # What the store has lost comes first: it knows the outcome of its payment.
        found = list(restored_store.find_of(store, client, batch)) if batch else []
        if name == CHECKOUT and batch:
            found += owed_money.find_sealed(store, [each.workflow_id for each in batch])
        self._place = place
        if place == NEWEST:
            del self._left[0]
        return found


def find(store: sa.Connection, client: DBOSClient) -> list[Stuck]:
    """What a whole walk finds."""
    sweep = Sweep()
    while not sweep.is_over:
        sweep.go_on(store, client)
    return sweep.found
