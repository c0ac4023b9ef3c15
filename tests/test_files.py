"""The SQLite files: who may read them, and how many servers may have them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.conftest import Shop
from tests.support.guestbook import Guestbook
from tests.support.server import SUPERVISED
from tests.support.shopper import Shopper, eventually


def modes(folder: Path) -> dict[str, str]:
    """The rights to each file below a folder, and to each folder."""
    return {
        str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")
    }


@pytest.mark.skipif("os.name != 'posix'", reason="other systems have no such rights")
def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    """Those of the store, the checkpoints, and the guestbook beside it, and the folders made for them."""
    shop = Shop(f"sqlite:///{tmp_path}/new/folder/store.sqlite3", STORE_GUESTBOOK_URL="")
    shop.server.script = SUPERVISED
    shop.server.start()
    try:
        shop.shopper.buy()
        eventually(lambda: shop.server.output, lambda told: "An online guestbook" in told)
        found = modes(tmp_path)
        names = {name.rpartition("/")[2] for name in found}
        for name in ("store", "store-checkpoints", "store-guestbook"):
            assert f"{name}.sqlite3" in names
        assert {"store.sqlite3-wal", "store.sqlite3-shm", "store-checkpoints.sqlite3-wal"} <= names
        folders = {"new": "0o700", "new/folder": "0o700"}
        assert found == {name: folders.get(name, "0o600") for name in found}
    finally:
        shop.server.close()


@pytest.mark.skipif("os.name != 'posix'", reason="other systems have no such rights")
def test_files_that_others_could_read_are_tightened(tmp_path: Path) -> None:
    """At the next start, those that a kill has left beside them too."""
    shop = Shop(f"sqlite:///{tmp_path}/store.sqlite3")
    shop.server.start()
    try:
        shop.shopper.buy()
        shop.server.kill()
        with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
            guestbook.sign("Ada")
        assert "store.sqlite3-wal" in modes(tmp_path)
        for path in tmp_path.iterdir():
            path.chmod(0o666)
        shop.server.restart()
        with Guestbook(tmp_path / "guestbook.sqlite3"):
            Shopper(shop.server.url).buy()
            found = modes(tmp_path)
        assert found == dict.fromkeys(found, "0o600")
    finally:
        shop.server.close()
