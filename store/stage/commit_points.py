"""Points of the shop's work: before or after the commit of one transaction, and what looks out for them.

A transaction is known by the statement that only it makes. Nothing of the shop or of DBOS is replaced:
listeners look at what goes to the databases, and at once away while nothing is wanted of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from store.durable import adoption
from store.durable.runtime import APPLICATION_VERSION

Recognise = Callable[[str, set[Any]], bool]


def _inserts_into(table: str) -> Recognise:
    # In a schema, where there is one.
    into = re.compile(rf"INSERT\s+INTO\s+(?:\S*[.\s])?{table}\b")
    return lambda statement, _: into.match(statement.lstrip()) is not None


def _begins(*words: str) -> Recognise:
    return lambda statement, _: tuple(statement.split(maxsplit=len(words))[: len(words)]) == words


_TRANSACTIONS: Mapping[str, Recognise] = {
    "reserve": _inserts_into("orders"),
    "charge": lambda statement, _: "SET status = 'paid'" in statement,
    "cancel": lambda statement, _: "SET status = 'cancelled'" in statement,
    "the notice of the payment": _inserts_into("payment_notices"),
    "the payment message": _inserts_into("notifications"),
    "the event that it is settled": lambda statement, values: (
        _inserts_into("workflow_events")(statement, values) and "settled" in values
    ),
    # What a start after a crash does, in this order: it is noted, it claims what others have left, puts each
    # of those workflows on a queue, notes that it has, and DBOS takes them off again to run them.
    "the record of the start": _inserts_into("executors"),
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
    """How the transaction of this name is known by one of its statements and the values in it.

    Raises:
        KeyError: there is none of that name.
    """
    if tick := re.fullmatch(r"tick (\d+)", name):
        number, advances = int(tick[1]), _begins("UPDATE", "orders", "SET", "progress")
        return lambda statement, values: number in values and advances(statement, values)
    if checkpoint := re.fullmatch(r"the checkpoint of (.+)", name):
        return lambda statement, values: "operation_outputs" in statement and checkpoint[1] in values
    if start := re.fullmatch(r"the start of (.+)", name):
        return lambda statement, values: (
            _inserts_into("workflow_status")(statement, values) and start[1] in values
        )
    if end := re.fullmatch(r"the end of (.+)", name):
        ends_in_dispatch = end[1] == "dispatch"
        return lambda statement, values: (
            re.search(r"UPDATE \S*workflow_status", statement) is not None
            # What stops others' workflows, or puts them on a queue, names all ends, to leave those alone.
            and {"SUCCESS", "PENDING"} <= values
            and "ERROR" not in values
            and _kinds_in(values) == ({"dispatch"} if ends_in_dispatch else set())
        )
    return _TRANSACTIONS[name]


def _kinds_in(values: set[Any]) -> set[str]:
    """What follows the dot in the ids of workflows among these values. A checkout's has no dot."""
    found = (re.fullmatch(r"[\w-]+\.([a-z]+)", str(value)) for value in values)
    return {each[1] for each in found if each}


class Lookout:
    """Calls `die` with a point whenever this process comes to one that is wanted, in the thread that does.

    A point is `before commit of` or `after commit of` a transaction, by its name. There is one set of
    listeners, put on once: to put some on or take some off while other threads are at work breaks what those
    are doing.
    """

    def __init__(self, die: Callable[[str], None]) -> None:
        self._die = die
        self._wanted: tuple[_Wanted, ...] = ()
        """Replaced as one."""

    def install(self) -> None:
        """Look at every engine of this process from now on."""
        for name, listener in (
            ("before_cursor_execute", self._notice),
            ("after_cursor_execute", self._notice_end),
            ("commit", self._notice_commit),
            ("rollback", self._notice_rollback),
            ("handle_error", self._notice_error),
        ):
            event.listen(sa.Engine, name, listener)
        event.listen(sa.Pool, "checkin", self._notice_return)

    def want(self, points: Mapping[str, str]) -> None:
        """Look out for these points and for no other; of each, for one key alone, or any where that is empty.

        Raises:
            ValueError: one of them is none.
        """
        self._wanted = tuple(_Wanted.of(point, key) for point, key in points.items())

    def _notice(
        self,
        connection: sa.Connection,
        _cursor: Any,
        statement: str,
        parameters: Any,
        _context: Any,
        executemany: bool,  # noqa: FBT001 - as SQLAlchemy calls it
    ) -> None:
        # WITH: on Postgres, DBOS ends a workflow in one statement of several parts.
        if not self._wanted or not statement.lstrip().startswith(("INSERT", "UPDATE", "WITH")):
            return
        values = _values(parameters if executemany else [parameters])
        for wanted in self._wanted:
            if wanted.is_the_one(statement, values):
                connection.info.setdefault(_SEEN, []).append(wanted)
                if wanted.moment == "before" and _commits_by_itself(connection):
                    self._die(wanted.point)

    def _notice_end(self, connection: sa.Connection, *_: Any) -> None:
        if self._wanted and _SEEN in connection.info and _commits_by_itself(connection):
            for wanted in connection.info.pop(_SEEN):
                self._die(wanted.point)

    def _notice_commit(self, connection: sa.Connection) -> None:
        # It is called just before. After it, the connection goes back to its pool, and holds no lock.
        if connection.invalidated or _SEEN not in connection.info:
            return
        seen = connection.info.pop(_SEEN)
        for wanted in seen:
            if wanted.moment == "before":
                self._die(wanted.point)
        connection.info[_COMMITTED] = seen

    def _notice_rollback(self, connection: sa.Connection) -> None:
        if not connection.invalidated:  # whose notes are gone with it
            for note in (_SEEN, _COMMITTED):
                connection.info.pop(note, None)

    def _notice_error(self, context: sa.ExceptionContext) -> None:
        # A COMMIT that fails is followed by no rollback.
        if context.connection is not None:
            self._notice_rollback(context.connection)

    def _notice_return(self, connection: Any, record: Any) -> None:
        record.info.pop(_SEEN, None)
        for wanted in record.info.pop(_COMMITTED, ()):
            if connection is not None:
                self._die(wanted.point)


@dataclass(frozen=True)
class _Wanted:
    point: str
    moment: str
    recognise: Recognise
    key: str

    @classmethod
    def of(cls, point: str, key: str) -> _Wanted:
        words = re.fullmatch(r"(before|after) commit of (.+)", point)
        if words is None:
            raise ValueError(f"not a point: {point}")
        return cls(point, words[1], recognise(words[2]), key)

    def is_the_one(self, statement: str, values: set[Any]) -> bool:
        return (not self.key or self.key in values) and self.recognise(statement, values)


def _values(rows: Iterable[Any]) -> set[Any]:
    """All that a statement is given, for every row that it is executed for."""
    given = (row.values() if isinstance(row, Mapping) else row for row in rows)
    return {value for values in given for value in values if isinstance(value, Hashable)}


_SEEN, _COMMITTED = "crash points seen", "crash points committed"
"""What is noted on a connection between these events."""


def _commits_by_itself(connection: sa.Connection) -> bool:
    """Whether each statement is a transaction of its own: DBOS ends a workflow so on Postgres."""
    return getattr(connection.connection.driver_connection, "autocommit", False) is True
