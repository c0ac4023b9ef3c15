"""A disk that is full and a database that is down: the shop says so, loses nothing, and recovers."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Postgres
from tests.support.refusal import is_calm_refusal
from tests.support.shop import Shop
from tests.support.shopper import eventually, key

_OPEN = resource.RLIM_INFINITY


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> Iterator[Shop]:
    """A shop on SQLite whose files may be kept from growing."""
    shop = Shop(f"sqlite:///{tmp_path}/store.sqlite3", STORE_DISPATCH_TICK_SECONDS=0.2)
    shop.server.start()
    yield shop
    shop.server.close()


@pytest.fixture
def postgres_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A Postgres server that may be stopped without stopping that of other tests."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


def fill_the_disk(shop: Shop, limit: int) -> None:
    """No file of the shop may grow beyond `limit` bytes: what a full disk is to a database."""
    resource.prlimit(shop.server.pid, resource.RLIMIT_FSIZE, (limit, _OPEN))


def test_a_full_disk_is_a_pause(sqlite_shop: Shop) -> None:
    """Buying is refused calmly while the disk is full, and goes on by itself when it is not."""
    shopper, dispatching = sqlite_shop.shopper, key()
    shopper.buy(dispatching)
    shopper.confirm(dispatching)

    fill_the_disk(sqlite_shop, 0)
    one_key = key()
    assert is_calm_refusal(shopper.submit("/buy", key=one_key))
    assert shopper.post(f"/checkout/{key()}").status == 503
    assert shopper.page("/").status == 200, "reading needs no room"

    fill_the_disk(sqlite_shop, _OPEN)
    eventually(lambda: shopper.submit("/buy", key=one_key), lambda answer: answer.status == 303)
    eventually(
        lambda: shopper.page(f"/pay/{one_key}").heading, lambda heading: heading == "Your widget is held"
    )
    shopper.confirm(one_key)
    shopper.wait_for(one_key, "Dispatched")
    shopper.wait_for(dispatching, "Dispatched")
    assert not sqlite_shop.tables.faults()


def test_a_postgres_that_is_down_is_a_pause(postgres_of_our_own: Postgres) -> None:
    """Every page says so calmly, health says 503, and it all goes on when Postgres is back."""
    shop = Shop(postgres_of_our_own.new_url(), STORE_DISPATCH_TICK_SECONDS=0.2)
    shop.server.start()
    try:
        shopper, dispatching, one_key = shop.shopper, key(), key()
        shopper.buy(dispatching)
        shopper.confirm(dispatching)

        postgres_of_our_own.stop()
        assert is_calm_refusal(shopper.submit("/buy", key=one_key))
        assert is_calm_refusal(shopper.page("/"))
        assert is_calm_refusal(shopper.order(dispatching))
        assert shopper.get("/orders").status == 503
        all_down = {
            "status": "unavailable",
            "database": "down",
            "checkpoints": "down",
            "workflows": "down",
            "stuck": 0,
        }
        # What it says may be a second old.
        eventually(lambda: shopper.get("/health").json, lambda found: found == all_down)

        postgres_of_our_own.start()
        eventually(lambda: shopper.submit("/buy", key=one_key), lambda answer: answer.status == 303)
        eventually(
            lambda: shopper.page(f"/pay/{one_key}"),
            lambda page: page.status == 200 and page.heading == "Your widget is held",
        )
        shopper.confirm(one_key)
        shopper.wait_for(one_key, "Dispatched")
        shopper.wait_for(dispatching, "Dispatched")
        assert shopper.get("/health").status == 200
        assert not shop.tables.faults()
    finally:
        shop.server.close()
