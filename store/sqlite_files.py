"""The SQLite files: nobody else on the machine may read them, and one server at a time has them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_COMPANIONS = ("", "-wal", "-shm", "-journal", ".lock")
"""What there is beside a file. SQLite makes its own of these with the mode of the file itself."""

_LOCK_SECONDS = 3.0
"""How long to wait for a lock: a server that was told to stop is gone after that."""
_held: dict[Path, int] = {}
"""The locks that this process has, until it ends, whatever it dies of."""


def make_private(file: Path) -> None:
    """Make a SQLite file, and the folders above it, for our user alone; take others' rights to an old one.

    Raises:
        OSError: it cannot be made.
    """
    for folder in reversed(file.parents):
        if not folder.exists():
            folder.mkdir(_PRIVATE_FOLDER, exist_ok=True)
    if not file.exists():  # one that is there must not be opened: closing it would let SQLite's locks go
        os.close(os.open(file, os.O_RDONLY | os.O_CREAT, _PRIVATE_FILE))
    for suffix in _COMPANIONS:
        _take_rights_of_others(file.with_name(file.name + suffix))


def _take_rights_of_others(file: Path) -> None:
    with suppress(OSError):  # it is not there, or somebody else's
        if file.is_file() and file.stat().st_mode & 0o077:
            file.chmod(_PRIVATE_FILE)


def lock(file: Path) -> bool:
    """Lock a SQLite file for this process until it ends; whether it could be had.

    The lock is on a file beside it, because SQLite has locks of its own on the file itself. It stays there:
    if it were removed, two servers could have locks on two files of that name.

    Raises:
        OSError: the file of the lock cannot be made, or the file system knows no locks.
    """
    file = file.resolve()
    if file in _held:
        return True
    # Python does not pass it on to child processes, so they do not keep the lock.
    lock_file = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, _PRIVATE_FILE)
    deadline = time.monotonic() + _LOCK_SECONDS
    while not _try_lock(lock_file):
        if time.monotonic() > deadline:
            os.close(lock_file)
            return False
        time.sleep(0.02)
    _held[file] = lock_file
    return True


@contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Lock a SQLite file as `lock` does, and let it go after that; whether it could be had.

    Raises:
        OSError: as `lock`.
    """
    was_ours = file.resolve() in _held
    is_ours = lock(file)
    try:
        yield is_ours
    finally:
        if is_ours and not was_ours:
            os.close(_held.pop(file.resolve()))


def _try_lock(lock_file: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(lock_file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the second is what Windows says
        return False
    return True
