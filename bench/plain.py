"""The yardstick: a small shop with the same workflow on the same tables, written plainly on DBOS.

Each action is one checkpointed datasource transaction; the payment comes by `recv`; a dispatch is ten times a
durable sleep and such a transaction. Engines, polling and serializer are DBOS's defaults. The isolation on
Postgres is not: by default, buyers who meet on the product's row would try again and again. Its pages are a
few lines, and it has no limits, no ledger and no presenter.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetWorkflowID, SQLAlchemyDatasource
from flask import Flask, redirect, request
from werkzeug.wrappers import Response

from bench.bare import serve
from store.process_wide import ProcessWide
from store.settings import Settings, is_sqlite

_EVENT_SECONDS = 10.0
_TICKS = 10
_PAGE = "<!doctype html><title>The Plain Shop</title>"


@dataclass(frozen=True)
class _Shop:
    settings: Settings
    datasource: SQLAlchemyDatasource
    reader: sa.Engine
    isolation_level: str


_shop: ProcessWide[_Shop] = ProcessWide("the plain shop")


# --- workflows ------------------------------------------------------------------------


@DBOS.workflow(name="plain checkout", max_recovery_attempts=None)
def checkout(key: str) -> None:
    """From reserving a unit to paid or cancelled."""
    if not _act("reserve", reserve, key):
        DBOS.set_event("held", value=False)
        return
    DBOS.set_event("held", value=True)
    outcome = DBOS.recv("payment", timeout_seconds=_shop().settings.payment_window_seconds)
    if outcome == "paid":
        _act("charge", charge, key)
        with SetWorkflowID(f"{key}-dispatch"):
            DBOS.start_workflow(dispatch, key)
    else:
        _act("cancel", cancel, key)
    DBOS.set_event("settled", value=True)


@DBOS.workflow(name="plain dispatch", max_recovery_attempts=None)
def dispatch(key: str) -> None:
    """Ten ticks from paid to dispatched."""
    for tick in range(1, _TICKS + 1):
        DBOS.sleep(_shop().settings.dispatch_tick_seconds)
        _act(f"tick {tick}", record_tick, key, tick)


def _act(name: str, change: Callable[..., bool], *arguments: object) -> bool:
    shop = _shop()
    options: Any = {"name": name, "isolation_level": shop.isolation_level}
    done: bool = shop.datasource.run_tx_step(options, change, *arguments)
    return done


# --- actions --------------------------------------------------------------------------


def reserve(key: str) -> bool:
    """Take a unit off the shelf and create the order that holds it; whether there was one."""
    if not _execute(
        "UPDATE products SET on_hand = on_hand - 1 WHERE product_id = 1 AND on_hand > 0"
    ).rowcount:
        return False
    count = "UPDATE counters SET value = value + 1 WHERE counter = 'orders' RETURNING value"
    _execute(
        "INSERT INTO orders (payment_id, order_id, product_id, price_cents, status, progress,"
        " created_at_ms, pay_by_ms, updated_at_ms)"
        " SELECT :key, :number, product_id, price_cents, 'pending', 0,"
        " :at_ms, :at_ms + :window_ms, :at_ms FROM products WHERE product_id = 1",
        key=key,
        number=_execute(count).scalar_one(),
        at_ms=_now_ms(),
        window_ms=int(_shop().settings.payment_window_seconds * 1000),
    )
    _execute(
        "INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms)"
        " VALUES ('reserve', :key, 1, -1, :at_ms)",
        key=key,
        at_ms=_now_ms(),
    )
    return True


def charge(key: str) -> bool:
    """Take the money."""
    pay = "UPDATE orders SET status = 'paid', updated_at_ms = :at_ms WHERE payment_id = :key"
    _execute(pay, key=key, at_ms=_now_ms())
    _execute(
        "INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms)"
        " SELECT 'charge', payment_id, price_cents, :at_ms FROM orders WHERE payment_id = :key",
        key=key,
        at_ms=_now_ms(),
    )
    return True


def cancel(key: str) -> bool:
    """Put the unit back."""
    end = (
        "UPDATE orders SET status = 'cancelled', reason = 'declined', updated_at_ms = :at_ms"
        " WHERE payment_id = :key"
    )
    _execute(end, key=key, at_ms=_now_ms())
    _execute("UPDATE products SET on_hand = on_hand + 1 WHERE product_id = 1")
    _execute(
        "INSERT INTO stock_movements (kind, cause, product_id, units, recorded_at_ms)"
        " VALUES ('release', :key, 1, 1, :at_ms)",
        key=key,
        at_ms=_now_ms(),
    )
    return True


def record_tick(key: str, tick: int) -> bool:
    """One tick of the dispatch."""
    _execute(
        "UPDATE orders SET progress = :tick, status = :status, updated_at_ms = :at_ms"
        " WHERE payment_id = :key",
        key=key,
        tick=tick,
        status="dispatched" if tick == _TICKS else "paid",
        at_ms=_now_ms(),
    )
    return True


def _execute(statement: str, **values: object) -> sa.CursorResult[Any]:
    session = _shop().datasource.sql_session()
    result: sa.CursorResult[Any] = session.connection().execute(sa.text(statement), values)
    return result


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- pages ----------------------------------------------------------------------------


def store() -> str:
    """The product, the newest orders, and a Buy Now."""
    [product] = _rows("SELECT name, price_cents, on_hand FROM products WHERE product_id = 1")
    newest = _rows("SELECT order_id, status, progress FROM orders ORDER BY order_id DESC LIMIT 8")
    listed = "".join(f"<li>Order No. {each.order_id}: {each.status}, {each.progress}" for each in newest)
    return (
        f"{_PAGE}<h1>{product.name}</h1><p>{product.on_hand} on the shelf"
        f'<form method=post action=/buy><input type="hidden" name="key" value="{secrets.token_urlsafe(16)}">'
        f"<button>Buy Now</button></form><ul>{listed}</ul>"
    )


def buy() -> Response:
    """Start the checkout, and wait until it is decided whether there is a unit."""
    key = request.form["key"]
    with SetWorkflowID(key):
        DBOS.start_workflow(checkout, key)
    is_held = DBOS.get_event(key, "held", timeout_seconds=_EVENT_SECONDS)
    return redirect(f"/pay/{key}" if is_held else "/", 303)


def payment(key: str) -> str:
    """What there is to pay."""
    [order] = _rows("SELECT order_id, price_cents, status FROM orders WHERE payment_id = :key", key=key)
    return (
        f"{_PAGE}<p>Order No. {order.order_id}<p>{order.price_cents} cents, {order.status}"
        f"<form method=post action=/pay/{key}><button name=outcome value=paid>Confirm payment</button></form>"
    )


def settle(key: str) -> Response:
    """Tell the checkout of its payment, and wait until it is settled."""
    DBOS.send(key, request.form["outcome"], topic="payment")
    DBOS.get_event(key, "settled", timeout_seconds=_EVENT_SECONDS)
    return redirect(f"/orders/{key}", 303)


def _rows(statement: str, **values: object) -> list[Any]:
    with _shop().reader.connect() as connection:
        return list(connection.execute(sa.text(statement), values))


def build(settings: Settings) -> Flask:
    """Put the shop together, and launch its workflows."""
    on_sqlite = is_sqlite(settings.database_url)
    url = settings.database_url.replace("postgresql://", "postgresql+psycopg://")
    # So that statements of pages are told from those of workflows; nothing else is set.
    named = {} if on_sqlite else {"connect_args": {"application_name": "plain-pages"}}
    isolation_level = "SERIALIZABLE" if on_sqlite else "READ COMMITTED"
    datasource = SQLAlchemyDatasource.create(settings.database_url)
    _shop.set(_Shop(settings, datasource, sa.create_engine(url, **named), isolation_level))
    config: DBOSConfig = {
        "name": "plain-shop",
        "system_database_url": settings.system_database_url,
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()
    app = Flask("plain")
    app.add_url_rule("/", view_func=store)
    app.add_url_rule("/buy", view_func=buy, methods=["POST"])
    app.add_url_rule("/pay/<key>", view_func=payment)
    app.add_url_rule("/pay/<key>", view_func=settle, methods=["POST"])
    return app


if __name__ == "__main__":
    chosen = Settings.from_env()
    serve(build(chosen), chosen)
