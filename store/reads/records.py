"""What the reads return: frozen records of the shop. Times are aware, in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from store.reads.checkpoints import as_time
from store.reads.crashes import Crash
from store.vocabulary import DISPATCH_TICKS, Outcome, PaymentState, Reason, Status

ORDER_COLUMNS = (
    "o.payment_id, o.order_id, o.product_id, o.price_cents AS order_price_cents, o.status, o.reason,"
    " o.progress, o.created_at_ms, o.pay_by_ms, o.extended_at_ms, o.updated_at_ms,"
    " CASE WHEN o.status = 'pending' THEN EXISTS"
    " (SELECT 1 FROM payment_notices n WHERE n.payment_id = o.payment_id)"
    " ELSE FALSE END AS has_notice"
)
"""Of an order `o`, in a SELECT whose rows `Order.of` reads."""


@dataclass(frozen=True)
class Product:
    """What is for sale."""

    product_id: int
    name: str
    description: str
    price_cents: int
    on_hand: int


@dataclass(frozen=True)
class Order:
    """One order as it stands. Times are aware, in UTC."""

    payment_id: str
    order_id: int
    product_id: int
    price_cents: int
    status: Status
    reason: Reason | None
    progress: int
    created_at: datetime
    pay_by: datetime
    is_extended: bool
    """Whether its shopper has asked for more time to pay, which one may once."""
    updated_at: datetime
    has_notice: bool
    """Whether word of its payment has come, whatever it says."""

    @classmethod
    def of(cls, row: Any) -> Order:
        """The order in a row that has the columns of `ORDER_COLUMNS`."""
        return cls(
            payment_id=row.payment_id,
            order_id=row.order_id,
            product_id=row.product_id,
            price_cents=row.order_price_cents,
            status=Status(row.status),
            reason=Reason(row.reason) if row.reason else None,
            progress=row.progress,
            created_at=as_time(row.created_at_ms),
            pay_by=as_time(row.pay_by_ms),
            is_extended=row.extended_at_ms is not None,
            updated_at=as_time(row.updated_at_ms),
            has_notice=bool(row.has_notice),
        )

    @property
    def state(self) -> PaymentState:
        """Where the order stands, as a page shows it."""
        if self.status is not Status.PENDING:
            return PaymentState(self.status)
        is_deciding = self.has_notice or self.pay_by <= datetime.now(UTC)
        return PaymentState.SETTLING if is_deciding else PaymentState.AWAITING_PAYMENT

    @property
    def is_final(self) -> bool:
        """Whether the order will not change again."""
        return self.status in {Status.DISPATCHED, Status.CANCELLED}

    @property
    def progress_remaining(self) -> int:
        """Ticks still to come, `DISPATCH_TICKS` down to 0."""
        return DISPATCH_TICKS - self.progress

    def can_be_changed_by(self, outcome: Outcome) -> bool:
        """Whether a notice of this outcome has to be acted on: it settles the order, or is late money."""
        return self.status is Status.PENDING or (self.status is Status.CANCELLED and outcome is Outcome.PAID)

    def ms_to_pay(self) -> int:
        """Milliseconds left of the payment window; 0 once it has closed."""
        return max(0, (self.pay_by - datetime.now(UTC)) // timedelta(milliseconds=1))


@dataclass(frozen=True)
class PaymentView:
    """What there is of a payment: its order, or why there is none."""

    state: PaymentState
    order: Order | None
    crashes: tuple[Crash, ...] = ()
    """That met its order, oldest first."""


@dataclass(frozen=True)
class Orders:
    """Orders as they were at one moment."""

    rows: Mapping[str, Any]
    """Of each, by payment id. Of a thousand, few are asked for at any moment."""
    crashes: Mapping[str, tuple[Crash, ...]]
    """That met them, by payment id; of those that met some."""

    def view(self, payment_id: str) -> PaymentView | None:
        """One of them, with its crashes; None of any other."""
        row = self.rows.get(payment_id)
        if row is None:
            return None
        order = Order.of(row)
        return PaymentView(order.state, order, self.crashes.get(payment_id, ()))


@dataclass(frozen=True)
class Board(Orders):
    """The shop at one moment: the product, the newest orders, and those that still move; newest first."""

    product: Product

    def newest(self, limit: int) -> list[Order]:
        """The newest orders, so many of them, or as many as are here."""
        return [Order.of(row) for row in islice(self.rows.values(), limit)]


@dataclass(frozen=True)
class Refund:
    """Money that came too late and was given back. Times are aware, in UTC."""

    amount_cents: int
    charged_at: datetime
    refunded_at: datetime


@dataclass(frozen=True)
class Executor:
    """One of the server processes that have run the shop, counted from 1. Times are aware, in UTC."""

    number: int
    pid: int
    machine: str
    at: datetime
    """When it started."""
    recovered: int
    """Orders that a crash had left under way, and this one took up."""
    recovered_greetings: int
    living: int
    """How many there are now, this one included."""
