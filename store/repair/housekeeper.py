"""Housekeeping: closes the books as they fill, and removes checkpoints that have grown old.

Every server process does a round every ten seconds. Closing is a workflow, which runs only if anything is to
be sealed, so an idle shop writes nothing; two processes that close at once make one closing, because each
names the number that it wants. Removing is not undone by a crash: that the checkpoints of a closing are gone
is recorded before the first of them is, or the ledger would miss them, and a process begins by removing
again those of the last one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator

from dbos import DBOS, DBOSClient, SetWorkflowID

from store import workflows
from store.database import Databases
from store.durable import mendings_table, runtime
from store.durable.step_decorators import now_ms
from store.log_masking import mask
from store.reads.checkpoints import as_filter, workflows_of
from store.sealed_rows import SEALED
from store.settings import Settings
from store.statement_text import text
from store.vocabulary import CLOSING, MENDING, closing_id, dispatch_id, new_key

ENOUGH = 500
"""Rows of one table that may be sealed, before they are."""
_PAUSE_SECONDS = 10.0
_DAY_MS = 86_400_000
_BATCH = 100
"""Workflows whose checkpoints are removed by one transaction of DBOS's."""
_BREATH_SECONDS = 0.05
"""Between two of them, for those who wait to write."""
_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_COUNTS = " UNION ALL ".join(
    f"SELECT count(*) AS n FROM (SELECT 1 FROM {table.name}"  # noqa: S608 - ours
    f" WHERE {table.may_be_sealed} LIMIT :enough) AS {table.name}"
    for table in SEALED
)
_MOST_OPEN = f"SELECT max(n) FROM ({_COUNTS}) AS counts"  # noqa: S608 - ours
_LAST_CLOSING = "SELECT value FROM counters WHERE counter = 'closings'"
_LAST_REMOVED = "SELECT max(closing) FROM removed_checkpoints"
_OLD = "SELECT number FROM closings WHERE number = :number AND closed_at_ms < :before_ms"
_WORKFLOWS = """
SELECT payment_id AS id, 1 AS is_order FROM orders WHERE closing = :number
UNION ALL SELECT payment_id, 0 FROM refusals WHERE closing = :number
UNION ALL SELECT greeting_id, 0 FROM greeting_requests WHERE closing = :number
UNION ALL SELECT cause, 0 FROM stock_movements WHERE closing = :number AND kind = 'restock'
"""
_log = logging.getLogger("store")


class Housekeeper:
    """Keeps one shop in order, in one process."""

    def __init__(self, settings: Settings, databases: Databases) -> None:
        self._settings, self._databases = settings, databases
        self._is_last_one_removed = False

    def start(self) -> None:
        """Begin the rounds, in a thread that ends with the process. Once workflows run."""
        threading.Thread(target=self._go_round, name="housekeeper", daemon=True).start()

    def _go_round(self) -> None:
        client = runtime.client_of(self._settings, self._databases.system)
        while True:
            time.sleep(_PAUSE_SECONDS)
            try:
                close_books(self._databases)
                self.remove_old_checkpoints(client)
            except Exception as trouble:  # noqa: BLE001 - whatever it was, this round is not the last
                _log.warning("the house was not kept: %s", mask(f"{type(trouble).__name__}: {trouble}"))

    def remove_old_checkpoints(self, client: DBOSClient) -> None:
        """Have DBOS forget the workflows of what was sealed long ago, and its own old housekeeping."""
        if not self._settings.keep_checkpoints_days:
            return
        before_ms = now_ms() - self._settings.keep_checkpoints_days * _DAY_MS
        last = int(self._value(_LAST_REMOVED))
        if last and not self._is_last_one_removed:  # by a process that may have died over it
            self._remove(client, last)
        self._is_last_one_removed = True
        while self._value(_OLD, number=last + 1, before_ms=before_ms):
            last += 1
            self._is_last_one_removed = False
            mendings_table.record_removed_checkpoints(last)
            self._remove(client, last)
            self._is_last_one_removed = True
        self._remove_old_chores(client, before_ms)

    def _remove(self, client: DBOSClient, closing: int) -> None:
        """Of an order both workflows or none: a child is not removed while its parent is under way."""
        with self._databases.reader.connect() as connection:
            rows = list(connection.execute(text(_WORKFLOWS), {"number": closing}))
        families = [(row.id, dispatch_id(row.id)) if row.is_order else (row.id,) for row in rows]
        for batch in _in_batches(families):
            known = workflows_of(client, [each for family in batch for each in family])
            is_under_way = {each for each, workflow in known.items() if workflow.status not in _ENDED}
            self._forget(
                client,
                [
                    each
                    for family in batch
                    if is_under_way.isdisjoint(family)
                    for each in family
                    if each in known
                ],
            )

    def _remove_old_chores(self, client: DBOSClient, before_ms: int) -> None:
        before = as_filter(before_ms)
        while found := client.list_workflows(
            name=[CLOSING, MENDING],
            status=_ENDED,
            completed_before=before,
            end_time=before,  # they began before that, too: for this there is an index
            limit=_BATCH,
            load_input=False,
            load_output=False,
        ):
            self._forget(client, [each.workflow_id for each in found])

    def _forget(self, client: DBOSClient, workflow_ids: list[str]) -> None:
        if workflow_ids:
            client.delete_workflows(workflow_ids)
            time.sleep(_BREATH_SECONDS)

    def _value(self, statement: str, **values: int) -> int:
        with self._databases.reader.connect() as connection:
            return int(connection.execute(text(statement), values).scalar() or 0)


def close_books(databases: Databases, enough: int = ENOUGH) -> int:
    """Close the books until every table has less than `enough` rows to seal; how many closings that took."""
    made = 0
    while True:
        with databases.reader.connect() as connection:
            if int(connection.execute(text(_MOST_OPEN), {"enough": enough}).scalar_one()) < enough:
                return made
            number = int(connection.execute(text(_LAST_CLOSING)).scalar_one()) + 1
        with SetWorkflowID(closing_id(new_key())):
            sealed = DBOS.start_workflow(workflows.close_books, number).get_result()
        made += bool(sealed)


def _in_batches(families: Iterable[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
    rest = list(families)
    for first in range(0, len(rest), _BATCH // 2):
        yield rest[first : first + _BATCH // 2]
