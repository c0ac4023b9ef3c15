"""The SQLite files: who may read them, and how many servers may have them."""

from __future__ import annotations

import fcntl
import stat
from pathlib import Path

import pytest

from tests.support.guestbook import Guestbook
from tests.support.refusal import refusal
from tests.support.server import SUPERVISED, Server
from tests.support.shop import Shop
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


def test_a_second_server_is_refused(tmp_path: Path) -> None:
    """One sentence, exit code 2, and neither a start nor a crash is counted; the first goes on."""
    shop = Shop(f"sqlite:///{tmp_path}/store.sqlite3")
    shop.server.start()
    try:
        payment_id = shop.shopper.buy()
        before = shop.tables.rows("SELECT * FROM executors")
        for script in (("app.py", "server"), ("app.py",), ("-m", "flask", "run", "--port", "0")):
            sentence = refusal(*script, DBOS_DATABASE_URL=f"sqlite:///{tmp_path}/./store.sqlite3")
            assert "DBOS_DATABASE_URL" in sentence
            assert shop.tables.rows("SELECT * FROM executors") == before
        shop.shopper.confirm(payment_id)
        shop.shopper.wait_for(payment_id, "Dispatched")
    finally:
        shop.server.close()


def test_a_second_store_on_the_same_checkpoints_is_refused(tmp_path: Path) -> None:
    """It would take up the workflows of the first."""
    shop = Shop(f"sqlite:///{tmp_path}/store.sqlite3")
    shop.server.start()
    try:
        sentence = refusal(
            DBOS_DATABASE_URL=f"sqlite:///{tmp_path}/other.sqlite3",
            DBOS_SYSTEM_DATABASE_URL=f"sqlite:///{tmp_path}/store-checkpoints.sqlite3",
        )
        assert "DBOS_SYSTEM_DATABASE_URL" in sentence
    finally:
        shop.server.close()


def test_the_successor_of_a_killed_server_has_the_files_at_once(tmp_path: Path) -> None:
    """The lock dies with its holder; a lock file that is left over locks nobody out."""
    shop = Shop(f"sqlite:///{tmp_path}/store.sqlite3")
    shop.server.start()
    try:
        for _ in range(3):
            shop.server.kill()
            assert (tmp_path / "store.sqlite3.lock").exists()
            with (tmp_path / "store.sqlite3.lock").open() as left_over:
                fcntl.flock(left_over, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shop.server.restart()
        assert shop.tables.rows("SELECT count(*) FROM executors") == [(4,)]
    finally:
        shop.server.close()


@pytest.mark.parametrize("script", [("app.py", "migrate"), ("-m", "flask", "routes")])
def test_what_serves_nobody_works_beside_a_server(tmp_path: Path, script: tuple[str, ...]) -> None:
    """It launches nothing, so it needs no lock."""
    shop = Shop(f"sqlite:///{tmp_path}/store.sqlite3")
    shop.server.start()
    try:
        beside = Server(shop.database_url, script=script).start(expect_to_open=False)
        assert beside.wait_for_death() == 0, beside.output
        assert shop.tables.rows("SELECT count(*) FROM executors") == [(1,)]
    finally:
        shop.server.close()
