"""The statements by which DBOS looks whether a step was done, records that it is, and looks for an event.

They are most of what an order costs beside its own work. Each is one prepared statement, and a transaction by
itself. DBOS builds two anew each time, and on Postgres sends them between a BEGIN and a COMMIT, which makes
four round trips of one.
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from dbos import _sys_db, error
from dbos._context import current_owner_xid
from dbos._logger import dbos_logger
from dbos._schemas import SCHEMA_PLACEHOLDER
from dbos._serialization import deserialize_value
from dbos._sys_db import SystemDatabase
from dbos._sys_db_sqlite import SQLiteSystemDatabase
from sqlalchemy.dialects import sqlite

PREPARED_FOR = "3.4.0"
"""The DBOS whose methods are replaced."""


def is_the_dbos_we_know() -> bool:
    """Whether it is the one that this was written for. Any other is left as it is."""
    return importlib.metadata.version("dbos") == PREPARED_FOR


def prepare_hot_statements() -> None:
    """Have DBOS build and compile them once; SQLAlchemy keeps no compiled INSERT that has an ON CONFLICT."""
    if not is_the_dbos_we_know():
        return
    SystemDatabase._execute_prepared = _execute_prepared  # type: ignore[method-assign]  # noqa: SLF001
    SystemDatabase.check_operation_execution = _look  # type: ignore[method-assign]
    SystemDatabase.get_event_check = _look_for_event  # type: ignore[method-assign]
    SystemDatabase.get_event_consume = _event  # type: ignore[method-assign]
    SystemDatabase.record_operation_result = _record_alone  # type: ignore[method-assign]
    SystemDatabase._record_operation_result_txn = _record  # type: ignore[method-assign]  # noqa: SLF001


def _execute_prepared(  # noqa: PLR0913 - as DBOS has it
    self: SystemDatabase,
    conn: Any,
    name: str,
    values: dict[str, Any],
    build: Callable[[], Any],
    *,
    insert_columns: bool = True,
) -> Any:
    """DBOS's own, on SQLite too: its driver takes named parameters as well."""
    if not isinstance(conn, sa.Connection) or conn.dialect is not self.engine.dialect:
        return conn.execute(build(), values)  # a caller's session, or their driver
    key = (name, tuple(values))
    if key not in self._prepared_statements:
        self._prepared_statements[key] = _compile(self, build(), list(values) if insert_columns else None)
    sql, processors, constants = self._prepared_statements[key]
    processed = {name: processors[name](value) for name, value in values.items() if name in processors}
    return conn.exec_driver_sql(sql, {**constants, **values, **processed})


def _compile(system: SystemDatabase, statement: Any, columns: list[str] | None) -> tuple[str, Any, Any]:
    """The text of a statement, what its values have to go through, and the values that are part of it."""
    dialect = system.engine.dialect
    if isinstance(system, SQLiteSystemDatabase):
        dialect = sqlite.dialect(paramstyle="named")
        dialect.default_schema_name = system.engine.dialect.default_schema_name
    compiled = statement.compile(
        dialect=dialect,
        column_keys=columns,
        schema_translate_map={SCHEMA_PLACEHOLDER: system.schema},
        render_schema_translate=True,
    )
    processors, constants = {}, {}
    for name, bind in compiled.binds.items():
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None:
            processors[name] = process
        if not bind.required:
            constants[name] = process(bind.value) if process is not None else bind.value
    return str(compiled), processors, constants


@lru_cache(maxsize=4)
def _alone(engine: sa.Engine) -> sa.Engine:
    """For statements that are each a transaction by themselves; on SQLite, one costs no round trip."""
    return (
        engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="AUTOCOMMIT")
    )


# --- looking ---------------------------------------------------------------------------------------


@_sys_db.db_retry()
def _look(
    self: SystemDatabase,
    workflow_id: str,
    function_id: int,
    function_name: str,
    *,
    owner_key: str | None = None,  # noqa: ARG001 - of databases that are sharded
) -> _sys_db.RecordedResult | None:
    """As DBOS has it: what a step came to, if it was done; and no cancelled workflow goes on."""

    def select() -> Any:
        workflow, step = self.tables.workflow_status, self.tables.operation_outputs
        is_its = (step.c.workflow_uuid == workflow.c.workflow_uuid) & (
            step.c.function_id == sa.bindparam("step")
        )
        columns = [
            step.c[name]
            for name in ("function_name", "output", "error", "serialization", "child_workflow_id")
        ]
        wanted = sa.select(workflow.c.status, *columns).select_from(workflow.outerjoin(step, is_its))
        return wanted.where(workflow.c.workflow_uuid == sa.bindparam("id"))

    values = {"step": function_id, "id": workflow_id}
    with _alone(self.engine).begin() as conn:
        found = _execute_prepared(self, conn, "store: look", values, select, insert_columns=False).first()
    if found is None:
        raise AssertionError(f"Error: Workflow {workflow_id} does not exist")
    status, name, output, failure, serialization, child = found
    if status == "CANCELLED":
        raise error.DBOSWorkflowCancelledError(f"Workflow {workflow_id} is cancelled. Aborting function.")
    if name is None:
        return None
    if name != function_name:
        raise error.DBOSUnexpectedStepError(
            workflow_id=workflow_id, step_id=function_id, expected_name=function_name, recorded_name=name
        )
    return {
        "output": output,
        "error": failure,
        "serialization": serialization,
        "child_workflow_id": child,
        "child_shard_key": None,
    }


