"""Reads of the shop: plain SELECTs into frozen records.

Nothing here is a workflow step, so a page that polls writes nothing.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from store.reads import crashes, time_limit, timeline
from store.reads.cached import CachedRead
from store.reads.checkpoints import Checkpoints, as_time
from store.reads.crashes import Crash, Takeover
from store.reads.records import ORDER_COLUMNS, Board, Executor, Order, PaymentView, Product, Refund
from store.reads.timeline import Deploy, Timeline
from store.reads.watched import WatchedPayments
from store.statement_text import text
from store.vocabulary import PRODUCT_ID, PaymentState, dispatch_id

BOARD_SECONDS = 0.2
"""How old what a poll is shown may be: every watcher in that time is served by one SELECT."""
LIST_LIMIT = 100
"""The most orders that any list shows."""
_LIVE_LIMIT = 1000
"""The most moving orders that the board carries. Others are read while somebody watches them."""


CRASHES = """
SELECT count(*) AS crashes FROM executors WHERE how_ended <> 'stopped'
"""
"""Those that somebody knows of."""

_EXECUTOR = """
SELECT e.number, e.pid, e.machine, e.started_at_ms,
    (SELECT count(*) FROM takeovers t JOIN executors d ON d.number = t.left_by
        WHERE d.adopted_by = e.number AND d.how_ended <> 'stopped'
        AND t.status IN ('pending', 'paid')) AS recovered,
    (SELECT count(*) FROM greeting_takeovers g JOIN executors d ON d.number = g.left_by
        WHERE d.adopted_by = e.number AND d.how_ended <> 'stopped') AS recovered_greetings,
    (SELECT count(*) FROM executors l WHERE l.ended_at_ms IS NULL) AS living
FROM executors e WHERE e.number = :number
"""
_NEWEST_DEPLOY = """
SELECT max(e.started_at_ms) AS at_ms FROM executors e
JOIN server_code c ON c.executor = e.number JOIN server_code b ON b.executor = e.number - 1
WHERE c.digest <> b.digest
"""
_DEPLOY_SECONDS = 1.0
"""How old what is known of the newest deploy may be."""

# One statement, so that the shelf and the orders are of the same moment. Each half of the UNION walks an
# index.
_BOARD = f"""
WITH shown AS (
    SELECT * FROM (SELECT * FROM orders ORDER BY order_id DESC LIMIT {LIST_LIMIT}) AS newest
    UNION
    SELECT * FROM (SELECT * FROM orders WHERE status IN ('pending', 'paid')
                   ORDER BY order_id DESC LIMIT {_LIVE_LIMIT}) AS live
)
SELECT p.product_id AS shelf_product_id, p.name, p.description, p.price_cents, p.on_hand,
    {ORDER_COLUMNS}, {crashes.TAKEOVERS}
