"""How a change becomes a durable step.

A step is checkpointed by DBOS: once it is recorded, a replay takes its result and does not run it again. A
step that commits and dies before its checkpoint does run again, so what it does must be guarded by the
state that it leaves; `workflows.py` says how.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSPortableJSONSerializer, SQLAlchemyDatasource, StepOptions
from sqlalchemy.orm import Session

from store.process_wide import ProcessWide

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class _Bound:
    """Where the steps write."""

    datasource: SQLAlchemyDatasource
    isolation_level: Any


_bound: ProcessWide[_Bound] = ProcessWide("the database that the steps write to")


def bind(datasource: SQLAlchemyDatasource) -> None:
    """Give the steps the database to write to, before DBOS is launched."""
    # Buyers meet on one product row. A guarded one-statement UPDATE is right under READ
    # COMMITTED and does not make them retry; SQLite has one writer and knows only SERIALIZABLE.
    on_sqlite = datasource.engine.dialect.name == "sqlite"
    _bound.set(_Bound(datasource, "SERIALIZABLE" if on_sqlite else "READ COMMITTED"))


def bind_to(url: str, engine: sa.Engine) -> None:
    """The same, of a database that is open; what a step returns is kept as JSON."""
    bind(SQLAlchemyDatasource.create(url, engine=engine, serializer=DBOSPortableJSONSerializer()))


def transaction(name: str) -> Callable[[Callable[Concatenate[Session, P], R]], Callable[P, R]]:
    """Make a change into a step of that name, which runs it as one transaction.

    The transaction is a plain one inside a checkpointed step: three database transactions in
    all, where DBOS's own checkpointed kind takes five.
    """

    def decorate(change: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
        @wraps(change)
        def run_as_step(*args: P.args, **kwargs: P.kwargs) -> R:
            return step(name, lambda: commit(change, *args, **kwargs))

        return run_as_step

    return decorate


def plain_transaction(change: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Make a change into one transaction that is no step: a request runs it, and no workflow."""

    @wraps(change)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return commit(change, *args, **kwargs)

    return run


def step(name: str, work: Callable[[], R]) -> R:
    """Do `work` as a step.

    An error of a database that passes is waited out, without end: see `database_errors.passes`. Any other is
    retried for some minutes, and then ends the workflow; `app.py stuck` shows it.
    """
    options: StepOptions = {
        "name": str(name),  # what is recorded is a plain text, whatever names it here
        "retries_allowed": True,
        "interval_seconds": 0.1,
        "backoff_rate": 2.0,
        "max_attempts": 12,
    }
    return DBOS.run_step(options, work)


def commit(change: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a change as one transaction, within a step."""
    bound = _bound()
    return bound.datasource.run_tx_step(
        {"isolation_level": bound.isolation_level},
        lambda: change(bound.datasource.sql_session(), *args, **kwargs),
    )


def now_ms() -> int:
    """Whole milliseconds since 1970 in UTC, as the schema keeps times."""
    return time.time_ns() // 1_000_000
