"""Owns the comparison of the store's tables with each other, row by row. Imports `vocabulary`.

Everything that is about one payment has its id as key, whichever table it is in: an *account* is all of it
together. The tables are walked by that key, so that a row which belongs to nobody is met as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from store.vocabulary import (
    DISPATCH_TICKS,
    PRODUCT_ID,
    SHELF_SIZE,
    GreetingOutcome,
    Movement,
    Outcome,
    Payment,
    Reason,
    Status,
    price,
)

OPENING = "opening"
"""Cause of the restock that a new shop begins with; see `schema.sql`."""
_SHOWN = 4
"""Characters of a payment id that are shown where no order has it: whoever has one can pay."""
_BATCH = 500


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it must be."""

    line: str
    """Which line of the books is about it, by the names in `books`."""
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
        """Outcomes, the first that was heard first."""
        return [row.outcome for row in self.of("payment_notices")]

    @property
    def needs_no_witness(self) -> bool:
        """Whether its checkpoints are known to be lost, or were forgotten so that its workflow runs again."""
        return not self.rows.keys().isdisjoint({"lost_checkpoints", "mendings"})

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

_SELECTS = {
    "orders": "SELECT payment_id, order_id, product_id, price_cents, status, reason, progress, pay_by_ms"
    " FROM orders WHERE payment_id {keys}",
    "payments": "SELECT payment_id, kind, amount_cents FROM payments"
    " WHERE kind IN ('charge', 'refund') AND payment_id {keys}",
    "stock_movements": "SELECT cause, kind, units, product_id FROM stock_movements"
    " WHERE kind IN ('restock', 'reserve', 'release') AND cause {keys}",
    "payment_notices": "SELECT payment_id, outcome FROM payment_notices"
    " WHERE payment_id {keys} ORDER BY received_at_ms",
    "holds": "SELECT payment_id FROM holds WHERE payment_id {keys}",
    "refusals": "SELECT payment_id FROM refusals WHERE payment_id {keys}",
    "greeting_requests": "SELECT greeting_id, name, outcome, reason FROM greeting_requests"
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
    end: str | None = store.execute(sa.text(_END_OF_WINDOW), {"after": after, "size": size}).scalar()
    return end


def moving_and_newest(store: sa.Connection, most_live: int, newest: int) -> list[str]:
    """The keys of orders that still move, at most so many, and of so many that were made last."""
    rows = store.execute(
        sa.text(
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
    statement = sa.text(
        "SELECT payment_id FROM orders WHERE payment_id IN :keys"
        " UNION ALL SELECT payment_id FROM refusals WHERE payment_id IN :keys"
        " UNION ALL SELECT cause FROM stock_movements WHERE kind = 'restock' AND cause IN :keys"
        " UNION ALL SELECT greeting_id FROM greeting_requests WHERE greeting_id IN :keys"
    ).bindparams(sa.bindparam("keys", expanding=True))
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
        found |= _read(store, "IN :ids", {"ids": ids[first : first + _BATCH]})
    return found


def _read(store: sa.Connection, keys: str, values: dict[str, Any]) -> dict[str, Account]:
    accounts: dict[str, Account] = {}
    for table, select in _SELECTS.items():
        statement = sa.text(select.format(keys=keys))
        if "ids" in values:
            statement = statement.bindparams(sa.bindparam("ids", expanding=True))
        for row in store.execute(statement, values):
            accounts.setdefault(row[0], Account(row[0])).rows.setdefault(table, []).append(row)
    return accounts


# --- comparing -------------------------------------------------------------------------------------


def faults_of(account: Account) -> Iterator[Fault]:
    """Everything that is wrong with one account, as the store alone can tell."""
    if not account.orders:
        yield from _faults_of_nobody(account)
    elif len(account.orders) > 1:
        yield account.fault("numbers", f"has its key {len(account.orders)} times")
    else:
        order = account.orders[0]
        yield from _faults_of_progress(account, order)
        yield from _faults_of_stock(account, order)
        yield from _faults_of_money(account, order)
        yield from _faults_of_notices(account, order)
        if account.of("holds") and order.status != Status.PENDING:
            yield account.fault("holds", f"is {order.status}, and still counts as an unpaid unit")
        if account.of("refusals"):
            yield account.fault("witnesses", "was refused, and is there")
    yield from _faults_of_restock(account)
    yield from _faults_of_greeting(account)


def _faults_of_nobody(account: Account) -> Iterator[Fault]:
    """What belongs to an order that does not exist."""
    for row in account.of("payments"):
        yield account.fault("charges", f"has a {row.kind} of {_money(row.amount_cents)}, and no order")
    for kind in (Movement.RESERVE, Movement.RELEASE):
        for row in account.of("stock_movements", kind):
            yield account.fault("reserves", f"has a {kind} of {abs(row.units)}, and no order")
    if account.of("holds"):
        yield account.fault("holds", "counts as an unpaid unit, and has no order")


def _faults_of_progress(account: Account, order: Any) -> Iterator[Fault]:
    is_right = {
        Status.PENDING: order.progress == 0,
        Status.PAID: 0 <= order.progress < DISPATCH_TICKS,
        Status.DISPATCHED: order.progress == DISPATCH_TICKS,
        Status.CANCELLED: order.progress == 0,
    }
    if not is_right.get(order.status, False):
        yield account.fault("progress", f"is {order.status}, with {order.progress} of {DISPATCH_TICKS}")
    if order.product_id != PRODUCT_ID:
        yield account.fault("reserves", f"is of product {order.product_id}, which the shop does not sell")


def _faults_of_stock(account: Account, order: Any) -> Iterator[Fault]:
    is_sold_out = order.reason == Reason.SOLD_OUT
    taken = [-units for units in _units(account, Movement.RESERVE)]
    expected = [] if is_sold_out else [1]
    if taken != expected:
        yield account.fault("reserves", f"took {_amount(taken)}, and should have taken {_amount(expected)}")
    given_back = _units(account, Movement.RELEASE)
    expected = [1] if order.status == Status.CANCELLED and not is_sold_out else []
    if given_back != expected:
        yield account.fault(
            "releases", f"gave {_amount(given_back)} back, and should have given {_amount(expected)}"
        )


def _faults_of_money(account: Account, order: Any) -> Iterator[Fault]:
    charges, refunds = account.amounts(Payment.CHARGE), account.amounts(Payment.REFUND)
    says = f"is charged {_money(*charges)}, refunded {_money(*refunds)}, and costs {price(order.price_cents)}"
    if order.status in {Status.PAID, Status.DISPATCHED}:
        if (charges, refunds) != ([order.price_cents], []):
            yield account.fault("charges", f"is {order.status}, {says}")
    elif order.status == Status.PENDING:
        if charges or refunds:
            yield account.fault("unpaid", f"is not paid yet, {says}")
    elif charges != refunds or charges not in ([], [order.price_cents]):
        yield account.fault("refunds", f"is cancelled, {says}")


def _faults_of_notices(account: Account, order: Any) -> Iterator[Fault]:
    heard = account.notices
    first = heard[0] if heard else "missing"
    if order.status in {Status.PAID, Status.DISPATCHED} and first != Outcome.PAID:
        yield account.fault("notices", f"is {order.status}, and the first word of its payment is {first}")
    if order.reason == Reason.DECLINED and first != Outcome.FAILED:
        yield account.fault("notices", f"is declined, and the first word of its payment is {first}")
    was_paid, is_charged = Outcome.PAID in heard, bool(account.amounts(Payment.CHARGE))
    if order.status == Status.CANCELLED and was_paid and not is_charged:
        yield account.fault("notices", "is cancelled, was paid too late, and the money is nowhere")
    if order.status == Status.CANCELLED and is_charged and not was_paid:
        yield account.fault("notices", "is cancelled and charged, and nobody has said that it was paid")


def _faults_of_restock(account: Account) -> Iterator[Fault]:
    for movement in account.of("stock_movements", Movement.RESTOCK):
        if movement.product_id != PRODUCT_ID:
            yield account.fault("shelf", f"is of product {movement.product_id}, which the shop does not sell")
        if account.key == OPENING and movement.units != SHELF_SIZE:
            yield account.fault("stock", f"was {movement.units} units, and a shop opens with {SHELF_SIZE}")


def _faults_of_greeting(account: Account) -> Iterator[Fault]:
    requests, greetings = account.of("greeting_requests"), account.of("greetings")
    wanted = sum(request.outcome == GreetingOutcome.GREETED for request in requests)
    if len(greetings) != wanted:
        yield account.fault(
            "greetings", f"is written down {len(greetings)} times, and should be {wanted} times"
        )
    for greeting in greetings:
        if any(greeting.name != request.name for request in requests):
            yield account.fault("greetings", f"is written down as that of {greeting.name}")


def _units(account: Account, kind: str) -> list[int]:
    return [row.units for row in account.of("stock_movements", kind) if row.product_id == PRODUCT_ID]


def _amount(units: list[int]) -> str:
    return "no unit" if not units else "1 unit" if sum(units) == 1 else f"{sum(units)} units"


def _money(*cents: int) -> str:
    return " and ".join(f"-{price(-each)}" if each < 0 else price(each) for each in cents) or "nothing"
