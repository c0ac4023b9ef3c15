"""Owns the read side: plain SELECTs into frozen dataclasses. Imports `vocabulary` and `patience`.

Nothing here is a workflow step, so a page that polls writes nothing.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from dbos import DBOS

from store.patience import PAGE_SECONDS, TooSlow, promptly
from store.vocabulary import CHECKOUT, DISPATCH_TICKS, PRODUCT_ID, Reason, Status, dispatch_id

BOARD_SECONDS = 0.2
"""How old what a poll is shown may be: every watcher in that time is served by one SELECT."""
LIST_LIMIT = 100
"""The most orders that any list shows."""
_LIVE_LIMIT = 1000
"""The most moving orders that the board carries; one beyond them is read by itself."""


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
    updated_at: datetime

    @property
    def is_final(self) -> bool:
        """Whether the order will not change again."""
        return self.status in {Status.DISPATCHED, Status.CANCELLED}

    @property
    def progress_remaining(self) -> int:
        """Ticks still to come, `DISPATCH_TICKS` down to 0."""
        return DISPATCH_TICKS - self.progress

    def seconds_to_pay(self) -> int:
        """Whole seconds left of the payment window, rounded up; 0 once it has closed."""
        left = (self.pay_by - datetime.now(UTC)).total_seconds()
        return max(0, -int(-left // 1))


@dataclass(frozen=True)
class Board:
    """The shop at one moment: the product, the newest orders, and every order that still moves."""

    product: Product
    newest: tuple[Order, ...]
    orders: dict[str, Order]
    read_at: float
    """On the monotonic clock of this process."""


@dataclass(frozen=True)
class Checkpoint:
    """One thing that DBOS remembers of an order, and will not do again."""

    name: str
    completed_at: datetime


_ORDER = (
    "o.payment_id, o.order_id, o.product_id, o.price_cents AS order_price_cents, o.status, o.reason,"
    " o.progress, o.created_at_ms, o.pay_by_ms, o.updated_at_ms"
)

# One statement, so that the shelf and the orders are of the same moment. Each half of the
# UNION walks an index.
_BOARD = f"""
WITH shown AS (
    SELECT * FROM (SELECT * FROM orders ORDER BY order_id DESC LIMIT {LIST_LIMIT}) AS newest
    UNION
    SELECT * FROM (SELECT * FROM orders WHERE status IN ('pending', 'paid')
                   ORDER BY order_id DESC LIMIT {_LIVE_LIMIT}) AS live
)
SELECT p.product_id AS shelf_product_id, p.name, p.description, p.price_cents, p.on_hand, {_ORDER}
FROM products p LEFT JOIN shown o ON o.product_id = p.product_id
WHERE p.product_id = {PRODUCT_ID}
ORDER BY o.order_id DESC
"""  # noqa: S608 - constants of ours, no input


class Queries:
    """Every read that a page or a JSON route makes."""

    def __init__(self, reader: sa.Engine) -> None:
        self._reader = reader
        self._board: Board | None = None
        self._board_lock = threading.Lock()
        self._forgotten_at = 0.0

    def board(self) -> Board:
        """The shop, at most `BOARD_SECONDS` old, however many ask.

        Whoever comes first after that time reads for everyone who comes meanwhile.

        Raises:
            TooSlow: that first one is still waiting for the database.
        """
        board = self._fresh_board()
        if board is None:
            if not self._board_lock.acquire(timeout=PAGE_SECONDS):
                raise TooSlow("the board is still being read")
            try:
                board = self._fresh_board() or self._read_board()
                self._board = board
            finally:
                self._board_lock.release()
        return board

    def forget_board(self) -> None:
        """Have the next look read again, so that whoever has just changed something sees it."""
        self._forgotten_at = time.monotonic()

    def _fresh_board(self) -> Board | None:
        board = self._board
        if board is None or board.read_at < self._forgotten_at:
            return None
        return board if time.monotonic() - board.read_at < BOARD_SECONDS else None

    def _read_board(self) -> Board:
        read_at = time.monotonic()  # before the SELECT: what is committed later is not in it
        rows = self._rows(_BOARD)
        orders = [_order(row) for row in rows if row.order_id is not None]
        shelf = rows[0]
        return Board(
            product=Product(
                shelf.shelf_product_id, shelf.name, shelf.description, shelf.price_cents, shelf.on_hand
            ),
            newest=tuple(orders[:LIST_LIMIT]),
            orders={order.payment_id: order for order in orders},
            read_at=read_at,
        )

    def watch(self, payment_id: str) -> Order | None:
        """An order for a poll: from the board while it moves, by itself once it has left the board."""
        return self.board().orders.get(payment_id) or self.find(payment_id)

    def find(self, payment_id: str) -> Order | None:
        """The order of this payment id as it is now, or None."""
        return self._one("o.payment_id = :payment_id", payment_id=payment_id)

    def find_by_number(self, order_id: int) -> Order | None:
        """The order of this number as it is now, or None."""
        return self._one("o.order_id = :order_id", order_id=order_id)

    def list_orders(self, *, before: int, limit: int) -> list[Order]:
        """Orders numbered below `before`, newest first, at most `limit` of them."""
        return [
            _order(row)
            for row in self._rows(
                f"SELECT {_ORDER} FROM orders o WHERE o.order_id < :before"  # noqa: S608 - ours
                " ORDER BY o.order_id DESC LIMIT :limit",
                before=before,
                limit=min(limit, LIST_LIMIT),
            )
        ]

    def _one(self, condition: str, **values: Any) -> Order | None:
        rows = self._rows(f"SELECT {_ORDER} FROM orders o WHERE {condition}", **values)  # noqa: S608 - ours
        return _order(rows[0]) if rows else None

    def _rows(self, statement: str, **values: Any) -> list[Any]:
        with self._reader.connect() as connection:
            return list(connection.execute(sa.text(statement), values))


def is_known_checkout(payment_id: str) -> bool:
    """Whether a checkout of this id was started, though its order may not exist yet."""
    workflow = promptly(lambda: DBOS.get_workflow_status(payment_id))
    return workflow is not None and workflow.name == CHECKOUT


def list_checkpoints(payment_id: str) -> list[Checkpoint]:
    """What DBOS has recorded of an order's checkout and dispatch, oldest first."""

    def read() -> list[Checkpoint]:
        steps = [
            step
            for workflow_id in (payment_id, dispatch_id(payment_id))
            for step in DBOS.list_workflow_steps(workflow_id, load_output=False)
        ]
        return [
            Checkpoint(step["function_name"], _time(step["completed_at_epoch_ms"]))
            for step in steps
            if step["completed_at_epoch_ms"] is not None
        ]

    return sorted(promptly(read), key=lambda checkpoint: checkpoint.completed_at)


def _order(row: Any) -> Order:
    return Order(
        payment_id=row.payment_id,
        order_id=row.order_id,
        product_id=row.product_id,
        price_cents=row.order_price_cents,
        status=Status(row.status),
        reason=Reason(row.reason) if row.reason else None,
        progress=row.progress,
        created_at=_time(row.created_at_ms),
        pay_by=_time(row.pay_by_ms),
        updated_at=_time(row.updated_at_ms),
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
