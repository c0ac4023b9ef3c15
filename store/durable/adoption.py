"""Adoption: a server process takes up the workflows that another one has left.

Each process is an executor of its own, and DBOS takes up, by itself, only what the same executor has left.
Here an executor that finds that another has ended claims its row, and then takes up its workflows by public
calls: see `executors_table`. `DBOS.resume_workflows` asks nobody, and takes up what runs elsewhere, too: so
nothing is resumed without that claim. What is resumed waits on a queue that every living executor looks at.
A workflow of another application version waits there until a process of that version comes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient
from sqlalchemy.orm import Session

from store.database import Databases
from store.durable import executors_table
from store.durable.executors_table import Executor, Left, Waiting
from store.log_masking import mask
from store.vocabulary import CHECKOUT, DISPATCH, GREETING, order_of_dispatch

QUEUE = "adopted"
"""On which workflows wait, for a moment, to be taken up."""
_POLL_SECONDS = 0.05
"""Between two looks at the queue while there is something to take up; DBOS comes to it little by little."""
_IDLE_POLL_SECONDS = 1.0
_LOOK_SECONDS = 0.05
"""Between two looks at whether all are taken up."""
_SECOND_LOOK_SECONDS = 10.0
_LATER_LOOKS_SECONDS = 60.0
AT_ONCE = 50
"""Workflows that are put on the queue together. A thousand that begin in one moment keep each other from the
processor, and those who buy. What ticks goes first, by itself; what waits for its payment, a little later."""
_FIRST = (DISPATCH, GREETING, CHECKOUT)
"""Which kind goes before which."""
_LONGEST_BATCH_SECONDS = 1.0
"""Until the next ones are put on the queue. DBOS looks at one that was idle once a second at first."""
_LONGEST_LAUNCH_SECONDS = 3.0
"""The same after the launch: DBOS begins to look at the queue only then, on a machine that may be busy."""
_AGAIN_SECONDS = 1.0
_log = logging.getLogger("store")


class Adopter:
    """Takes up, for one executor, what others leave."""

    def __init__(
        self,
        executor: Executor,
        client: DBOSClient,
        databases: Databases,
        version: str,
        may_act: Callable[[], bool],
    ) -> None:
        self._executor, self._client, self._may_act = executor, client, may_act
        self._version = version
        self._store, self._checkpoints = databases.store, databases.system
        self._is_wanted = threading.Event()

    def before_launch(self) -> None:
        """Take up what is left already, so that DBOS, which is launched next, finds it on the queue at once.

        Before the very first launch there are no tables, and nothing to take up.
        """
        try:
            schema = None if self._checkpoints.dialect.name == "sqlite" else "dbos"
            with self._checkpoints.connect() as connection:
                has_queues = sa.inspect(connection).has_table("queues", schema=schema)
            if has_queues:  # with that connection given back: on SQLite there is one
                self._look_at_queue_every(_IDLE_POLL_SECONDS)
                self._adopt()
        except Exception as trouble:  # noqa: BLE001 - then it is done once DBOS is launched
            _log.info("not taken up before the launch: %s", mask(f"{type(trouble).__name__}: {trouble}"))

    def begin(self) -> None:
        """Take up what others leave whenever that is wanted, in a thread, and now; once DBOS is launched."""
        self._is_wanted.set()
        threading.Thread(target=self._go_on, name="adoption", daemon=True).start()

    def want(self) -> None:
        """Have a look taken, in that thread."""
        self._is_wanted.set()

    def _go_on(self) -> None:
        look_again_at, is_first = time.monotonic() + _SECOND_LOOK_SECONDS, True
        while True:
            self._is_wanted.wait(max(0, look_again_at - time.monotonic()))
            try:
                if is_first:
                    # DBOS takes all that is on the queue together: the rest waits until the first have begun.
                    is_first = False
                    self._wait_until_all_are_taken_up(_LONGEST_LAUNCH_SECONDS, or_wanted=False)
                while self._adopt():
                    look_again_at = min(look_again_at, time.monotonic() + _SECOND_LOOK_SECONDS)
                    self._wait_until_all_are_taken_up(_LONGEST_BATCH_SECONDS)
                self._wait_until_all_are_taken_up(_SECOND_LOOK_SECONDS)
                # To look costs the same where nothing is to be found: an idle shop does it seldom.
                self._look_at_queue_every(_IDLE_POLL_SECONDS)
                if time.monotonic() >= look_again_at:
                    self._take_up_orphans()
                    look_again_at = time.monotonic() + _LATER_LOOKS_SECONDS
            except Exception as trouble:  # noqa: BLE001 - whatever it was, they must not be left
                _log.warning("not taken up yet: %s", mask(f"{type(trouble).__name__}: {trouble}"))
                time.sleep(_AGAIN_SECONDS)
                self._is_wanted.set()

    def _adopt(self) -> bool:
        """Take up what those have left whom nobody has adopted, as much of it as goes at once.

        Whether there was anybody. What is left over stays claimed, and is taken up the next time.
        """
        self._is_wanted.clear()
        claims = executors_table.claim(self._executor.number)
        if not claims:
            return False
        under_way = self._list("PENDING", executor_id=[claim.executor_id for claim in claims])
        waiting = _orders_and_greetings(self._list("ENQUEUED", queue_name=QUEUE))
        in_order = sorted(under_way, key=_rank)
        ticking = [each for each in in_order if each.name == DISPATCH]
        at_once = (ticking or in_order)[:AT_ONCE]
        left = [
            Left(
                claim.number,
                claim.had_claimed,
                *_orders_and_greetings(each for each in at_once if each.executor_id == claim.executor_id),
            )
            for claim in claims
        ]
        executors_table.record_takeovers(left, Waiting(*waiting))
        self._resume([each.workflow_id for each in at_once])
        if len(at_once) == len(in_order):
            executors_table.record_adoption(self._executor.number)
        return True

    def _take_up_orphans(self) -> None:
        """Take up what belongs to nobody.

        What an executor began while it was ending already; and after an older copy was restored, of the store
        what executors have that it does not know, or of the checkpoints what was taken up before.
        """
        with Session(self._store) as session, session.begin():
            executors_table.take_turns(session)
            # Before the executors are read: what runs by now belongs to one that has a row.
            under_way = self._list("PENDING")
            in_hand = executors_table.in_hand(session)
            self._resume([each.workflow_id for each in under_way if each.executor_id not in in_hand])

    def _list(self, status: str, **more: Any) -> list[Any]:
        return self._client.list_workflows(status=status, load_input=False, load_output=False, **more)

    def _resume(self, workflow_ids: list[str]) -> None:
        if workflow_ids:
            if not self._may_act():  # frozen meanwhile, and others may have claimed them from us
                raise RuntimeError("the lease is over")
            self._look_at_queue_every(_POLL_SECONDS)
            self._client.resume_workflows(workflow_ids, queue_name=QUEUE)

    def _look_at_queue_every(self, seconds: float) -> None:
        self._client.register_queue(QUEUE, polling_interval_sec=seconds)

    def _wait_until_all_are_taken_up(self, longest_seconds: float, *, or_wanted: bool = True) -> None:
        # While anything is left, each sign of life wants more of it.
        deadline = time.monotonic() + longest_seconds
        while self._is_any_waiting() and time.monotonic() < deadline:
            if or_wanted and self._is_wanted.is_set():
                return
            time.sleep(_LOOK_SECONDS)

    def _is_any_waiting(self) -> bool:
        # Those of another version stay on the queue until a process of that version comes.
        return bool(self._list("ENQUEUED", queue_name=QUEUE, app_version=self._version, limit=1))


def _rank(workflow: Any) -> int:
    """Where it stands among those to be taken up; a restock, which is over at once, is among the first."""
    return _FIRST.index(workflow.name) if workflow.name in _FIRST else 0


def _orders_and_greetings(found: Iterable[Any]) -> tuple[frozenset[str], frozenset[str]]:
    """The payment ids and the greeting ids that these workflows are of."""
    ids: dict[str, set[str]] = defaultdict(set)
    for each in found:
        ids[each.name].add(each.workflow_id)
    orders = ids[CHECKOUT] | {order_of_dispatch(each) for each in ids[DISPATCH]}
    return frozenset(orders), frozenset(ids[GREETING])
