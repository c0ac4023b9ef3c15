"""A shop held in the middle of something: by a real lock in its database, as another process takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from store.settings import Settings, is_sqlite
from tests.support.shopper import eventually, key

if TYPE_CHECKING:
    from tests.support.shop import Shop

# SQLite has one writer for each file; Postgres locks rows.
_ORDERS = ("UPDATE counters SET value = value", "UPDATE orders SET progress = progress")
_CHECKPOINTS_SQLITE = ("UPDATE dbos_migrations SET version = version",)
_CHECKPOINTS_POSTGRES = ("LOCK TABLE dbos.workflow_status IN EXCLUSIVE MODE",)


@contextmanager
def orders_held(database_url: str) -> Iterator[None]:
    """No order is made or changed meanwhile; all can be read."""
    with _locked(Settings.from_env({"DBOS_DATABASE_URL": database_url}).database_url, _ORDERS):
        yield


@contextmanager
def workflows_held(database_url: str) -> Iterator[None]:
    """No workflow is started meanwhile."""
    url = Settings.from_env({"DBOS_DATABASE_URL": database_url}).system_database_url
    with _locked(url, _CHECKPOINTS_SQLITE if is_sqlite(url) else _CHECKPOINTS_POSTGRES):
        yield


def buy_too_late(shop: Shop) -> str:
    """Two clicks on the last unit at the same moment; the payment id of the one that finds it gone."""
    with orders_held(shop.database_url):
        both = [shop.shopper.buy(key()) for _ in range(2)]
    ended = eventually(shop.tables.orders, lambda orders: set(both) <= set(orders))
    [late] = [each for each in both if ended[each] == "sold_out"]
    return late


@contextmanager
def _locked(url: str, statements: tuple[str, ...]) -> Iterator[None]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
        try:
            yield
        finally:
            connection.rollback()
