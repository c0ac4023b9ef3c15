"""The shop, with an appointment: it kills itself with SIGKILL at one named point.

    python -m tests.crash.mortal "after commit of charge"

A point is `before` or `after` the commit of one database transaction, which is recognised by
the statement that only it makes. Nothing of the shop or of DBOS is replaced: the listeners
look at what goes to the database, and die. Whoever asks for a point that is never reached
finds the process alive.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from store.durable import adoption
from store.durable.runtime import APPLICATION_VERSION

Recognise = Callable[[str, set[Any]], bool]

_TRANSACTIONS: Mapping[str, Recognise] = {
    "reserve": lambda statement, _: "INSERT INTO orders" in statement,
    "charge": lambda statement, _: "INSERT INTO payments" in statement,
    "cancel": lambda statement, _: "SET status = 'cancelled'" in statement,
    "the notice of the payment": lambda statement, _: "INSERT INTO payment_notices" in statement,
    "the payment message": lambda statement, _: (
        re.match(r"INSERT INTO \S*notifications", statement) is not None
    ),
    "the news that it is settled": lambda statement, values: (
        re.match(r"\s*INSERT INTO \S*workflow_events ", statement) is not None and "settled" in values
    ),
    # What a start after a crash does, in this order: it is noted, it claims what others have left, puts each
    # of those workflows on a queue, notes that it has, and DBOS takes them off again to run them.
    "the record of the start": lambda statement, _: "INSERT INTO executors" in statement,
    "the recovery": lambda statement, values: (
        "workflow_status" in statement and {"ENQUEUED", adoption.QUEUE} <= values
    ),
    "the claim": lambda statement, _: "SET adopted_by" in statement,
    "the record of the adoption": lambda statement, _: "SET adopted_at_ms" in statement,
    "the taking up": lambda statement, values: (
        "workflow_status" in statement and {"PENDING", "ENQUEUED", APPLICATION_VERSION} <= values
    ),
}


def recognise(name: str) -> Recognise:
    """How the transaction of this name is known by one of its statements."""
    if tick := re.fullmatch(r"tick (\d+)", name):
        number = int(tick[1])
        return lambda statement, values: "SET progress" in statement and number in values
    if checkpoint := re.fullmatch(r"the checkpoint of (.+)", name):
        return lambda statement, values: "operation_outputs" in statement and checkpoint[1] in values
    if start := re.fullmatch(r"the start of (.+)", name):
        return lambda statement, values: (
            re.match(r"\s*INSERT INTO \S*workflow_status", statement) is not None and start[1] in values
        )
    if end := re.fullmatch(r"the end of (.+)", name):
        ends_in_dispatch = end[1] == "dispatch"
        return lambda statement, values: (
            re.search(r"UPDATE \S*workflow_status", statement) is not None
            and "SUCCESS" in values
            and any(str(value).endswith(".dispatch") for value in values) == ends_in_dispatch
        )
    return _TRANSACTIONS[name]


class Appointment:
    """Dies at `point`, the first time that this process comes there."""

    def __init__(self, point: str) -> None:
        words = re.fullmatch(r"(before|after) commit of (.+)", point)
        assert words, f"not a point: {point}"
        self._point, self._moment, self._is_the_one = point, words[1], recognise(words[2])
        event.listen(sa.Engine, "before_cursor_execute", self._notice)
        event.listen(sa.Engine, "after_cursor_execute", self._keep_by_itself)
        event.listen(sa.Engine, "commit", self._keep)
        event.listen(sa.Engine, "rollback", self._forget)

    def _die(self) -> None:
        os.write(1, f"dying {self._point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def _notice(
        self, connection: sa.Connection, _cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        # WITH: on Postgres, DBOS ends a workflow in one statement of several parts.
        if not statement.lstrip().startswith(("INSERT", "UPDATE", "WITH")):
            return
        values = parameters.values() if isinstance(parameters, Mapping) else parameters
        if self._is_the_one(statement, set(values)):
            connection.info["doomed"] = True
            if commits_by_itself(connection) and self._moment == "before":
                self._die()

    def _keep_by_itself(self, connection: sa.Connection, *_: Any) -> None:
        if connection.info.get("doomed") and commits_by_itself(connection):
            self._die()

    def _keep(self, connection: sa.Connection) -> None:
        if not connection.info.pop("doomed", False):
            return
        if self._moment == "before":
            self._die()
        mine, commit = threading.get_ident(), connection.dialect.do_commit

        def commit_and_die(dbapi_connection: Any) -> None:
            commit(dbapi_connection)
            if threading.get_ident() == mine:
                self._die()

        connection.dialect.do_commit = commit_and_die  # type: ignore[method-assign]

    def _forget(self, connection: sa.Connection) -> None:
        connection.info.pop("doomed", None)


def commits_by_itself(connection: sa.Connection) -> bool:
    """Whether each statement is a transaction of its own: DBOS ends a workflow so on Postgres."""
    return getattr(connection.connection.driver_connection, "autocommit", False) is True


if __name__ == "__main__":
    Appointment(sys.argv.pop(1))

    import app

    sys.argv.append("server")
    app.main()