# --- events ----------------------------------------------------------------------------------------


def _event_of(system: SystemDatabase, workflow_id: str, key: str) -> Any:
    """The row of an event, if it was set."""

    def select() -> Any:
        events = system.tables.workflow_events.c
        is_it = (events.workflow_uuid == sa.bindparam("id")) & (events.key == sa.bindparam("key"))
        return sa.select(events.value, events.serialization).where(is_it)

    values = {"id": workflow_id, "key": key}
    with _alone(system.engine).begin() as conn:
        return _execute_prepared(system, conn, "store: event", values, select, insert_columns=False).first()


def _look_for_event(self: SystemDatabase, target_uuid: str, key: str, event: threading.Event) -> None:
    """As DBOS has it: one look as somebody begins to wait."""
    try:
        if _event_of(self, target_uuid, key) is not None:
            event.set()
    except Exception:  # noqa: BLE001 - whoever waits looks again at the end
        dbos_logger.warning("Fallback workflow event poll failed", exc_info=True)


_event_for_a_workflow = SystemDatabase.get_event_consume


@_sys_db.db_retry()
def _event(self: SystemDatabase, target_uuid: str, key: str, start_time: int, caller_ctx: Any = None) -> Any:
    """As DBOS has it. What a workflow asks for, it records, too; the store's ask for none."""
    if caller_ctx is not None:
        return _event_for_a_workflow(self, target_uuid, key, start_time, caller_ctx)
    found = _event_of(self, target_uuid, key)
    return None if found is None else deserialize_value(found[0], found[1], self.serializer)


# --- recording -------------------------------------------------------------------------------------


def _record_alone(
    self: SystemDatabase,
    result: Any,
    *,
    completed_at_epoch_ms: int | None = None,
    owner_xid: str | None = None,
    owner_key: str | None = None,  # noqa: ARG001 - likewise
) -> None:
    """As DBOS has it: the time is taken once, so that a statement that is sent again is known as the same."""
    at_ms = int(time.time() * 1000) if completed_at_epoch_ms is None else completed_at_epoch_ms

    @_sys_db.db_retry(sys_db=self)
    def record() -> None:
        with _alone(self.engine).begin() as conn:
            _record(self, result, at_ms, conn, owner_xid=owner_xid)

    record()


def _record(  # noqa: PLR0913 - as DBOS has it
    self: SystemDatabase,
    result: Any,
    completed_at_epoch_ms: int,
    conn: Any,
    *,
    owner_xid: str | None = None,
    child_values: dict[str, Any] | None = None,  # noqa: ARG001 - likewise
) -> None:
    """As DBOS has it: what a step came to, written down once, by the run that owns its workflow.

    The workflow's row is locked until the commit, so that no hand-off comes in between.
    """
    workflow_id = result["workflow_uuid"]
    owner_xid = owner_xid or current_owner_xid(workflow_id)
    row = {
        **{name: result[name] for name in _OF_A_STEP},
        "completed_at_epoch_ms": completed_at_epoch_ms,
        "application_name": self.app_name,
    }

    def insert() -> Any:
        steps, workflow = self.tables.operation_outputs, self.tables.workflow_status
        new = self.dialect.insert(steps)
        if owner_xid is None:
            new = new.values(retention_timestamp=self._now_ms_sql())
        else:
            values = [sa.bindparam(name, type_=steps.c[name].type) for name in row]
            is_owned = (workflow.c.workflow_uuid == sa.bindparam("workflow_uuid")) & (
                workflow.c.owner_xid == sa.bindparam("owner_xid")
            )
            owned = sa.select(*values, self._now_ms_sql()).where(is_owned).with_for_update(key_share=True)
            new = new.from_select([*row, "retention_timestamp"], owned, include_defaults=False)
        end, is_it = steps.c.completed_at_epoch_ms, self._key_conflict("workflow_uuid", "function_id")
        return new.on_conflict_do_update(index_elements=is_it, set_={end.name: end}).returning(end)

    if owner_xid is None:
        found = _execute_prepared(self, conn, "store: step", row, insert).scalar()
    else:
        values = {**row, "owner_xid": owner_xid}
        found = _execute_prepared(
            self, conn, "store: own step", values, insert, insert_columns=False
        ).scalar()
        if found is None:
            raise error.DBOSWorkflowConflictIDError(workflow_id)
    if found is None or int(found) != completed_at_epoch_ms:
        raise error.DBOSStepNondeterminismError(workflow_id, result["function_id"])


_OF_A_STEP = (
    "workflow_uuid", "function_id", "function_name", "started_at_epoch_ms", "output", "error",
    "child_workflow_id", "serialization",
)  # fmt: skip
