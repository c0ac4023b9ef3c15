"""The fork server, which servers are forked from: what it passes on, what it notices, and its own death."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from store.serving import fork_client
from store.settings import ROOT
from tests.support.server import Server
from tests.support.shop import DEATH
from tests.support.shopper import Shopper, eventually, key
from tests.support.started import is_alive
from tests.support.tables import Tables

pytestmark = pytest.mark.skipif(not fork_client.can_fork(), reason="servers are forked on Linux alone")


class Kept:
    """A shop with a parent, whose processes are known by what `/proc` says of them."""

    def __init__(self, url: str, folder: Path = ROOT) -> None:
        self.parent = Server(
            url, {"STORE_DISPATCH_TICK_SECONDS": 0.2}, script=(str(folder / "app.py"),), afresh=True
        )
        self.tables = Tables(url)

    def start(self) -> Kept:
        """Open it."""
        self.parent.start()
        return self

    @property
    def fork_server(self) -> int:
        """Its process id."""
        [pid] = eventually(lambda: children_of(self.parent.pid), lambda found: len(found) == 1)
        return pid

    @property
    def server(self) -> int:
        """The process id of the newest server, alive or not."""
        [(pid,)] = self.tables.rows("SELECT pid FROM executors ORDER BY number DESC LIMIT 1")
        return int(pid)

    @property
    def deaths(self) -> list[tuple[str, ...]]:
        """What the parent has said of each."""
        return DEATH.findall(self.parent.output)

    def kill(self) -> None:
        """Kill the server, and wait until its successor answers."""
        self.kill_all(self.server)

    def kill_all(self, *victims: int) -> None:
        """Kill the server and others, in this order, and wait until its successor answers."""
        told = len(self.deaths)
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(self.deaths), lambda count: count == told + 1)
        eventually(lambda: self.server, lambda pid: pid not in victims)

    def wait_for_words(self, words: str) -> None:
        """Until the parent or a server has printed them."""
        eventually(lambda: self.parent.output, lambda printed: words in printed)


def status_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: said.strip() for name, _, said in (line.partition(":") for line in lines)}


def children_of(parent: int) -> list[int]:
    """The processes that it has started itself, and that live."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = status_of(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status["PPid"]) == parent and not status["State"].startswith("Z"):
            found.append(int(folder.name))
    return found


def wait_for_the_end_of(pid: int) -> None:
    """Until there is no such process."""
    eventually(lambda: is_alive(pid), lambda alive: not alive)


def open_files_of(pid: int) -> list[str]:
    """What its file descriptors lead to."""
    found = []
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just been closed
            found.append(str(each.readlink()))
    return found


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A SQLite file of one's own: a process is started the same way on any database."""
    return f"sqlite:///{tmp_path}/data/store.sqlite3"


@pytest.fixture
def kept(url: str) -> Iterator[Kept]:
    """An open shop."""
    kept = Kept(url)
    yield kept.start()
    kept.parent.close()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the program that a test may change."""
    for name in ("store", "templates", "static", "migrations"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("app.py", "schema.sql"):
        shutil.copy2(ROOT / name, tmp_path / "copy" / name)
    return tmp_path / "copy"


def test_every_server_is_a_fork_of_one_process(kept: Kept) -> None:
    """In a session of its own, with signals as in any new process, and nothing open of the fork server's."""
    fork_server = kept.fork_server
    files = len(open_files_of(fork_server))
    for _ in range(4):
        server = kept.server
        assert children_of(fork_server) == [server]
        assert os.getsid(server) == server
        status = status_of(server)
        blocked = int(status["SigBlk"], 16) | int(status["SigIgn"], 16)
        assert not blocked & (1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1))
        assert "anon_inode:[pidfd]" not in open_files_of(server)
        kept.kill()
    assert kept.fork_server == fork_server
    assert len(open_files_of(fork_server)) == files
    assert [cause for _, cause, _, _ in kept.deaths] == ["SIGKILL"] * 4


def test_a_server_outlives_its_fork_server(kept: Kept) -> None:
    """The next server has another one; of what the one without died, nobody was told."""
    fork_server, server = kept.fork_server, kept.server
    os.kill(fork_server, signal.SIGKILL)
    wait_for_the_end_of(fork_server)
    assert Shopper(kept.parent.url).is_open()
    assert is_alive(server)
    kept.kill()
    assert kept.fork_server != fork_server
    kept.kill()
    assert [cause for _, cause, _, _ in kept.deaths] == ["cause unknown", "SIGKILL"]


