"""The page on many machines, followed word for word: two workers on one Postgres, and the first is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from store.settings import ROOT
from tests.support.postgres import Postgres
from tests.support.shopper import eventually

_PROGRAM, _CHANGED = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "many_machines.md").read_text(encoding="utf-8"), re.DOTALL
)
_TICK = re.compile(r"apples: tick (\d+) in process (\d+)")
_COUNT = re.compile(r"@DBOS\.workflow.*?\n\n\n", re.DOTALL)
Start = Callable[..., "Worker"]


class Worker:
    """One worker of the page, and what it prints."""

    def __init__(self, folder: Path, url: str, *names: str) -> None:
        self._log = folder / f"log-{len(list(folder.iterdir()))}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "worker.py", *names],
                cwd=folder,
                env={**os.environ, "DATABASE_URL": url},
                stdout=log,
                stderr=log,
            )

    @property
    def output(self) -> str:
        """All that it has printed."""
        return self._log.read_text(encoding="utf-8")

    @property
    def ticks(self) -> list[int]:
        """The numbers that it has counted."""
        said = self.output
        assert self.process.poll() in {None, -signal.SIGKILL, 4}, said
        return [int(number) for number, _ in _TICK.findall(said)]


@pytest.fixture
def url(postgres: Postgres) -> str:
    """An empty database."""
    url = postgres.new_url()
    address = make_url(url)
    admin = address.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(address.database or "")))
    return url


@pytest.fixture
def start(url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts workers on that database."""
    (tmp_path / "worker.py").write_text(_PROGRAM, encoding="utf-8")
    workers = list[Worker]()

    def start_one(*names: str) -> Worker:
        workers.append(Worker(tmp_path, url, *names))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def _freeze_in_a_transaction(worker: Worker, url: str) -> None:
    """Freeze it while it writes down a step: it waits there for a lock of ours, which we let go of then."""
    sessions = "SELECT state, wait_event_type FROM pg_stat_activity WHERE datname = current_database()"
    with psycopg.connect(url, autocommit=True) as observer, psycopg.connect(url) as locking:
        locking.execute("LOCK TABLE dbos.operation_outputs IN SHARE MODE")
        eventually(lambda: observer.execute(sessions).fetchall(), lambda seen: ("active", "Lock") in seen)
        worker.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, worker.process.pid, os.WSTOPPED | os.WNOWAIT)
        locking.rollback()
        eventually(
            lambda: observer.execute(sessions).fetchall(),
            lambda seen: ("idle in transaction", "Client") in seen,
        )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_other_goes_on(start: Start, number: signal.Signals) -> None:
    """Killed, or frozen for longer than its lease: the other one counts on, and none is left out."""
    first = start("apples")
    eventually(lambda: first.ticks, lambda ticks: 2 in ticks)
    second = start()
    first.process.send_signal(number)
    eventually(lambda: second.ticks, lambda ticks: 10 in ticks, timeout_seconds=40)
    counted = first.ticks + second.ticks
    assert sorted(set(counted)) == list(range(1, 11))
    assert len(counted) <= 11, "one may be printed twice: whose checkpoint was not written"
    if number == signal.SIGSTOP:
        first.process.send_signal(signal.SIGCONT)
        assert first.process.wait(20) == 4
        assert len(first.ticks + second.ticks) <= 12


def test_the_other_goes_on_with_what_was_frozen_in_a_transaction(start: Start, url: str) -> None:
    """Postgres lets go of the rows that it had locked."""
    first = start("apples")
    eventually(lambda: first.ticks, lambda ticks: 1 in ticks)
    _freeze_in_a_transaction(first, url)
    second = start()
    eventually(lambda: second.ticks, lambda ticks: 10 in ticks, timeout_seconds=40)
    assert set(first.ticks + second.ticks) == set(range(1, 11))


def test_a_newer_release_goes_on_with_what_an_older_one_began(start: Start, tmp_path: Path) -> None:
    """Behind `DBOS.patch` it has one step more: what began without it ends without it."""
    first = start("apples")
    eventually(lambda: first.ticks, lambda ticks: 2 in ticks)
    newer, changed = _COUNT.subn(_CHANGED + "\n\n", _PROGRAM)
    assert changed == 1
    (tmp_path / "worker.py").write_text(newer, encoding="utf-8")
    second = start("pears")
    first.process.kill()
    eventually(lambda: second.ticks, lambda ticks: 10 in ticks, timeout_seconds=40)
    assert set(first.ticks + second.ticks) == set(range(1, 11))
    assert "Here come pears\npears: tick 1 " in second.output
    assert "Here come apples" not in second.output
