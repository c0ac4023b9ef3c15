"""The store's tables in memory: the real schema, saved and brought back as a whole."""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.settings import ROOT
from store.vocabulary import SHELF_SIZE

T = TypeVar("T")
Rows = dict[str, list[tuple[Any, ...]]]

_PAGE_BYTES = 512
"""The smallest: a state is copied as often as it is visited."""


@dataclass(frozen=True, eq=False)
class Saved:
    """The tables at one moment. Those that have the same rows are one object."""

    number: int
    rows: Rows
    """Of the tables that matter, each table in the order of its key."""
    image: bytes
    """The whole database, compressed."""


class MemoryStore:
    """One in-memory database, with what the steps ask of a datasource."""

    def __init__(
        self, units: int, tables: tuple[str, ...], arrange: Callable[[], object] | None = None
    ) -> None:
        self.engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
        self._tables = tables
        self._session: Session | None = None
        self._known: dict[str, Saved] = {}
        self._raw = cast(sqlite3.Connection, self.engine.raw_connection().driver_connection)
        self._raw.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        self._raw.executescript(_schema(units))
        self._raw.execute("PRAGMA foreign_keys = ON")
        if arrange is not None:
            arrange()
        self._wanted = self._in_memory = self._save()
        self._is_changed = False

    def run_tx_step(self, _options: Any, work: Callable[[], T]) -> T:
        """Run one transaction: all of it, or nothing where it raises."""
        self.bring_back()
        self._is_changed = True
        with Session(self.engine) as session, session.begin():
            self._session = session
            return work()

    def sql_session(self) -> Session:
        """That of the transaction that runs."""
        if self._session is None:
            raise RuntimeError("a statement was run outside of any transaction")
        return self._session

    def load(self, saved: Saved) -> None:
        """Make the tables what they were, before the next transaction or reading."""
        self._wanted = saved
        if self._is_changed:
            self._in_memory, self._is_changed = None, False

    def bring_back(self) -> None:
        """Have in memory what was last loaded."""
        if not self._is_changed and self._in_memory is not self._wanted:
            self._raw.deserialize(zlib.decompress(self._wanted.image))
            self._in_memory = self._wanted

    def save(self) -> Saved:
        """The tables as they are."""
        if self._is_changed:
            self._wanted = self._in_memory = self._save()
            self._is_changed = False
        return self._wanted

    def close(self) -> None:
        """Forget it."""
        self.engine.dispose()

    _in_memory: Saved | None

    def _save(self) -> Saved:
        rows: Rows = {}
        for table in self._tables:
            with closing(self._raw.execute(f"SELECT * FROM {table}")) as cursor:  # noqa: S608 - ours
                rows[table] = sorted(cursor.fetchall(), key=repr)
        text = repr(rows)
        if text not in self._known:
            image = zlib.compress(self._raw.serialize(), 1)
            self._known[text] = Saved(len(self._known), rows, image)
        return self._known[text]


def _schema(units: int) -> str:
    """`schema.sql`, of a shop that opens with so many units."""
    text = (ROOT / "schema.sql").read_text(encoding="utf-8")
    text, products = re.subn(rf"(9999,\s+){SHELF_SIZE}\b", rf"\g<1>{units}", text)
    text, movements = re.subn(rf"('opening', 1, ){SHELF_SIZE}\b", rf"\g<1>{units}", text)
    if (products, movements) != (1, 1):
        raise RuntimeError("schema.sql does not say any more with how many units a shop opens")
    return text
