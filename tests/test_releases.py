"""Two releases with other steps in their workflows: orders of the one end on the other, each once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.postgres import Postgres
from tests.support.releases import OTHERWISE, PATCHED, THIS, ReleasedShop, change_release, make_release
from tests.support.server import SUPERVISED
from tests.support.shopper import eventually, key
from tests.support.started import ROOT

_LEASE_SECONDS = 2
_LIVING = "SELECT number FROM executors WHERE ended_at_ms IS NULL"
_RELEASES = {"this": THIS, "otherwise": OTHERWISE, "patched": PATCHED}
Open = Callable[..., ReleasedShop]

pytestmark = pytest.mark.timeout(400)  # each starts two shops with a Python of their own, from other files


@pytest.fixture
def open_release(postgres: Postgres, tmp_path: Path) -> Iterator[Open]:
    """Opens shops of several releases on one Postgres, each on a machine that is called like its release."""
    url, shops = postgres.new_prepared_url(), list[ReleasedShop]()

    def open_one(name: str, folder: Path | None = None, **more: object) -> ReleasedShop:
        settings: dict[str, object] = {
            "STORE_MACHINE": name,
            "STORE_LEASE_SECONDS": _LEASE_SECONDS,
            "STORE_RECONCILE_SECONDS": 0.5,
            "STORE_DISPATCH_TICK_SECONDS": 0.5,
            **more,
        }
        if folder is None:
            folder = ROOT if name == "this" else make_release(tmp_path / name, _RELEASES[name])
        shops.append(ReleasedShop(folder, url, **settings))  # type: ignore[arg-type]
        return shops[-1]

    yield open_one
    for shop in shops:
        shop.server.close()


def sell_and_hold(shop: ReleasedShop) -> tuple[str, str]:
    """One order in the middle of its dispatch, and one that nobody has paid yet."""
    held, moving = shop.shopper.buy(key()), shop.shopper.buy(key())
    shop.shopper.confirm(moving)
    progress = "SELECT progress FROM orders WHERE payment_id = :id"
    eventually(lambda: shop.tables.rows(progress, id=moving)[0].progress, lambda done: done >= 2)
    return held, moving


def come_to_rest(shop: ReleasedShop) -> None:
    """Until every order is dispatched; then each was once, and the ledger is green."""
    eventually(
        lambda: set(shop.tables.orders().values()), lambda ended: ended == {"dispatched"}, timeout_seconds=60
    )
    assert not shop.tables.faults()
    eventually(lambda: shop.shopper.get("/ledger.json").json["balanced"], bool)


def mended(shop: ReleasedShop) -> set[str]:
    """The workflows that could not go on, and were run again."""
    return {row.workflow_id for row in shop.tables.rows("SELECT workflow_id FROM mendings")}


def steps_of(shop: ReleasedShop, workflow_id: str) -> list[str]:
    """The names of its checkpoints, in order."""
    rows = shop.checkpoints.rows(
        "SELECT function_name FROM operation_outputs WHERE workflow_uuid = :id ORDER BY function_id",
        id=workflow_id,
    )
    return [row.function_name for row in rows]


@pytest.mark.parametrize(
    ("first", "second", "is_patched"),
    [
        ("this", "patched", True),
        ("otherwise", "this", False),
        ("patched", "this", False),
    ],
    ids=["behind a patch", "without a patch", "back again"],
)
def test_an_order_of_another_release_ends_on_this_one(
    open_release: Open, first: str, second: str, is_patched: bool
) -> None:
    """Behind `DBOS.patch` it goes on where it was; otherwise it is found stuck, and run again; ends once."""
    began, goes_on = open_release(first), open_release(second)
    at_second, _ = sell_and_hold(goes_on)  # both serve
    held, moving = sell_and_hold(began)
    began.server.kill()
    assert goes_on.tables.orders()[moving] == "paid", "in the middle of its dispatch"
    goes_on.shopper.wait_for(moving, "Dispatched")
    for unpaid in (held, at_second):
        goes_on.shopper.submit(f"/pay/{unpaid}", outcome="paid")
    come_to_rest(goes_on)
    if is_patched:
        assert mended(goes_on) == set()
        assert "pack" not in steps_of(goes_on, f"{moving}.dispatch"), "it went on as it had begun"
        assert steps_of(goes_on, f"{at_second}.dispatch")[:2] == ["DBOS.patch-pack", "pack"]
    else:
        assert f"{moving}.dispatch" in mended(goes_on)


def test_two_releases_serve_side_by_side_in_a_rolling_restart(open_release: Open, tmp_path: Path) -> None:
    """New files, then SIGUSR2: the orders of whoever shops meanwhile end, and none has to be run again."""
    folder = make_release(tmp_path / "this", THIS)
    shop = open_release("this", folder, script=SUPERVISED, STORE_PROCESSES=2, STORE_RECONCILE_SECONDS=30)
    before = eventually(lambda: shop.tables.rows(_LIVING), lambda rows: len(rows) == 2)
    held, _ = sell_and_hold(shop)
    is_over, sold = threading.Event(), list[str]()

    def go_on_shopping() -> None:
        while not is_over.is_set():
            payment_id = shop.shopper.buy(key())
            shop.shopper.confirm(payment_id)
            sold.append(payment_id)

    visitor = threading.Thread(target=go_on_shopping)
    visitor.start()
    try:
        change_release(folder, PATCHED)
        os.kill(shop.server.pid, signal.SIGUSR2)
        eventually(
            lambda: shop.tables.rows(_LIVING),
            lambda rows: len(rows) == 2 and not set(rows) & set(before),
            timeout_seconds=60,
        )
    finally:
        is_over.set()
        visitor.join()
    shop.shopper.confirm(held)
    come_to_rest(shop)
    assert set(sold) <= set(shop.tables.orders())
    assert mended(shop) == set()
    assert "thank" not in steps_of(shop, held), "its checkout began on the release before"
    assert steps_of(shop, f"{held}.dispatch")[:2] == ["DBOS.patch-pack", "pack"]
