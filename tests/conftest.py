"""Fixtures: a database of each kind, and a real shop on it.

A shop runs in a process of its own and is asked over HTTP; what it wrote is read from its
tables. Shops with the same settings are shared by the tests that do not mind each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.support.postgres import Postgres
from tests.support.shop import Shop
from tests.support.shopper import Shopper

NewUrl = Callable[[], str]
Often = Callable[[int, int], int]


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make torture` says, and how long a fault storm blows."""
    parser.addoption(
        "--torture",
        action="store_true",
        help="only the tests with a longer form, in that form, and all cases of `sampled` ones",
    )
    parser.addoption("--storm-seconds", type=int, help="of each fault storm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--torture`, leave out what has no longer form; without, most cases of what is `sampled`."""
    leave_out = _without_longer_form if config.getoption("--torture") else _not_sampled
    left_out = {id(item) for item in leave_out(items)}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if id(item) not in left_out]


def _without_longer_form(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    for item in items:
        if "often" not in getattr(item, "fixturenames", ()) and not item.get_closest_marker("sampled"):
            yield item


def _not_sampled(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """All but so many of the cases of a test as its marker says, spread evenly over them."""
    cases_of: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases_of.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for unordered in cases_of.values():
        # They may be shuffled already, and the sample is to be the same each time.
        cases = sorted(unordered, key=lambda item: item.nodeid)
        marker = cases[0].get_closest_marker("sampled")
        count = marker.args[0] if marker else len(cases)
        kept = {round((index + 0.5) * len(cases) / count - 0.5) for index in range(count)}
        yield from (case for index, case in enumerate(cases) if index not in kept)


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


@pytest.fixture(scope="module")
def shop(new_url: NewUrl) -> Iterator[Shop]:
    """A shop shared by the tests of a module: a long payment window, and ticks of 20 ms.

    Not by all: a shop that nobody asks takes some of a core all the same.
    """
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
            shop.tables.stock(units)
        return shop

    yield open_one
    for shop in shops:
        shop.server.close()


@pytest.fixture
def shopper(shop: Shop) -> Shopper:
    """Somebody in the shared shop."""
    return shop.shopper
