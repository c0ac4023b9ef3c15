"""What /health proves: both databases are written, each part has its name, and stuck work is counted."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from store.settings import is_sqlite
from tests.support.shop import Shop
from tests.support.shopper import Answer, eventually, key
from tests.support.standstill import orders_held, workflows_held

_OPEN = resource.RLIM_INFINITY


def parts(answer: Answer) -> tuple[int, str, str, str]:
    """The status, and how the store, the checkpoints and the workflows are."""
    return answer.status, answer.json["database"], answer.json["checkpoints"], answer.json["workflows"]


def wait_until_health_is(shop: Shop, wanted: tuple[int, str, str, str]) -> None:
    """Until it says so, in its `parts`."""
    eventually(lambda: parts(shop.shopper.get("/health")), lambda found: found == wanted)


def test_a_full_disk_is_not_well(tmp_path: Path) -> None:
    """Everything can be read and nothing written: 503, and well again once there is room."""
    shop = Shop(f"sqlite:///{tmp_path}/store.sqlite3")
    shop.server.start()
    try:
        resource.prlimit(shop.server.pid, resource.RLIMIT_FSIZE, (0, _OPEN))
        wait_until_health_is(shop, (503, "cannot be written", "cannot be written", "down"))
        assert shop.shopper.page("/").status == 200
        resource.prlimit(shop.server.pid, resource.RLIMIT_FSIZE, (_OPEN, _OPEN))
        wait_until_health_is(shop, (200, "ok", "ok", "ok"))
    finally:
        shop.server.close()


def test_a_locked_part_is_named(open_shop: Callable[..., Shop]) -> None:
    """On SQLite, where a lock is on a whole file. On Postgres, rows that are locked are no trouble of it."""
    shop = open_shop()
    on_sqlite = is_sqlite(shop.database_url)
    for held, store_is, checkpoints_are in (
        (orders_held, "cannot be written", "ok"),
        (workflows_held, "ok", "cannot be written"),
    ):
        with held(shop.database_url):
            wait_until_health_is(
                shop, (503, store_is, checkpoints_are, "down") if on_sqlite else (200, "ok", "ok", "ok")
            )
        eventually(lambda: shop.shopper.get("/health").status, lambda status: status == 200)


def test_a_look_writes_one_row_in_each_database_however_often(open_shop: Callable[..., Shop]) -> None:
    """The same row again and again, and at most once a second."""
    shop = open_shop()

    def written() -> tuple[int, int]:
        [(store,)], [(checkpoints,)] = (
            books.rows("SELECT at_ms FROM pulses") for books in (shop.tables, shop.checkpoints)
        )
        return store, checkpoints

    began_at = time.monotonic()
    assert shop.shopper.get("/health").status == 200
    seen = {written()}
    for _ in range(20):
        assert shop.shopper.get("/health").status == 200
        seen.add(written())
    later = eventually(lambda: (shop.shopper.get("/health"), written())[1], lambda found: found not in seen)
    assert all(after > before for before, after in zip(max(seen), later, strict=True))
    assert len(seen) <= 1 + time.monotonic() - began_at


def test_stuck_work_is_counted(open_shop: Callable[..., Shop]) -> None:
    """A shop with stuck work serves on: 200, and a number for whoever watches it."""
    shop = open_shop(STORE_RECONCILE_SECONDS=1, STORE_PAYMENT_WINDOW_SECONDS=3600)
    payment_id = shop.shopper.buy(key())
    eventually(shop.tables.orders, lambda orders: payment_id in orders)
    shop.server.kill()
    # Of a version that this shop does not run, however often it is tried.
    shop.checkpoints.change("UPDATE workflow_status SET application_version = 'another'")
    shop.server.restart()
    eventually(
        lambda: shop.shopper.get("/health"), lambda answer: (answer.status, answer.json["stuck"]) == (200, 1)
    )
