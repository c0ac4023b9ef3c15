"""Accounts: all rows of the store that are about one payment, whichever table they are in.

Each of them has the payment's id as key. The tables are walked by that key, so that a row which belongs to
no order is found as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from store.statement_text import text

OPENING = "opening"
"""Cause of the restock that a new shop begins with; see `schema.sql`."""
_SHOWN = 4
"""Characters of a payment id that are shown where no order has it: anyone who has one can pay."""
_BATCH = 500


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it must be."""

    line: str
    """Which line of the ledger is about it, by the names in `invariants`."""
    key: str
    """Of the account, to look at it again."""
    subject: str
    """What it is for people: "order 7"."""
    says: str
    """What is wrong with it, and by how much."""
    order_id: int | None = None


@dataclass(frozen=True)
class Account:
    """Everything that the store has of one key. Several orders, or charges, only where the key was broken."""

    key: str
    rows: dict[str, list[Any]] = field(default_factory=dict)
    """By table; those that have none are not in it."""

    def of(self, table: str, kind: str = "") -> list[Any]:
        """Its rows in a table, of one kind where they have kinds."""
        return [row for row in self.rows.get(table, []) if not kind or row.kind == kind]

    @property
    def orders(self) -> list[Any]:
        """Of this payment: one, or none."""
        return self.of("orders")

    def amounts(self, kind: str) -> list[int]:
        """Cents that were charged or refunded."""
        return [row.amount_cents for row in self.of("payments", kind)]

    @property
    def notices(self) -> list[str]:
        """Outcomes, the earliest first."""
        return [row.outcome for row in self.of("payment_notices")]

    @property
    def needs_no_witness(self) -> bool:
        """Whether its checkpoints are known to be gone, or were forgotten so that its workflow runs again."""
        # A movement of an order may be sealed before its order is.
        made = self.orders or [
            *self.of("stock_movements", "restock"), *self.of("refusals"), *self.of("greeting_requests"),
        ]  # fmt: skip
        return any(row.is_removed for row in made) or not self.rows.keys().isdisjoint(
            {"lost_checkpoints", "mendings"}
        )

    @property
    def run_again_ms(self) -> int:
        """When its workflow was last run again, in ms since 1970; 0 if it never was."""
        return max((row.mended_at_ms for row in self.of("mendings")), default=0)

    @property
    def subject(self) -> str:
        """What it is for people."""
        if self.orders:
            return f"order {self.orders[0].order_id}"
        for each in (*self.of("greeting_requests"), *self.of("greetings")):
            return f"the greeting of {each.name}"
        if self.of("stock_movements", "restock"):
            return "the opening stock" if self.key == OPENING else f"restock {self.key[:_SHOWN]}…"
        return f"payment {self.key[:_SHOWN]}…"

    def fault(self, line: str, says: str) -> Fault:
        """Something that is wrong with it."""
        order_id = self.orders[0].order_id if self.orders else None
        return Fault(line, self.key, self.subject, says, order_id)


# --- reading ---------------------------------------------------------------------------------------

