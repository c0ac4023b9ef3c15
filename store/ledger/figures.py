"""The figures of the ledger: totals by one statement, so they are of one moment.

Rows that a closing has sealed are not read: the last closing has their totals. What is open is counted by
index, and is seldom more than a thousand orders, however large the shop has grown.
"""

from __future__ import annotations

import sqlalchemy as sa

from store.reads.orders import CRASHES
from store.statement_text import text
from store.vocabulary import PRODUCT_ID

_LATE_MS = 5_000
"""What should have moved this long ago is late."""
_OPEN = {
    "stocked": "SELECT units FROM moved WHERE kind = 'restock'",
    "reserved": "SELECT n FROM moved WHERE kind = 'reserve'",
    "released": "SELECT n FROM moved WHERE kind = 'release'",
    "orders": "SELECT sum(n) FROM ended",
    "sold": "SELECT sum(n) FROM ended WHERE status IN ('paid', 'dispatched')",
    "cancelled": "SELECT sum(n) FROM ended WHERE status = 'cancelled'",
    "sold_out": "SELECT n FROM ended WHERE reason = 'sold_out'",
    "charges": "SELECT n FROM money WHERE kind = 'charge'",
    "refunds": "SELECT n FROM money WHERE kind = 'refund'",
    "charged_cents": "SELECT cents FROM money WHERE kind = 'charge'",
    "refunded_cents": "SELECT cents FROM money WHERE kind = 'refund'",
    "sold_cents": "SELECT sum(cents) FROM ended WHERE status IN ('paid', 'dispatched')",
    "greetings": "SELECT count(*) FROM greetings WHERE closing IS NULL",
}
"""What is not sealed by a closing adds this to each total of the last one."""


def _closed(total: str) -> str:
    return f"coalesce((SELECT {total} FROM closed), 0)"  # noqa: S608 - a name of ours


def _open(select: str) -> str:
    return f"coalesce(({select}), 0)"


_TOTALS = ",\n".join(f"{_closed(total)} + {_open(select)} AS {total}" for total, select in _OPEN.items())
_FIGURES = f"""
WITH
closed AS MATERIALIZED (
    SELECT * FROM closings ORDER BY number DESC LIMIT 1
),
ended AS MATERIALIZED (
    SELECT status, reason, count(*) AS n, sum(price_cents) AS cents FROM orders
    WHERE closing IS NULL GROUP BY status, reason
),
moved AS MATERIALIZED (
    SELECT kind, count(*) AS n, sum(units) AS units FROM stock_movements WHERE closing IS NULL GROUP BY kind
),
money AS MATERIALIZED (
    SELECT kind, count(*) AS n, sum(amount_cents) AS cents FROM payments WHERE closing IS NULL GROUP BY kind
),
due AS MATERIALIZED (
    SELECT CASE WHEN o.status = 'paid' THEN o.updated_at_ms + :tick_ms
        ELSE coalesce((SELECT min(n.received_at_ms) FROM payment_notices n
                       WHERE n.payment_id = o.payment_id AND n.received_at_ms < o.pay_by_ms), o.pay_by_ms)
        END AS at_ms
    FROM orders o WHERE o.status IN ('pending', 'paid')
),
damage AS MATERIALIZED (
    SELECT
        count(o.payment_id) FILTER (WHERE p.payment_id IS NULL) AS units_held_for_ever,
        count(p.payment_id) FILTER (WHERE o.status <> 'dispatched') AS charged_and_never_shipped,
        count(*) FILTER (WHERE r.visitor <> ''
            AND NOT EXISTS (SELECT 1 FROM naive_greetings g WHERE g.name = r.visitor))
            AS greetings_never_written_down
    FROM naive_runs r
    LEFT JOIN naive_orders o ON o.payment_id = r.key
    LEFT JOIN naive_payments p ON p.payment_id = r.key
    JOIN executors e ON e.number = r.executor
    WHERE e.ended_at_ms IS NOT NULL
)
SELECT
    (SELECT on_hand FROM products WHERE product_id = {PRODUCT_ID}) AS on_the_shelf,
    {_TOTALS},
    (SELECT n FROM ended WHERE status = 'pending') AS pending,
    {_closed("sold")} + {_open("SELECT n FROM ended WHERE status = 'dispatched'")} AS dispatched,
    {_closed("number")} AS closings,
    {_closed("orders")} AS closed_orders,
    (SELECT count(*) FROM due) AS under_way,
    (SELECT count(*) FROM due WHERE at_ms < :now_ms - {_LATE_MS}) AS late,
    (SELECT (:now_ms - min(at_ms)) / 1000 FROM due WHERE at_ms < :now_ms - {_LATE_MS}) AS late_by_seconds,
    (SELECT count(*) FROM orders WHERE (status = 'dispatched') <> (progress = 10)
        OR (status IN ('pending', 'cancelled') AND progress <> 0)) AS out_of_step,
    (SELECT value FROM counters WHERE counter = 'orders') AS numbers_given,
    (SELECT max(order_id) FROM orders) AS highest_number,
    (SELECT count(*) FROM holds) AS unpaid_units_counted,
    (SELECT value FROM counters WHERE counter = 'closings') AS closings_made,
    (SELECT count(*) FROM lost_checkpoints) AS unwitnessed,
    (SELECT count(*) FROM executors) AS servers,
    (SELECT value FROM counters WHERE counter = 'executors') AS servers_started,
    (SELECT max(number) FROM executors) AS newest_server,
    (SELECT count(DISTINCT t.payment_id) FROM takeovers t JOIN executors d ON d.number = t.left_by
        WHERE d.how_ended <> 'stopped' AND t.status IN ('pending', 'paid')) AS recovered,
    ({CRASHES}) AS crashes,
    (SELECT count(*) FROM naive_runs) AS naive_runs,
    (SELECT count(*) FROM naive_payments WHERE amount_cents > (SELECT price_cents FROM products
        WHERE product_id = {PRODUCT_ID})) AS charged_more_than_once,
    damage.*
FROM damage
"""  # noqa: S608 - constants of ours, no input


def figures_of(connection: sa.Connection, now_ms: int, tick_ms: int) -> dict[str, int]:
    """All figures by name; `now_ms` is in ms since 1970, and a tick of a dispatch takes `tick_ms`."""
    values = {"now_ms": now_ms, "tick_ms": tick_ms}
    found = connection.execute(text(_FIGURES), values).mappings().one()
    return {name: int(figure or 0) for name, figure in found.items()}
