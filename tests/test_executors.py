"""The record of the server processes: each is one executor, however often its start is told."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import schema
from store.durable import executors_table, mendings_table, statements
from store.durable.executors_table import Identity
from store.durable.statements import now_ms_of_database
from store.settings import Settings
from tests.conftest import NewUrl
from tests.support.tables import Tables


def test_a_start_that_is_recorded_again_is_one_start(new_url: NewUrl) -> None:
    """As after a commit whose answer was lost; two of one name, process id and moment are two."""
    url = new_url()
    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": url}))
    try:

        def record(token: str) -> int:
            with Session(databases.store) as session, session.begin():
                return executors_table._record_start(session, Identity("here", 11, token, None), 5).number

        assert [record("a"), record("a"), record("b"), record("c"), record("b")] == [1, 1, 2, 3, 2]
    finally:
        databases.close()
    assert Tables(url).rows("SELECT number, executor_id, pid FROM executors ORDER BY number") == [
        (1, "here-1", 11),
        (2, "here-2", 11),
        (3, "here-3", 11),
    ]
    assert Tables(url).rows("SELECT value FROM counters WHERE counter = 'executors'") == [(3,)]


def test_of_two_that_adopt_one_gets_what_was_left(new_url: NewUrl) -> None:
    """By its claim. When that one has ended before it adopted, its claim is another one's to take."""
    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": new_url()}))
    try:
        with Session(databases.store) as session, session.begin():
            for token in ("left", "first", "second"):
                executors_table._record_start(session, Identity("here", 11, token, None), 5)
            # On SQLite a start is the end of whoever was there before.
            session.execute(sa.text("UPDATE executors SET ended_at_ms = NULL, how_ended = NULL"))

            def end(number: int) -> None:
                statement = "UPDATE executors SET ended_at_ms = 1, how_ended = 'died' WHERE number = :number"
                session.execute(sa.text(statement), {"number": number})

            def claimed_by(number: int) -> list[int]:
                return [each.number for each in executors_table._claim(session, number)]

            end(1)
            assert [claimed_by(2), claimed_by(3)] == [[1], []]
            end(2)
            assert claimed_by(3) == [1, 2]
    finally:
        databases.close()


def test_a_mending_is_dated_by_the_clock_that_dates_workflows(
    new_url: NewUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Postgres that is the database's: with one of ours ahead, what was run again would never speak."""
    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": new_url()}))
    try:
        if databases.store.dialect.name == "postgresql":
            monkeypatch.setattr(statements, "now_ms", lambda: 10**15)
        with Session(databases.store) as session, session.begin():
            assert mendings_table._record_mending(session, "one", "It stood still.") == 1
            assert mendings_table._record_mending(session, "one", "It stood still.") == 2
            dated = session.execute(sa.text("SELECT max(mended_at_ms) FROM mendings")).scalar_one()
            assert abs(dated - now_ms_of_database(session)) < 60_000
    finally:
        databases.close()
