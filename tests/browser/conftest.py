"""Fixtures: a real Chromium, shops for it to visit, and windows that must stay clean.

Whatever a test is about, at its end no window may have asked another host for anything, and
no console may hold an error or a warning, unless the test said that there would be trouble.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.gallery import Gallery
from tests.browser.visitor import PATIENCE_MS, Visitor
from tests.support import ports
from tests.support.guestbook import Guestbook
from tests.support.shop import Shop

Visit = Callable[..., Visitor]
OpenShop = Callable[..., Shop]
HoldWrites = Callable[..., AbstractContextManager[None]]

_LIVELY_TICK_SECONDS = 0.25
"""Slow enough that a page which looks every second sees some of the ticks."""
_STILL_TICK_SECONDS = 3600
"""Nothing moves by itself: the test moves the rows."""
_HURRY = """
const setSlowly = window.setInterval;
window.setInterval = (look, milliseconds, ...more) => setSlowly(look, milliseconds / 5, ...more);
"""
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--no-sandbox",  # it runs as root in a container, and opens nothing but the shop
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine; without one a test is skipped, or fails where one is required."""
    path = next(filter(None, map(shutil.which, _CHROMIUMS)), None)
    if path is None:
        missing = f"no Chromium on this machine: looked for {', '.join(_CHROMIUMS)}"
        if os.environ.get("WIDGET_STORE_REQUIRE_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens a window of its own on a shop.

    It is in a hurry, unless told to be `patient`: it looks five times a second and not once.
    `tolerated` is a pattern of complaints to expect.
    """
    visitors: list[tuple[Visitor, str | None]] = []

    def open_window(
        shop: Shop,
        path: str | None = "/",
        *,
        patient: bool = False,
        tolerated: str | None = None,
        **options: Any,
    ) -> Visitor:
        visitor = Visitor(browser.new_context(**options).new_page(), shop)
        if not patient:
            visitor.page.add_init_script(_HURRY)
        visitors.append((visitor, tolerated))
        return visitor if path is None else visitor.open(path)

    yield open_window
    faults: list[str] = []
    for visitor, tolerated in visitors:
        visitor.leave()
        faults += visitor.faults(tolerated)
    assert not faults


@pytest.fixture(scope="session")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Gives the URL of a SQLite database that no shop has seen: a page looks the same on both kinds."""
    numbers = itertools.count(1)
    folder = tmp_path_factory.mktemp("browser")
    return lambda: f"sqlite:///{folder}/shop-{next(numbers)}/store.sqlite3"


@pytest.fixture(scope="module")
def lively_shop(sqlite_url: Callable[[], str]) -> Iterator[Shop]:
    """A shop for many tests, where a dispatch takes some seconds."""
    shop = _open(sqlite_url())
    yield shop
    shop.server.close()


@pytest.fixture(scope="module")
def still_shop(sqlite_url: Callable[[], str]) -> Iterator[Shop]:
    """A shop for many tests, where a paid order goes no further than the test moves it."""
    shop = _open(sqlite_url(), STORE_DISPATCH_TICK_SECONDS=_STILL_TICK_SECONDS)
    yield shop
    shop.server.close()


@pytest.fixture
def open_shop(sqlite_url: Callable[[], str]) -> Iterator[OpenShop]:
    """Opens a lively shop of one's own, with settings of one's own; it is closed after the test."""
    shops: list[Shop] = []

    def open_one(*, units: int | None = None, **settings: object) -> Shop:
        shops.append(_open(sqlite_url(), **settings))
        if units is not None:
            shops[-1].tables.stock(units)
        return shops[-1]

    yield open_one
    for shop in shops:
        shop.server.close()


@pytest.fixture(scope="module")
def gallery(sqlite_url: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """Every page in every state that it has."""

    def open_still(**settings: object) -> Shop:
        return _open(
            sqlite_url(),
            **{
                "STORE_DISPATCH_TICK_SECONDS": _STILL_TICK_SECONDS,
                "STORE_RECONCILE_SECONDS": 0,  # what is held still is not to be mended
                # Nor to come to its end while others look at it, however slow the machine.
                "STORE_PAYMENT_WINDOW_SECONDS": 3600,
                "STORE_GREETING_WINDOW_SECONDS": 3600,
                **settings,
            },
        )

    with Guestbook(tmp_path_factory.mktemp("guestbook") / "guestbook.sqlite3") as guestbook:
        gallery = Gallery(open_still, guestbook.url)
        yield gallery
        gallery.close()


@pytest.fixture
def paid_order(still_shop: Shop) -> str:
    """The payment id of an order in the still shop that is paid, its bar at nothing."""
    shopper = still_shop.shopper
    payment_id = shopper.buy()
    shopper.confirm(payment_id)
    shopper.wait_for(payment_id, "Paid. Your widget is on its way")
    return payment_id


@pytest.fixture
def free_port() -> int:
    """A port that a shop can come back to after a crash, because the page that is open will ask there."""
    return ports.free_port()


@pytest.fixture
def nobody_writes() -> HoldWrites:
    """Takes the one writer's place in a shop on SQLite, in its tables or in its checkpoints."""

    @contextmanager
    def hold(shop: Shop, *, checkpoints: bool = False) -> Iterator[None]:
        path = Path(sa.make_url(shop.database_url).database or "")
        if checkpoints:
            path = path.with_name("store-checkpoints.sqlite3")
        assert path.exists()
        with closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_MS / 1000)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    return hold


def _open(database_url: str, **settings: object) -> Shop:
    usual = {"STORE_PAYMENT_WINDOW_SECONDS": 600, "STORE_DISPATCH_TICK_SECONDS": _LIVELY_TICK_SECONDS}
    shop = Shop(database_url, **{**usual, **settings})
    shop.server.start()
    return shop
