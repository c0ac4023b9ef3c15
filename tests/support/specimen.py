"""A shop with an order in every state, closed, of which copies are edited by hand."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from store import schema
from store.clients import guestbook
from store.ledger.invariants import Ledger
from store.ledger.ledger import LedgerReader
from store.ledger.witnesses import TheirBook, Witnesses
from store.settings import Settings, is_sqlite
from tests.support.guestbook import Guestbook
from tests.support.postgres import Postgres
from tests.support.shop import Shop
from tests.support.shopper import Shopper, eventually, key
from tests.support.standstill import buy_too_late

NEWEST = 106
"""The number of the newest order. Which order is what stands in `ledger_edits.sql`."""


class Specimen:
    """The shop, and its copies."""

    def __init__(self, new_url: Callable[[], str], guestbook: Guestbook, postgres: Postgres | None) -> None:
        self._url, self._guestbook, self._postgres = new_url(), guestbook, postgres
        self._numbers = itertools.count(1)
        self._let_one_expire()
        self._do_business()
        self._leave_one_half_way()

    def copy(self) -> str:
        """The URL of a copy of both databases."""
        number = next(self._numbers)
        if self._postgres is None:
            source = Path(sa.make_url(self._url).database or "").parent
            target = source.with_name(f"{source.name}-copy-{number}")
            shutil.copytree(source, target)
            return f"sqlite:///{target}/store.sqlite3"
        url = sa.make_url(self._url)
        name = f"{url.database}_copy_{number}"
        self._postgres.execute(f'CREATE DATABASE "{name}" TEMPLATE "{url.database}"')
        return url.set(database=name).render_as_string(hide_password=False)

    def forget(self, url: str) -> None:
        """Be rid of a copy."""
        if self._postgres is None:
            shutil.rmtree(Path(sa.make_url(url).database or "").parent)
        else:
            self._postgres.execute(f'DROP DATABASE "{sa.make_url(url).database}"')

    def their_book(self) -> tuple[list[guestbook.Signature], str]:
        """The online guestbook's."""
        return guestbook.newest(self._guestbook.url, 100), ""

    def _run(self, **settings: object) -> Shop:
        shop = Shop(self._url, STORE_GUESTBOOK_URL=self._guestbook.url, **settings)
        shop.server.start()
        return shop

    def _let_one_expire(self) -> None:
        shop = self._run(STORE_PAYMENT_WINDOW_SECONDS=1)
        shop.shopper.wait_for(shop.shopper.buy(key()), "The payment window closed")
        shop.server.stop()

    def _do_business(self) -> None:
        shop = self._run(STORE_DISPATCH_TICK_SECONDS=0.01)
        shopper = shop.shopper
        for _ in range(2):
            payment_id = shopper.buy(key())
            shopper.confirm(payment_id)
            shopper.wait_for(payment_id, "Dispatched")
        declined, late = shopper.buy(key()), shopper.buy(key())
        for payment_id in (declined, late):
            shopper.cancel(payment_id)
            shopper.wait_for(payment_id, "Payment cancelled")
        assert shopper.post(f"/payment_webhook/{late}/paid").status == 200
        for name in ("Ada", "Grace"):
            assert shopper.get(f"/greeting/{name}").status == 200
        self._guestbook.make_trouble(kind="fail", status=422, times=1)
        assert shopper.get("/greeting/Mallory").status == 502
        while shopper.get("/product").json["inventory"] > 1:
            assert shopper.post(f"/checkout/{key()}").status == 200
        buy_too_late(shop)
        assert shopper.post("/restock").status == 200
        shop.server.stop()

    def _leave_one_half_way(self) -> None:
        shop = self._run(STORE_DISPATCH_TICK_SECONDS=3600, STORE_UNPAID_PER_CLIENT=1)
        stranger = Shopper(shop.server.url, "127.0.0.9")
        assert stranger.post(f"/checkout/{key()}").status == 200
        assert stranger.post(f"/checkout/{key()}").status == 429
        buyer = Shopper(shop.server.url, "127.0.0.8")  # another, who may hold one as well
        paid = buyer.buy(key())
        buyer.confirm(paid)
        eventually(shop.tables.orders, lambda orders: orders.get(paid) == "paid")
        shop.server.kill()
        shop.server.restart()  # which finds what was under way
        shop.server.stop()


def ledger_of(url: str, their_book: TheirBook = lambda: ([], "")) -> Ledger:
    """The books of a shop that may be closed, read by the very code that serves them."""
    databases = schema.connect(Settings.from_env({"DBOS_DATABASE_URL": url}))
    try:
        return LedgerReader(databases.reader, 1.0, Witnesses(databases.system_reader, their_book)).read()
    finally:
        databases.close()


def edit(url: str, statements: str) -> None:
    """Change the tables as a person with a prompt can: no foreign key and no CHECK is in the way."""
    engine = sa.create_engine(
        url if is_sqlite(url) else sa.make_url(url).set(drivername="postgresql+psycopg"),
        poolclass=sa.NullPool,
    )
    with engine.begin() as connection:
        if is_sqlite(url):
            connection.execute(sa.text("PRAGMA ignore_check_constraints = ON"))
        else:
            rules = connection.execute(
                sa.text(
                    "SELECT conrelid::regclass::text AS table_name, conname FROM pg_constraint"
                    " WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace"
                    " ORDER BY contype DESC"
                )
            ).all()
            for rule in rules:
                connection.execute(sa.text(f'ALTER TABLE {rule.table_name} DROP CONSTRAINT "{rule.conname}"'))
        for statement in statements.split(";"):
            if statement.strip():
                result = connection.execute(sa.text(statement))
                assert result.rowcount, f"nothing was changed: {statement}"
