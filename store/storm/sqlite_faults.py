"""How faults are made on SQLite: a disk that is full, files that are locked or read-only, older copies."""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sqlalchemy import make_url

from store.settings import Settings
from store.storm.faults import Again, Kind, Way
from store.storm.shop_faults import Shop, restored

_LOCK_SECONDS = 10.0
_READ_ONLY, _USUAL = 0o400, 0o600
_BOTH_FULL = "the limit that fills the disk is the server's, and so of both files: see full disk"
_BOTH_READ_ONLY = "one file is as read-only as the other: see everything read-only"
_NOT_TRIED: dict[Kind, str] = {
    Kind.FULL_STORE: _BOTH_FULL,
    Kind.FULL_CHECKPOINTS: _BOTH_FULL,
    Kind.READ_ONLY_STORE: _BOTH_READ_ONLY,
    Kind.READ_ONLY_CHECKPOINTS: _BOTH_READ_ONLY,
    Kind.CANCELLED: "nobody else can cancel a statement of SQLite",
    Kind.HUNG: "SQLite has no server",
    Kind.RESTARTED: "SQLite has no server",
}


def ways(shop: Shop, settings: Settings) -> tuple[dict[Kind, Way], dict[Kind, str]]:
    """How the faults are made that can be, and of the others why not."""
    store, checkpoints = (
        Path(make_url(url).database or "") for url in (settings.database_url, settings.system_database_url)
    )
    possible: dict[Kind, Way] = {
        Kind.FULL_DISK: lambda: _full_disk(shop),
        Kind.READ_ONLY: lambda: _read_only(shop, [store, checkpoints]),
        Kind.LOCKED_STORE: lambda: _locked(store),
        Kind.LOCKED_CHECKPOINTS: lambda: _locked(checkpoints),
        Kind.OLDER_STORE: lambda: restored(shop, of_checkpoints=False, take=lambda: _copy(store)),
        Kind.OLDER_CHECKPOINTS: lambda: restored(shop, of_checkpoints=True, take=lambda: _copy(checkpoints)),
    }
    why_not = dict(_NOT_TRIED)
    if not sys.platform.startswith("linux"):
        why_not[Kind.FULL_DISK] = "only Linux lets one process limit the files of another"
    if os.geteuid() == 0:
        why_not[Kind.READ_ONLY] = "root may write to every file: run the storm as another user"
    return {kind: way for kind, way in possible.items() if kind not in why_not}, why_not


@contextmanager
def _full_disk(shop: Shop) -> Iterator[None]:
    """No file of the server may grow, nor any of the next one: to SQLite that is a disk without room."""
    if sys.platform != "linux":  # for the type checker
        raise NotImplementedError
    import resource  # noqa: PLC0415 - there is none on Windows

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(bytes_: int) -> None:
        pid = shop.held.pid()
        if pid is not None and _is_our_child(pid):
            with suppress(ProcessLookupError):  # it has just died
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (bytes_, usual[1]))

    try:
        with Again(lambda: limit(0), 0.02):
            yield
    finally:
        limit(usual[0])


def _is_our_child(pid: int) -> bool:
    """Whether that is still a server of ours: it may be dead, and its number somebody else's by now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    return f"\nPPid:\t{os.getpid()}\n" in status


@contextmanager
def _read_only(shop: Shop, files: list[Path]) -> Iterator[None]:
    """Nobody may write to the files. A server that has them open may go on, so it is killed."""
    for file in files:
        file.chmod(_READ_ONLY)
    try:
        shop.supervisor.kill_server()
        yield
    finally:
        for file in files:
            file.chmod(_USUAL)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Somebody else writes, and takes a long time over it."""
    with closing(sqlite3.connect(file, timeout=_LOCK_SECONDS, isolation_level=None)) as somebody:
        somebody.execute("BEGIN EXCLUSIVE")
        yield
        somebody.execute("ROLLBACK")


def _copy(file: Path) -> Callable[[], None]:
    """Copy a database while it is in use; what puts the copy back."""
    folder = tempfile.TemporaryDirectory(prefix="widget-copy-")
    copy = Path(folder.name) / "copy.sqlite3"
    _backup(file, copy)

    def put_back() -> None:
        with folder:
            _backup(copy, file)

    return put_back


def _backup(source: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(source, timeout=_LOCK_SECONDS)) as original,
        closing(sqlite3.connect(target, timeout=_LOCK_SECONDS)) as copy,
    ):
        original.backup(copy)
