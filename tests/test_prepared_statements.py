"""What DBOS records of a step, and reads of one, by the store's statements, is what it is by its own."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOSPortableJSONSerializer, error
from dbos._schemas import SCHEMA_PLACEHOLDER
from dbos._sys_db import SystemDatabase
from dbos._utils import LoopAwareEvent

from store import schema
from store.durable.private_names import step_statements
from store.settings import Settings, is_sqlite
from tests.conftest import NewUrl
from tests.support.shopper import eventually
from tests.support.started import ROOT

pytestmark = [pytest.mark.quick, pytest.mark.each_database]

_REPLACED = (
    "_execute_prepared",
    "check_operation_execution",
    "record_operation_result",
    "_record_operation_result_txn",
    "get_event_check",
    "get_event_consume",
)
_ENDED_AT_MS = 1_700_000_000_000
_STEP = {
    "workflow_uuid": "W", "function_id": 1, "function_name": "tick 1", "output": '"ten"', "error": None,
    "child_workflow_id": None, "serialization": "portable_json", "started_at_epoch_ms": _ENDED_AT_MS - 5,
}  # fmt: skip
Record = Callable[..., None]


@pytest.fixture
def checkpoints(new_url: NewUrl) -> Iterator[SystemDatabase]:
    """DBOS's own database, with one workflow that the run `mine` owns."""
    settings = Settings.from_env({"DBOS_DATABASE_URL": new_url()})
    databases = schema.connect(settings)
    database = SystemDatabase.create(
        system_database_url=settings.system_database_url,
        engine_kwargs={},
        engine=databases.system,
        schema=None if is_sqlite(settings.system_database_url) else "dbos",
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
    databases.close()


@pytest.fixture(params=["its own", "the store's"], autouse=True)
def _statements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has both."""
    for name in _REPLACED:  # and back at the end
        monkeypatch.setattr(SystemDatabase, name, getattr(SystemDatabase, name))
    if request.param == "the store's":
        step_statements.prepare_hot_statements()
        assert all(getattr(SystemDatabase, name).__module__ == step_statements.__name__ for name in _REPLACED)


@pytest.fixture(params=["alone", "with more"])
def record(request: pytest.FixtureRequest, checkpoints: SystemDatabase) -> Record:
    """Records a step, in a transaction of its own, or of somebody's who changes more."""

    def record_it(ended_at_ms: int = _ENDED_AT_MS, owner: str = "mine", **other: Any) -> None:
        step: Any = {**_STEP, **other}
        if request.param == "alone":
            checkpoints.record_operation_result(step, completed_at_epoch_ms=ended_at_ms, owner_xid=owner)
            return
        with checkpoints.engine.begin() as connection:
            checkpoints._record_operation_result_txn(step, ended_at_ms, connection, owner_xid=owner)  # noqa: SLF001

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


def test_whoever_takes_a_workflow_over_is_waited_for(record: Record, checkpoints: SystemDatabase) -> None:
    """A run that has lost its workflow while its step was on its way to the database records nothing."""
    workflow, others = checkpoints.tables.workflow_status, sa.create_engine(checkpoints.engine.url)
    with ThreadPoolExecutor(1) as pool:
        with others.begin() as other:
            placed = other.execution_options(schema_translate_map={SCHEMA_PLACEHOLDER: checkpoints.schema})
            placed.execute(sa.update(workflow).values(owner_xid="theirs"))
            recording = pool.submit(record)
            if other.dialect.name == "postgresql":  # SQLite says nothing of who waits for it
                waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
                eventually(lambda: other.execute(waiting).scalar_one(), bool)
            assert not recording.done()
        with pytest.raises(error.DBOSWorkflowConflictIDError):
            recording.result(30)
    others.dispose()
    assert steps(checkpoints) == []


def test_what_a_step_came_to_is_found(record: Record, checkpoints: SystemDatabase) -> None:
    """With all that was recorded of it, and nothing before that."""
    assert checkpoints.check_operation_execution("W", 1, "tick 1") is None
    record()
    record(function_id=2, output=None, error='"it failed"', child_workflow_id="W.dispatch")
    assert checkpoints.check_operation_execution("W", 1, "tick 1") == {
        "output": '"ten"', "error": None, "serialization": "portable_json", "child_workflow_id": None,
        "child_shard_key": None,
    }  # fmt: skip
    second = checkpoints.check_operation_execution("W", 2, "tick 1")
    assert second is not None
    assert (second["error"], second["child_workflow_id"]) == ('"it failed"', "W.dispatch")
    with pytest.raises(error.DBOSUnexpectedStepError):
        checkpoints.check_operation_execution("W", 1, "tick 2")


def test_no_step_of_a_cancelled_workflow_begins(checkpoints: SystemDatabase) -> None:
    """Nor of one that is not there."""
    with checkpoints.engine.begin() as connection:
        connection.execute(sa.update(checkpoints.tables.workflow_status).values(status="CANCELLED"))
    with pytest.raises(error.DBOSWorkflowCancelledError):
        checkpoints.check_operation_execution("W", 1, "tick 1")
    with pytest.raises(AssertionError, match="does not exist"):
        checkpoints.check_operation_execution("nobody's", 1, "tick 1")


def test_an_event_is_found_once_it_is_set(checkpoints: SystemDatabase) -> None:
    """With its value; whoever waits for another one is not woken, and has nothing when the time is up."""
    events = checkpoints.tables.workflow_events
    value = {"value": '"pending"', "serialization": "portable_json"}
    with checkpoints.engine.begin() as connection:
        connection.execute(sa.insert(events).values(workflow_uuid="W", key="held", **value))
    assert checkpoints.get_event("W", "held", timeout_seconds=10) == "pending"
    woken = LoopAwareEvent()
    checkpoints.get_event_check("W", "settled", woken)
    assert not woken.is_set()
    checkpoints.get_event_check("W", "held", woken)
    assert woken.is_set()
    assert checkpoints.get_event("W", "settled", timeout_seconds=0) is None


def test_they_were_written_for_the_dbos_that_is_locked() -> None:
    """Of any other, its own are used: look at what it does there, and then name its version."""
    locked = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    assert re.findall(r"^dbos==(\S+)", locked, re.MULTILINE) == [step_statements.PREPARED_FOR]
    assert importlib.metadata.version("dbos") == step_statements.PREPARED_FOR


def test_another_dbos_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is replaced."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "3.5.0")
    before = [getattr(SystemDatabase, name) for name in _REPLACED]
    step_statements.prepare_hot_statements()
    assert [getattr(SystemDatabase, name) for name in _REPLACED] == before