FROM products p LEFT JOIN shown o ON o.product_id = p.product_id
WHERE p.product_id = {PRODUCT_ID}
ORDER BY o.order_id DESC
"""  # noqa: S608 - constants of ours, no input


class Queries:
    """Every read that a page or a JSON route makes."""

    def __init__(self, reader: sa.Engine, checkpoints: Checkpoints) -> None:
        self._reader, self.checkpoints = reader, checkpoints
        self._board = CachedRead(self._read_board, BOARD_SECONDS)
        self._watched = WatchedPayments(reader, BOARD_SECONDS)
        self._newest_deploy_ms = CachedRead(self._read_newest_deploy, _DEPLOY_SECONDS)

    def board(self) -> Board:
        """The shop, at most `BOARD_SECONDS` old, however many ask.

        Raises:
            DeadlineExceeded: the database does not answer.
        """
        return self._board.get()

    def require_database(self) -> None:
        """Return if the database has answered a moment ago, or does now.

        For requests that write and read nothing first: they would wait for a workflow that waits, too.

        Raises:
            DeadlineExceeded: it does not answer.
        """
        self.board()

    def forget_board(self) -> None:
        """Have the next look read again, so that a client that has just changed something sees it."""
        self._board.forget()

    def _read_board(self) -> Board:
        with self._reader.connect() as connection:  # `CachedRead` has set the limit
            rows = list(connection.execute(text(_BOARD)))
            met = crashes.of_rows(connection, rows)
        shelf = rows[0]
        return Board(
            product=Product(
                shelf.shelf_product_id, shelf.name, shelf.description, shelf.price_cents, shelf.on_hand
            ),
            rows={row.payment_id: row for row in rows if row.order_id is not None},
            crashes=met,
        )

    def watch(self, payment_id: str) -> PaymentView:
        """A payment for a poll: from the board, or as it was read for all whose payments are not there."""
        return self.board().view(payment_id) or self._watched.view(payment_id)

    def payment(self, payment_id: str) -> PaymentView:
        """What there is of a payment now, by one SELECT, but not its crashes.

        RESERVING says only that there is nothing yet.
        """
        [found] = self.rows(
            f"SELECT {ORDER_COLUMNS}, r.refused_at_ms"  # noqa: S608 - ours
            " FROM (SELECT CAST(:payment_id AS TEXT) AS payment_id) k"
            " LEFT JOIN orders o ON o.payment_id = k.payment_id"
            " LEFT JOIN refusals r ON r.payment_id = k.payment_id",
            payment_id=payment_id,
        )
        if found.order_id is not None:
            order = Order.of(found)
            return PaymentView(order.state, order)
        return PaymentView(
            PaymentState.RESERVING if found.refused_at_ms is None else PaymentState.REFUSED, None
        )

    def find(self, payment_id: str) -> Order | None:
        """The order of this payment id as it is now, or None."""
        return self.payment(payment_id).order

    def is_sold_out_for(self, payment_id: str) -> bool:
        """Whether the shelf is empty, as the board shows it, and this payment has nothing of it yet."""
        is_empty = not self.board().product.on_hand
        return is_empty and self.payment(payment_id).state is PaymentState.RESERVING

    def find_by_number(self, order_id: int) -> Order | None:
        """The order of this number as it is now, or None."""
        return self._one("o.order_id = :order_id", order_id=order_id)

    def list_orders(self, *, before: int, limit: int) -> list[Order]:
        """Orders numbered below `before`, newest first, at most `limit` of them."""
        return [
            Order.of(row)
            for row in self.rows(
                f"SELECT {ORDER_COLUMNS} FROM orders o WHERE o.order_id < :before"  # noqa: S608 - ours
                " ORDER BY o.order_id DESC LIMIT :limit",
                before=before,
                limit=min(limit, LIST_LIMIT),
            )
        ]

    def refund(self, payment_id: str) -> Refund | None:
        """What was given back of an order's payment, if anything was."""
        rows = self.rows(
            "SELECT refund.amount_cents, charge.recorded_at_ms AS charged_at_ms,"
            " refund.recorded_at_ms AS refunded_at_ms"
            " FROM payments refund JOIN payments charge"
            " ON charge.kind = 'charge' AND charge.payment_id = refund.payment_id"
            " WHERE refund.kind = 'refund' AND refund.payment_id = :payment_id",
            payment_id=payment_id,
        )
        return (
            Refund(rows[0].amount_cents, as_time(rows[0].charged_at_ms), as_time(rows[0].refunded_at_ms))
            if rows
            else None
        )

    def executor(self, number: int) -> Executor:
        """One server process, which there is."""
        [row] = self.rows(_EXECUTOR, number=number)
        return Executor(
            number=row.number,
            pid=row.pid,
            machine=row.machine,
            at=as_time(row.started_at_ms),
            recovered=row.recovered,
            recovered_greetings=row.recovered_greetings,
            living=row.living,
        )

    def crashes_of(self, payment_id: str) -> tuple[Crash, ...]:
        """The crashes that an order met, oldest first."""

        def read() -> tuple[Crash, ...]:
            with self._reader.connect() as connection:
                return crashes.of_orders(connection, [payment_id]).get(payment_id, ())

        return time_limit.read(read)

    def deploys_met(self, order: Order) -> tuple[Deploy, ...]:
        """Where other code went on with an order.

        Its steps, which cost ten times as much, are read only if it was there before a deploy and another
        server took it up.

        Raises:
            DeadlineExceeded: a database does not answer.
        """
        if self._newest_deploy_ms.get() <= order.created_at.timestamp() * 1000:
            return ()
        taken_up = "SELECT 1 FROM takeovers WHERE payment_id = :id LIMIT 1"
        return self.timeline(order.payment_id).deploys if self.rows(taken_up, id=order.payment_id) else ()

    def _read_newest_deploy(self) -> int:
        [found] = self._select(_NEWEST_DEPLOY)  # `CachedRead` has set the limit
        return int(found.at_ms or 0)

    def crashes_between(self, first_ms: int, last_ms: int) -> tuple[Crash, ...]:
        """Every crash that came in this time, in ms since 1970; oldest first."""

        def read() -> tuple[Crash, ...]:
            with self._reader.connect() as connection:
                return crashes.between(connection, first_ms, last_ms)

        return time_limit.read(read)

    def adopter_of(self, number: int) -> int | None:
        """Who has taken up the work of the server of this number, or is about to; None while nobody is."""
        rows = self.rows("SELECT adopted_by FROM executors WHERE number = :number", number=number)
        return rows[0].adopted_by if rows else None

    def has_ended(self, number: int) -> bool:
        """Whether the server of this number is there no more."""
        return bool(
            self.rows("SELECT 1 FROM executors WHERE number = :n AND ended_at_ms IS NOT NULL", n=number)
        )

    def token_of(self, number: int | None) -> str:
        """What its parent calls the server of this number, if that lives; nothing if not."""
        rows = self.rows(
            "SELECT token FROM executors WHERE number = :number AND ended_at_ms IS NULL", number=number
        )
        return rows[0].token if rows else ""

    def takeover_from(self, number: int) -> Takeover | None:
        """What was taken over from that server; None where it did not crash, or nobody has yet."""

        def read() -> Takeover | None:
            with self._reader.connect() as connection:
                return crashes.takeover_from(connection, number)

        return time_limit.read(read)

    def timeline(self, payment_id: str) -> Timeline:
        """Every step of an order, with the crashes and mendings that came between.

        Raises:
            DeadlineExceeded: a database does not answer.
        """
        workflow_ids = (payment_id, dispatch_id(payment_id))

        recorded = self.checkpoints.list_steps(*workflow_ids)
        last = self.checkpoints.runs_on(*workflow_ids)

        def read() -> Timeline:
            with self._reader.connect() as connection:
                met = crashes.of_story(connection, payment_id)
                servers = crashes.servers_of_order(connection, payment_id, last)
                return timeline.of(recorded, met, timeline.mendings_of(connection, workflow_ids), servers, {})

        return time_limit.read(read)

    def count_crashes(self) -> int:
        """How many server processes ended without being stopped, and had a successor."""
        [found] = self.rows(CRASHES)
        return int(found.crashes)

    def _one(self, condition: str, **values: Any) -> Order | None:
        rows = self.rows(f"SELECT {ORDER_COLUMNS} FROM orders o WHERE {condition}", **values)  # noqa: S608 - ours
        return Order.of(rows[0]) if rows else None

    def has_begun_anew(self) -> bool:
        """Whether there was a reset: what is not there may have been before it."""
        return bool(self.rows("SELECT 1 FROM last_reset"))

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """One SELECT, within the time that a read may take.

        Raises:
            DeadlineExceeded: the database does not answer.
        """
        return time_limit.read(lambda: self._select(statement, **values))

    def _select(self, statement: str, **values: Any) -> list[Any]:
        with self._reader.connect() as connection:
            return list(connection.execute(text(statement), values))
