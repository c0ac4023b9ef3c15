"""Private names of DBOS and Python: each is there, and still does what the store reaches for it to do."""

from __future__ import annotations

import ast
import concurrent.futures.thread
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dbos import _dbos, _sys_db, _sys_db_sqlite
from dbos._serialization import DefaultSerializer
from dbos._sys_db import SystemDatabase
from dbos._sys_db_postgres import PostgresSystemDatabase

from store.durable import private_names
from tests.support.started import ROOT

pytestmark = pytest.mark.quick

_SOURCE = Path(_sys_db.__file__).read_text(encoding="utf-8")
_SQLITE_SOURCE = Path(_sys_db_sqlite.__file__).read_text(encoding="utf-8")
_LAUNCH_SOURCE = Path(_dbos.__file__).read_text(encoding="utf-8")
_MODULES = sorted((ROOT / "store").rglob("*.py"))


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_one_package_reaches_for_private_names(path: Path) -> None:
    """No other imports a private module or name of a library."""
    if path.parent.name == "private_names":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("_typeshed"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            assert not [name for name in names if name.startswith("_") and not name.startswith("__")]
    assert "SLF001" not in path.read_text(encoding="utf-8")


def test_dbos_unpickles_by_the_method_that_is_replaced() -> None:
    """What comes of it is tried, with real pickles, in test_pickled_checkpoints.py."""
    assert "deserialize" in vars(DefaultSerializer)


def test_a_waiting_workflow_looks_for_messages_as_often_as_the_class_says() -> None:
    """DBOS reads the attribute from an instance that has none of its own."""
    assert "_notification_fallback_polling_interval" in vars(SystemDatabase)
    assert "self._notification_fallback_polling_interval" in _SOURCE
    assert "self._notification_fallback_polling_interval =" not in _SOURCE


def test_dbos_calls_on_sqlite_what_is_replaced_there() -> None:
    """What comes of it is tried in test_waiters.py."""
    assert "_signal_notification" in vars(SystemDatabase)
    assert "_signal_notification" not in _SQLITE_SOURCE
    assert "send_bulk" in vars(SystemDatabase)
    assert "target=self._sys_db.run_notification_listener" in _LAUNCH_SOURCE


def test_dbos_tells_of_events_on_postgres_by_what_is_replaced() -> None:
    """What comes of it is tried in test_waiters.py."""
    assert {"_signal_notification", "run_notifier", "_flush_notifications"} <= vars(
        PostgresSystemDatabase
    ).keys()
    assert "target=self._sys_db.run_notifier" in _LAUNCH_SOURCE
    assert "_signal_notification(_dbos_workflow_events_channel" in re.sub(r"\s", "", _SOURCE)


def test_dbos_looks_and_records_by_what_is_replaced() -> None:
    """What comes of it is tried in test_prepared_statements.py."""
    names = {"check_operation_execution", "record_operation_result", "get_event_check", "get_event_consume"}
    assert names <= vars(SystemDatabase).keys()
    assert SystemDatabase.sharded is False


def test_dbos_sleeps_between_retries_by_the_clock_that_is_replaced() -> None:
    """What comes of it is tried in test_passing_trouble.py."""
    assert re.search(r"^import time$", _SOURCE, re.MULTILINE)
    assert "time.sleep(" in _SOURCE


def test_python_joins_the_threads_of_the_list_that_is_cleared() -> None:
    """And calls what is registered before it does."""
    with ThreadPoolExecutor(1, thread_name_prefix="dbos-executor-") as pool:
        pool.submit(int).result()
        joined = concurrent.futures.thread._threads_queues  # noqa: SLF001
        assert any(thread.name.startswith("dbos-executor-") for thread in joined)
        private_names.do_not_join_workflow_threads()
        assert not any(thread.name.startswith("dbos-executor-") for thread in joined)
    assert callable(getattr(threading, "_register_atexit", None))