_IS_REMOVED = "closing <= (SELECT max(closing) FROM removed_checkpoints) AS is_removed"
"""Whether the checkpoints of a row's workflow were removed, because it was sealed long ago."""
_SELECTS = {
    "orders": "SELECT payment_id, order_id, product_id, price_cents, status, reason, progress,"
    " created_at_ms, pay_by_ms, extended_at_ms, {is_removed}"
    " FROM orders WHERE payment_id {keys}",
    "payments": "SELECT payment_id, kind, amount_cents FROM payments"
    " WHERE kind IN ('charge', 'refund') AND payment_id {keys}",
    "stock_movements": "SELECT cause, kind, units, product_id, {is_removed} FROM stock_movements"
    " WHERE kind IN ('restock', 'reserve', 'release') AND cause {keys}",
    "payment_notices": "SELECT payment_id, outcome FROM payment_notices"
    " WHERE payment_id {keys} ORDER BY received_at_ms",
    "holds": "SELECT payment_id FROM holds WHERE payment_id {keys}",
    "refusals": "SELECT payment_id, {is_removed} FROM refusals WHERE payment_id {keys}",
    "greeting_requests": "SELECT greeting_id, name, outcome, reason, {is_removed} FROM greeting_requests"
    " WHERE greeting_id {keys}",
    "greetings": "SELECT greeting_id, name, signature FROM greetings WHERE greeting_id {keys}",
    "lost_checkpoints": "SELECT workflow_id FROM lost_checkpoints WHERE workflow_id {keys}",
    "mendings": "SELECT workflow_id, mended_at_ms FROM mendings WHERE workflow_id {keys}",
}
"""What is read of each table; the first column is the key."""
_END_OF_WINDOW = """
SELECT min(key) FROM (
    SELECT key FROM (SELECT payment_id AS key FROM orders WHERE payment_id > :after
                     ORDER BY payment_id LIMIT 1 OFFSET :size) AS by_order
    UNION ALL
    SELECT key FROM (SELECT greeting_id AS key FROM greeting_requests WHERE greeting_id > :after
                     ORDER BY greeting_id LIMIT 1 OFFSET :size) AS by_greeting
    UNION ALL
    SELECT key FROM (SELECT payment_id AS key FROM refusals WHERE payment_id > :after
                     ORDER BY payment_id LIMIT 1 OFFSET :size) AS by_refusal
    UNION ALL
    SELECT key FROM (SELECT cause AS key FROM stock_movements WHERE kind = 'restock' AND cause > :after
                     ORDER BY cause LIMIT 1 OFFSET :size) AS by_restock
) AS ends
"""


def end_of_window(store: sa.Connection, after: str, size: int) -> str | None:
    """The key at which about `size` accounts after `after` end; None if those are all that are left."""
    end: str | None = store.execute(text(_END_OF_WINDOW), {"after": after, "size": size}).scalar()
    return end


def moving_and_newest(store: sa.Connection, most_live: int, newest: int) -> list[str]:
    """The keys of orders that still move, at most so many, and of so many that were made last."""
    rows = store.execute(
        text(
            "SELECT payment_id FROM (SELECT payment_id FROM orders WHERE status IN ('pending', 'paid')"
            " ORDER BY order_id LIMIT :most_live) AS live UNION SELECT payment_id FROM"
            " (SELECT payment_id FROM orders ORDER BY order_id DESC LIMIT :newest) AS newest"
        ),
        {"most_live": most_live, "newest": newest},
    )
    return list(rows.scalars())


def known(store: sa.Connection, keys: Sequence[str]) -> set[str]:
    """Which of these keys have an order, a refusal, a restock or a greeting."""
    if not keys:
        return set()  # Postgres cannot tell of which type an empty list is
    statement = text(
        "SELECT payment_id FROM orders WHERE payment_id IN :keys"
        " UNION ALL SELECT payment_id FROM refusals WHERE payment_id IN :keys"
        " UNION ALL SELECT cause FROM stock_movements WHERE kind = 'restock' AND cause IN :keys"
        " UNION ALL SELECT greeting_id FROM greeting_requests WHERE greeting_id IN :keys",
        "keys",
    )
    return set(store.execute(statement, {"keys": keys}).scalars())


def read_window(store: sa.Connection, after: str, end: str | None) -> dict[str, Account]:
    """The accounts from one key on, up to another."""
    if end is None:
        return _read(store, ">= :after", {"after": after})
    return _read(store, "BETWEEN :after AND :end", {"after": after, "end": end})


def read_accounts(store: sa.Connection, wanted: Iterable[str]) -> dict[str, Account]:
    """The accounts of these keys, those that have nothing too."""
    ids = sorted(set(wanted))
    found = {key: Account(key) for key in ids}
    for first in range(0, len(ids), _BATCH):
        found |= _read(store, "IN :ids", {"ids": ids[first : first + _BATCH]}, "ids")
    return found


def _read(store: sa.Connection, keys: str, values: dict[str, Any], *lists: str) -> dict[str, Account]:
    accounts: dict[str, Account] = {}
    for table, select in _SELECTS.items():
        statement = text(select.format(keys=keys, is_removed=_IS_REMOVED), *lists)
        for row in store.execute(statement, values):
            accounts.setdefault(row[0], Account(row[0])).rows.setdefault(table, []).append(row)
    return accounts
