"""What DBOS records of a step by statements that are compiled once is what it records by its own."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOSPortableJSONSerializer, error
from dbos._sys_db import SystemDatabase
from dbos._sys_db_sqlite import SQLiteSystemDatabase

from store.durable import private_names
from tests.support.started import ROOT

pytestmark = pytest.mark.quick

_REPLACED = ("_execute_prepared", "_check_owner_txn", "_record_operation_result_txn")
_ENDED_AT_MS = 1_700_000_000_000
_STEP = {
    "workflow_uuid": "W", "function_id": 1, "function_name": "tick 1", "output": '"ten"', "error": None,
    "child_workflow_id": None, "serialization": "portable_json", "started_at_epoch_ms": _ENDED_AT_MS - 5,
}  # fmt: skip
Record = Callable[..., None]


@pytest.fixture
def checkpoints(tmp_path: Path) -> Iterator[SystemDatabase]:
    """DBOS's own database, with one workflow that the run `mine` owns."""
    database = SQLiteSystemDatabase(
        system_database_url=f"sqlite:///{tmp_path}/checkpoints.sqlite3",
        engine_kwargs={},
        engine=None,
        schema=None,
        serializer=DBOSPortableJSONSerializer(),
        executor_id="an executor",
        app_name="a-shop",
    )
    database.run_migrations()
    with database.engine.begin() as connection:
        connection.execute(
            sa.insert(database.tables.workflow_status).values(
                workflow_uuid="W",
                status="PENDING",
                name="dispatch",
                owner_xid="mine",
                created_at=1,
                updated_at=1,
            )
        )
    yield database
    database.destroy()


@pytest.fixture(params=["its own", "compiled once"])
def record(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, checkpoints: SystemDatabase
) -> Record:
    """Records a step, in one of the two ways."""
    for name in _REPLACED:  # and back at the end
        monkeypatch.setattr(SystemDatabase, name, getattr(SystemDatabase, name))
    if request.param == "compiled once":
        private_names.prepare_hot_statements()
        assert all(getattr(SystemDatabase, name).__module__ == private_names.__name__ for name in _REPLACED)

    def record_it(ended_at_ms: int = _ENDED_AT_MS, owner: str = "mine", **other: Any) -> None:
        with checkpoints.engine.begin() as connection:
            checkpoints._record_operation_result_txn(  # noqa: SLF001
                {**_STEP, **other},  # type: ignore[typeddict-item]
                ended_at_ms,
                connection,
                owner_xid=owner,
            )

    return record_it


def steps(checkpoints: SystemDatabase) -> list[dict[str, Any]]:
    """Every column of every step, but for the moment at which it was written."""
    with checkpoints.engine.connect() as connection:
        rows = connection.execute(sa.select(checkpoints.tables.operation_outputs)).mappings().all()
    assert all(row["retention_timestamp"] > _ENDED_AT_MS for row in rows)
    return [{key: value for key, value in row.items() if key != "retention_timestamp"} for row in rows]


def test_a_step_is_recorded_once(record: Record, checkpoints: SystemDatabase) -> None:
    """The same again, as after a commit whose answer was lost, changes nothing."""
    for _ in range(2):
        record()
        record(function_id=2, output=None, error='"it failed"', child_workflow_id="W.dispatch")
    first = {**_STEP, "completed_at_epoch_ms": _ENDED_AT_MS, "application_name": "a-shop"}
    other = {"function_id": 2, "output": None, "error": '"it failed"', "child_workflow_id": "W.dispatch"}
    assert [first.items() <= row.items() for row in steps(checkpoints)] == [True, False]
    assert {**first, **other}.items() <= steps(checkpoints)[1].items()


def test_another_run_records_nothing(record: Record, checkpoints: SystemDatabase) -> None:
    """One that a later one has taken the workflow from."""
    with pytest.raises(error.DBOSWorkflowConflictIDError):
        record(owner="somebody else")
    with pytest.raises(error.DBOSWorkflowConflictIDError):
        record(workflow_uuid="nobody's")
    assert steps(checkpoints) == []


def test_a_step_that_ends_twice_is_noticed(record: Record, checkpoints: SystemDatabase) -> None:
    """At another time: then it was run twice by one run. What was recorded first stands."""
    record()
    with pytest.raises(error.DBOSStepNondeterminismError):
        record(_ENDED_AT_MS + 1, output='"eleven"')
    assert [(row["output"], row["completed_at_epoch_ms"]) for row in steps(checkpoints)] == [
        ('"ten"', _ENDED_AT_MS)
    ]


def test_they_were_written_for_the_dbos_that_is_locked() -> None:
    """Of any other, its own are used: look at what it does there, and then name its version."""
    locked = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    assert re.findall(r"^dbos==(\S+)", locked, re.MULTILINE) == [private_names.PREPARED_FOR]
    assert importlib.metadata.version("dbos") == private_names.PREPARED_FOR


def test_another_dbos_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is replaced."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "3.5.0")
    before = [getattr(SystemDatabase, name) for name in _REPLACED]
    private_names.prepare_hot_statements()
    assert [getattr(SystemDatabase, name) for name in _REPLACED] == before
