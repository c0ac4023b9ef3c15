"""Fixtures: a database of each kind, and a real shop on it.

A shop runs in a process of its own and is asked over HTTP; what it wrote is read from its
tables. Shops with the same settings are shared by the tests that do not mind each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.support.books import Books, checkpoints_of
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.shopper import Shopper

TICK_SECONDS = 0.02
NewUrl = Callable[[], str]
Often = Callable[[int, int], int]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make torture` says, and how long a fault storm blows."""
    parser.addoption(
        "--torture", action="store_true", help="only the tests that have a longer form, in that form"
    )
    parser.addoption("--storm-seconds", type=int, help="of each fault storm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--torture`, leave the tests out that have no longer form."""
    if config.getoption("--torture"):
        short = [item for item in items if "often" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=short)
        items[:] = [item for item in items if item not in short]


@pytest.fixture(scope="session")
def often(request: pytest.FixtureRequest) -> Often:
    """How often a test repeats itself: a few times in `make test`, many times in `make torture`."""
    is_torture = bool(request.config.getoption("--torture"))
    return lambda few, many: many if is_torture else few


@pytest.fixture
def storm_seconds(request: pytest.FixtureRequest, often: Often) -> int:
    """How long a fault storm blows."""
    return int(request.config.getoption("--storm-seconds") or often(20, 60))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A Postgres server, started when the first test asks for it."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewUrl:
    """Gives the URL of a database that no shop has seen; each test runs once with each kind."""
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        return server.new_url
    numbers = itertools.count(1)
    folder = tmp_path_factory.mktemp("sqlite")
    return lambda: f"sqlite:///{folder}/shop-{next(numbers)}/store.sqlite3"


class Shop:
    """A running shop, its visitors and its books."""

    def __init__(self, database_url: str, **settings: object) -> None:
        self.database_url = database_url
        self.server = Server(database_url, {"STORE_DISPATCH_TICK_SECONDS": TICK_SECONDS, **settings})
        self.books = Books(database_url)
        self.checkpoints = Books(checkpoints_of(database_url), schema="dbos")

    @property
    def shopper(self) -> Shopper:
        """Somebody at the door, wherever the shop is now open."""
        return Shopper(self.server.url)


@pytest.fixture(scope="session")
def shop(new_url: NewUrl) -> Iterator[Shop]:
    """A shop shared by many tests: a long payment window, and ticks of 20 ms."""
    shop = Shop(new_url())
    shop.server.start()
    yield shop
    shop.server.close()


@pytest.fixture
def open_shop(new_url: NewUrl) -> Iterator[Callable[..., Shop]]:
    """Opens a shop of one's own, with settings of one's own; it is closed after the test."""
    shops: list[Shop] = []

    def open_one(*, units: int | None = None, **settings: object) -> Shop:
        shop = Shop(new_url(), **settings)
        shops.append(shop)
        shop.server.start()
        if units is not None:
            shop.books.stock(units)
        return shop

    yield open_one
    for shop in shops:
        shop.server.close()


@pytest.fixture
def shopper(shop: Shop) -> Shopper:
    """Somebody in the shared shop."""
    return shop.shopper
