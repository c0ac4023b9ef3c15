"""The audit: counts everything again from the first row, and compares it with every closing of the books.

The ledger believes what a closing has sealed. Here nothing is believed: the rows of each closing are read,
added up and digested as they were when it was made. Where they part, a row was changed, taken away or added
behind it, or the closing itself was changed; the rules of the ledger are then asked which order it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from store.ledger import account_rules
from store.ledger.accounts import read_accounts
from store.money import price
from store.sealed_rows import SEALED, Rows, Table, closing_of
from store.statement_text import text

_FACTS = ("number", "closed_at_ms")
"""What a closing says of itself, and not of its rows."""
_CENTS = "_cents"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parting:
    """One closing that is not as its rows are."""

    closing: int
    """Its number; 0 for what is under none that there is."""
    says: str
    """What is wrong with it, one sentence without its full stop."""
    orders: tuple[str, ...] = ()
    """What the rules of the ledger say of orders under it, if anything."""


@dataclass(frozen=True)
class Audit:
    """What came of counting everything again."""

    closings: int
    """How many there are."""
    rows: int
    """That are under them."""
    open_rows: int
    """That are under none yet."""
    partings: tuple[Parting, ...] = field(default=())

    @property
    def agrees(self) -> bool:
        """Whether every closing is as its rows are."""
        return not self.partings

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {"agrees": self.agrees, **asdict(self)}


def audit(store: sa.Connection, progress: Progress) -> Audit:
    """Count everything again, in the one moment that the transaction of this connection sees.

    `progress` is told how many closings are done, of how many.
    """
    numbers = list(store.execute(text("SELECT number FROM closings ORDER BY number")).scalars())
    partings: list[Parting] = []
    counted, before = 0, None
    last = max([*numbers, _value(store, "SELECT value FROM counters WHERE counter = 'closings'")], default=0)
    for number in range(1, last + 1):
        progress(number - 1, last)
        closing = _one(store, "SELECT * FROM closings WHERE number = :number", number=number)
        rows = _rows_of(store, number)
        counted += sum(map(len, rows.values()))
        if closing is None:
            partings.append(Parting(number, "is missing, or was never made"))
        else:
            partings.extend(_compare(store, closing, before, rows))
        before = closing
    progress(last, last)
    partings.extend(_strays(store, last))
    open_rows = sum(
        _value(store, f"SELECT count(*) FROM {table.name} WHERE closing IS NULL")  # noqa: S608 - ours
        for table in SEALED
    )
    return Audit(len(numbers), counted, open_rows, tuple(partings))


def _compare(store: sa.Connection, closing: Any, before: Any, rows: Rows) -> Iterator[Parting]:
    """A closing beside what its rows add up to, on top of the closing before it."""
    again = closing_of(closing.number, before, rows, closing.closed_at_ms)
    off = [name for name, value in again.items() if name not in _FACTS and value != getattr(closing, name)]
    if not off:
        return
    told = [
        f"has {_words(name)} {_shown(name, getattr(closing, name))}, and its rows make it"
        f" {_shown(name, again[name])}"
        for name in off
        if name != "digest"
    ]
    yield Parting(
        closing.number,
        "; ".join(told) or "has other rows than those that it sealed, which add up to the same",
        tuple(_faults(store, rows)),
    )


def _faults(store: sa.Connection, rows: Rows) -> Iterator[str]:
    keys = {row.payment_id for name in ("orders", "payments", "payment_notices") for row in rows[name]}
    keys |= {row.cause for row in rows["stock_movements"]}
    for account in read_accounts(store, keys).values():
        for fault in account_rules.faults_of(account):
            yield f"{fault.subject} {fault.says}"


def _strays(store: sa.Connection, last: int) -> Iterator[Parting]:
    """Rows that say to be under a closing that there cannot be."""
    for table in SEALED:
        count = _value(
            store,
            f"SELECT count(*) FROM {table.name} WHERE closing < 1 OR closing > :last",  # noqa: S608 - ours
            last=last,
        )
        if count:
            yield Parting(0, f"{count} rows of {table.name} are under a closing that there is not")


def _rows_of(store: sa.Connection, number: int) -> dict[str, list[Any]]:
    return {table.name: list(store.execute(_select(table), {"number": number})) for table in SEALED}


def _select(table: Table) -> sa.TextClause:
    return text(f"SELECT {table.columns} FROM {table.name} WHERE closing = :number")  # noqa: S608 - ours


def _one(store: sa.Connection, statement: str, **values: int) -> Any:
    return store.execute(text(statement), values).one_or_none()


def _value(store: sa.Connection, statement: str, **values: int) -> int:
    return int(store.execute(text(statement), values).scalar() or 0)


def _words(name: str) -> str:
    return name.removesuffix(_CENTS).replace("_", " ")


def _shown(name: str, value: int) -> str:
    return price(value) if name.endswith(_CENTS) else f"{value:,}"
