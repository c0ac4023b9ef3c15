"""Where the talk is: its scene, and the sale that it shows. One row, so it outlives every crash in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from store.durable.statements import execute, fetch_one
from store.durable.step_decorators import plain_transaction
from store.reads.orders import Queries

_COLUMNS = "scene, has_acted, run_key, next_key, moves"


@dataclass(frozen=True)
class Place:
    """Where the talk is."""

    scene: int
    """From 0 up."""
    has_acted: bool
    """Whether this scene has done what it does."""
    run_key: str
    """Of the sale that it shows; empty before the first."""
    next_key: str
    """Of the next one."""
    moves: int
    """How often it has moved: each move says from where, so that no press counts twice."""


def read(queries: Queries) -> Place:
    """Where it is now."""
    rows = queries.rows(f"SELECT {_COLUMNS} FROM stage")  # noqa: S608 - ours
    return _place(rows[0]) if rows else Place(0, False, "", "", 0)  # noqa: FBT003 - as the row has them


@plain_transaction
def begin(session: Session, next_key: str) -> Place:
    """Begin the talk, unless it has begun; where it is then."""
    execute(
        session,
        "INSERT INTO stage (only_row, scene, has_acted, run_key, next_key, moves)"
        " VALUES (1, 0, 0, '', :next_key, 0) ON CONFLICT DO NOTHING",
        next_key=next_key,
    )
    return _place(fetch_one(session, f"SELECT {_COLUMNS} FROM stage"))  # noqa: S608 - ours


@plain_transaction
def go(session: Session, moves: int, scene: int) -> bool:
    """Go to a scene from the place that has moved so often; False if somebody has moved it meanwhile."""
    move = "UPDATE stage SET scene = :scene, has_acted = 0, moves = moves + 1 WHERE moves = :moves"
    return bool(execute(session, move, scene=scene, moves=moves))


@plain_transaction
def show_sale(session: Session, moves: int, next_key: str) -> bool:
    """Show the sale that was begun with the next key; False as in `go`."""
    return bool(
        execute(
            session,
            "UPDATE stage SET has_acted = 1, run_key = next_key, next_key = :next_key, moves = moves + 1"
            " WHERE moves = :moves",
            next_key=next_key,
            moves=moves,
        )
    )


@plain_transaction
def renew_key(session: Session, moves: int, next_key: str) -> bool:
    """Have another key for the next sale, where this one was refused; False as in `go`."""
    renew = "UPDATE stage SET next_key = :next_key WHERE moves = :moves"
    return bool(execute(session, renew, next_key=next_key, moves=moves))


def _place(row: Any) -> Place:
    return Place(row.scene, bool(row.has_acted), row.run_key, row.next_key, row.moves)
