"""Owns the SQLite files: nobody else on the machine may read them. Imports nothing of ours."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_COMPANIONS = ("", "-wal", "-shm", "-journal")
"""What SQLite keeps beside a file. It makes these with the mode of the file itself."""


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
