"""Fixtures: a database of each kind, and a real shop on it.

A shop runs in a process of its own and is asked over HTTP; what it wrote is read from its
tables. Shops with the same settings are shared by the tests that do not mind each other.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it has no types

from store.settings import is_sqlite
from tests.support.guestbook import Guestbook
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.shop import Shop
from tests.support.shopper import Shopper
from tests.support.specimen import Specimen

pytest_plugins = ("tests.support.selection",)
"""Which tests are run at all."""

NewUrl = Callable[[], str]
Often = Callable[[int, int], int]

_MEMORY = Path("/dev/shm")  # noqa: S108 - as the place for the folders that pytest itself makes and guards
_TOGETHER = frozenset(
    {
        "tests/browser/test_gallery.py",
        "tests/power/test_power_cut.py",
        "tests/test_ledger_edits.py",
        "tests/test_pages.py",
    }
)
"""Modules with a fixture that takes longer to make than all that is done with it: one process has each."""
_RELOADER = "flask run --debug"
_ENOUGH_BYTES = 6 * 1024**3
"""Of memory: a whole run leaves about 3 GiB of databases behind."""


def pytest_configure() -> None:
    """Have the databases in memory where there is room: a commit then waits for no disk.

    A killed process leaves the same files there as on a disk, and no test pulls the plug of the machine.
    """
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


class _Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # likewise
    """Gives every test to whoever is free, but some together to one; the largest of those first."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in _TOGETHER:
            return path
        # Whoever has the reloader watches the files that the test of it touches.
        return _RELOADER if _RELOADER in nodeid else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more process than there are cores: most tests wait for a server half of their time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """In place of `--dist loadgroup`, which does nothing any more: pytest 9.2 hides its marks from it."""
    return _Scheduler(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long a fault storm blows."""
    parser.addoption("--storm-seconds", type=int, help="of each fault storm")


@pytest.fixture(scope="session")
def often(request: pytest.FixtureRequest) -> Often:
    """How often a test repeats itself: a few times in `make test`, many times in `make torture`."""
    is_torture = bool(request.config.getoption("--torture"))
    return lambda few, many: many if is_torture else few


@pytest.fixture
def storm_seconds(request: pytest.FixtureRequest, often: Often) -> int:
    """How long a fault storm blows."""
    return int(request.config.getoption("--storm-seconds") or often(12, 60))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A Postgres server, started when the first test asks for it."""
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session", params=("sqlite", "postgres"))
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewUrl:
    """Gives the URL of a database that no shop has seen, of each kind in turn.

    On Postgres it is there, with its tables, as making them takes longer than a shop takes to open.
    """
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        return server.new_prepared_url
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


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Server]:
    """A talk that nobody but this machine can reach."""
    words = ("app.py", "talk", "--address", "127.0.0.1", "--folder", str(tmp_path / "talk"))
    server = Server("sqlite:///elsewhere.sqlite3", script=words, afresh=True)
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def specimen(
    new_url: Callable[[], str], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Specimen]:
    """One for each kind of database."""
    on_sqlite = is_sqlite(new_url())
    postgres: Postgres | None = None if on_sqlite else request.getfixturevalue("postgres")
    with Guestbook(tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3") as guestbook:
        yield Specimen(new_url, guestbook, postgres)


@pytest.fixture
def copied(specimen: Specimen) -> Iterator[str]:
    """The URL of a copy of one's own."""
    url = specimen.copy()
    yield url
    specimen.forget(url)
