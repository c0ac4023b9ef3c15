"""A deploy in the middle of an order: which code each server runs, and how one is replaced in good order.

Nobody dies: the server is stopped, and its parent starts the program anew from the files as they are then. So
it counts as no crash, and leaves no crack in a track. The order waits until the next server is there.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy.orm import Session

from store.durable import runtime
from store.durable.statements import execute
from store.durable.step_decorators import plain_transaction
from store.reads.orders import Queries
from store.settings import ROOT

_SHOWN = 4
"""Servers."""


@dataclass(frozen=True)
class ServerCode:
    """One server, and the code that it runs."""

    number: int
    digest: str
    """Eight hexadecimal digits; nothing where it was not written down."""
    was_replaced: bool
    """Whether it was stopped in good order; else it runs, or died."""
    differs: bool
    """Whether the server before it ran other code."""


def record(code: str) -> None:
    """Write down which code this server runs."""
    _record(runtime.executor_number(), code)


def digest() -> str:
    """What is another one if any source file of the store is; to be asked once they are imported."""
    found = hashlib.blake2b(digest_size=4)
    code = [ROOT / "app.py", *(ROOT / "store").rglob("*.py"), *(ROOT / "templates").glob("*.html")]
    for file in sorted(code):
        # An editor that is open leaves hidden files and links to nothing, and takes others away for a moment.
        with suppress(OSError):
            if not file.name.startswith("."):
                found.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


def servers(queries: Queries) -> tuple[ServerCode, ...]:
    """The newest servers, oldest first.

    Raises:
        DeadlineExceeded: the database does not answer.
    """
    rows = queries.rows(
        "SELECT e.number, e.how_ended, coalesce(c.digest, '') AS digest FROM executors e"
        " LEFT JOIN server_code c ON c.executor = e.number ORDER BY e.number DESC LIMIT :most",
        most=_SHOWN + 1,
    )[::-1]
    before = ["", *(row.digest for row in rows)]
    return tuple(
        ServerCode(
            row.number,
            row.digest,
            was_replaced=row.how_ended == "stopped",
            differs=bool(earlier and row.digest and earlier != row.digest),
        )
        for row, earlier in zip(rows, before, strict=False)
    )[-_SHOWN:]


@plain_transaction
def _record(session: Session, executor: int, code: str) -> None:
    # No row changes where its commit was made and its answer lost.
    execute(
        session,
        "INSERT INTO server_code (executor, digest) VALUES (:executor, :code) ON CONFLICT DO NOTHING",
        executor=executor,
        code=code,
    )