def test_a_fork_server_that_is_killed_again_and_again_costs_no_order(kept: Kept) -> None:
    """Together with its server, before, or after it: the order that is under way goes on."""
    shopper = Shopper(kept.parent.url)
    payment_id = shopper.buy(key())
    shopper.confirm(payment_id)
    for is_first in (True, False, True, False):
        # None where it was killed when it had just forked: the parent makes another one for the next server.
        fork_servers, server = children_of(kept.parent.pid), kept.server
        kept.kill_all(*dict.fromkeys([*fork_servers, server] if is_first else [server, *fork_servers]))
    shopper.wait_for(payment_id, "Dispatched")
    assert not kept.tables.faults()


def test_what_stops_a_service_leaves_the_fork_server_to_its_parent(kept: Kept) -> None:
    """SIGTERM goes to every process at once; the parent still learns how its server has ended."""
    fork_server, server = kept.fork_server, kept.server
    os.kill(fork_server, signal.SIGTERM)
    os.kill(server, signal.SIGTERM)
    assert kept.parent.wait_for_death() == 0
    assert f"Server {server} was stopped, and is not started again." in kept.parent.output
    wait_for_the_end_of(fork_server)


def test_a_dead_parent_leaves_no_fork_server(kept: Kept) -> None:
    """Killed with no time to say goodbye: both end."""
    fork_server, server = kept.fork_server, kept.server
    kept.parent.kill()
    for pid in (fork_server, server):
        wait_for_the_end_of(pid)


def test_code_that_changes_is_the_code_of_the_next_server(url: str, checkout: Path) -> None:
    """Broken code ends it before it answers, with what is wrong; mended code opens; new code is new."""
    kept, changed = Kept(url, checkout), checkout / "store" / "money.py"
    whole = changed.read_text(encoding="utf-8")
    try:
        kept.start()
        changed.write_text(f"{whole}\nraise RuntimeError('broken on purpose')\n", encoding="utf-8")
        os.kill(kept.server, signal.SIGKILL)
        for pause in ("0.1", "0.2", "0.4"):
            kept.wait_for_words(
                f"died (exit code 1) before it answered anybody; the next one starts in {pause} s."
            )
        assert "RuntimeError: broken on purpose" in kept.parent.output
        changed.write_text(f"{whole}\nprint('of the new version')\n", encoding="utf-8")
        eventually(lambda: len(kept.deaths), lambda count: count == 1)
        # By the fork server, for whoever it forks.
        assert kept.parent.output.count("of the new version") == 1
        kept.kill()
        assert kept.parent.output.count("of the new version") == 1
        fork_server = kept.fork_server
        changed.write_text(f"{whole}\nprint('of the newest version')\n", encoding="utf-8")
        kept.kill()
        assert kept.parent.output.count("of the newest version") == 1
        assert kept.fork_server != fork_server
        assert kept.deaths[-1][1] == "SIGKILL"
    finally:
        kept.parent.close()


def test_a_parent_that_is_told_to_stop_does_not_wait_for_imports(url: str, checkout: Path) -> None:
    """However long they take."""
    money = checkout / "store" / "money.py"
    money.write_text("import time\nprint('importing', flush=True)\ntime.sleep(3600)\n", encoding="utf-8")
    kept = Kept(url, checkout)
    kept.parent.start(expect_to_open=False)
    try:
        kept.wait_for_words("importing")
        fork_server = kept.fork_server
        assert kept.parent.stop() == 0
        wait_for_the_end_of(fork_server)
    finally:
        kept.parent.close()


@pytest.mark.quick
def test_what_cannot_be_forked_is_started_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system, and on a kernel that cannot tell of the end of a process that is no child."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not fork_client.can_fork()
    monkeypatch.setattr(sys, "platform", "linux")

    def refuse(_pid: int, _flags: int = 0) -> int:
        raise OSError

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert not fork_client.can_fork()


def test_a_template_that_changes_is_the_one_of_the_next_server(url: str, checkout: Path) -> None:
    """The fork server has compiled them all."""
    kept, changed = Kept(url, checkout), checkout / "templates" / "base.html"
    try:
        kept.start()
        shopper = Shopper(kept.parent.url)
        assert "another title" not in shopper.get("/").text
        whole = changed.read_text(encoding="utf-8")
        changed.write_text(whole.replace("<title>", "<title>another title, "), encoding="utf-8")
        kept.kill()
        assert "another title" in shopper.get("/").text
    finally:
        kept.parent.close()
