"""The parent: it starts the server again when it dies, refuses nobody meanwhile, and leaves no orphan."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from store.serving.restarts import next_pause
from store.serving.supervised_programs import SERVER
from store.serving.supervisor import Supervisor
from store.settings import REFUSED, ROOT, Settings, is_sqlite
from tests.conftest import NewUrl, Often
from tests.support.refusal import is_one_sentence
from tests.support.server import SUPERVISED, Server
from tests.support.shop import DEATH, SupervisedShop
from tests.support.shopper import eventually, key
from tests.support.started import is_alive

_YOUNG_DEATH = re.compile(
    r"Server \d+ died \((.+)\) before it answered anybody; the next one starts in (\S+) s\."
)


@pytest.fixture
def keep(new_url: NewUrl) -> Iterator[Callable[..., SupervisedShop]]:
    """Opens a shop with a parent, on each kind of database."""
    opened: list[SupervisedShop] = []

    def open_one(**settings: object) -> SupervisedShop:
        opened.append(SupervisedShop(new_url(), **settings))
        return opened[-1]

    yield open_one
    for kept in opened:
        kept.parent.close()


@pytest.mark.first_of_all
def test_a_killed_server_has_a_successor(keep: Callable[..., SupervisedShop]) -> None:
    """At once, on the same address; the order that was under way goes on, and the parent says so once."""
    shop = keep()
    unpaid, moving = shop.shopper.buy(key()), shop.shopper.buy(key())
    shop.shopper.confirm(moving)
    first = shop.server_pid
    os.kill(first, signal.SIGKILL)
    shop.shopper.wait_for(moving, "Dispatched")
    shop.shopper.confirm(unpaid)
    shop.shopper.wait_for(unpaid, "Dispatched")
    shop.wait_for_deaths(1)
    [(died, cause, successor, _)] = shop.deaths
    assert (int(died), cause) == (first, "SIGKILL")
    assert int(successor) != first
    assert not shop.tables.faults()


@pytest.mark.sampled(1)
def test_no_connection_is_refused_while_the_server_is_dead(keep: Callable[..., SupervisedShop]) -> None:
    """They wait in the backlog of the socket, which is the parent's, and are answered by the next server."""
    shop = keep()
    refused, answered, is_over = [], [], threading.Event()

    def probe_path() -> None:
        while not is_over.is_set():
            try:
                answered.append(shop.shopper.get("/product").status)
            except ConnectionRefusedError as error:
                refused.append(error)
            except (OSError, http.client.HTTPException):
                pass  # it was accepted by a server that died

    visitors = [threading.Thread(target=probe_path) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    for count in range(1, 6):
        os.kill(shop.server_pid, signal.SIGKILL)
        shop.wait_for_deaths(count)
    is_over.set()
    for visitor in visitors:
        visitor.join()
    assert not refused
    # 503 where one took its time to open: it is there, and says so.
    assert set(answered) <= {200, 503}
    eventually(lambda: shop.shopper.get("/product").status, lambda status: status == 200)


@pytest.mark.timeout(900)  # two hundred starts of a server take their time
def test_many_kills_leave_an_order_that_completes(keep: Callable[..., SupervisedShop], often: Often) -> None:
    """One after the other, each as soon as the next server answers: still one order, one charge.

    Fewer on Postgres, where each start costs the same and nothing else is different.
    """
    shop = keep(STORE_PAYMENT_WINDOW_SECONDS=3600, STORE_DISPATCH_TICK_SECONDS=30)
    unpaid, moving = shop.shopper.buy(key()), shop.shopper.buy(key())
    shop.shopper.confirm(moving)
    shop.shopper.wait_for(moving, "Paid. Your widget is on its way")
    kills = often(10, 200) if is_sqlite(shop.parent.database_url) else often(5, 20)
    for count in range(1, kills + 1):
        os.kill(shop.server_pid, signal.SIGKILL)
        shop.wait_for_deaths(count)
        # It has answered; that it has started may not be written down yet.
        eventually(
            lambda: int(shop.tables.rows("SELECT max(number) FROM executors")[0][0]),
            lambda newest: newest > count,  # noqa: B023 - asked before the next round
        )
    shop.parent.stop()
    shop.parent.close()
    hurried = SupervisedShop(shop.parent.database_url)
    try:
        hurried.shopper.confirm(unpaid)
        hurried.shopper.wait_for(unpaid, "Dispatched")
        hurried.shopper.wait_for(moving, "Dispatched")
        books = hurried.shopper.get("/ledger.json").json
        assert books["balanced"], books
        figures = {name: value for line in books["lines"] for name, value in line["figures"].items()}
        assert figures["crashes"] == kills
        assert figures["recovered"] == 2
        assert not hurried.tables.faults()
    finally:
        hurried.parent.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_parent_stops_its_server(keep: Callable[..., SupervisedShop], number: signal.Signals) -> None:
    """Told to stop, both end in good order, and that is not counted as a crash."""
    shop = keep()
    server = shop.server_pid
    os.kill(shop.parent.pid, number)
    assert shop.parent.wait_for_death() == 0, shop.parent.output
    assert not is_alive(server)
    assert "Traceback" not in shop.parent.output
    assert not shop.deaths
    assert shop.tables.rows("SELECT count(*) FROM executors WHERE how_ended = 'stopped'") == [(1,)]


def test_a_dead_parent_leaves_no_orphan(keep: Callable[..., SupervisedShop]) -> None:
    """Killed like a server, with no time to say goodbye: its server ends too, and the port is free."""
    shop = keep()
    server = shop.server_pid
    shop.parent.kill()
    eventually(lambda: is_alive(server), lambda alive: not alive)
    port = int(shop.parent.url.rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_server_that_was_stopped_is_not_started_again(keep: Callable[..., SupervisedShop]) -> None:
    """A clean stop is what somebody wanted, whichever of the two processes they told."""
    shop = keep()
    os.kill(shop.server_pid, signal.SIGTERM)
    assert shop.parent.wait_for_death() == 0
    assert not shop.deaths


def test_whatever_keeps_the_first_server_from_opening_ends_the_parent(tmp_path: Path) -> None:
    """With its one sentence and its exit code: a shop that never opened is not tried for ever."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    parent = Server(f"sqlite:///{tmp_path}/file/store.sqlite3", script=SUPERVISED)
    parent.start(expect_to_open=False)
    assert parent.wait_for_death() == REFUSED
    assert parent.output.startswith(
        "widget store: The database that DBOS_DATABASE_URL names cannot be opened"
    )
    assert parent.output.count("\n") == 1


class Scripted:
    """A parent whose servers are a script of our own, told by a file how to behave."""

    def __init__(self, folder: Path) -> None:
        self.events: list[str] = []
        self.mood = folder / "mood"
        self.mood.write_text("serve", encoding="utf-8")
        script = folder / "server.py"
        script.write_text(
            "import os, socket, sys, time\n"
            f"mood = open({str(self.mood)!r}).read()\n"
            "if mood == 'die': sys.exit(7)\n"
            "if mood == 'open and die': os.write(0, b'!'); sys.exit(7)\n"
            "listener = socket.socket(fileno=int(sys.argv[2]))\n"
            "os.write(0, b'!')\n"  # open, as a server tells its parent
            "while True:\n"
            "    answer = listener.accept()[0]\n"
            "    answer.recv(1000)\n"
            "    answer.send(b'HTTP/1.0 200 OK\\r\\n\\r\\n')\n"
            "    answer.close()\n",
            encoding="utf-8",
        )
        self.parent = Supervisor(
            Settings(port=0),
            self.events.append,
            program=replace(SERVER, command=(sys.executable, str(script)), can_be_forked=False),
        )
        self._thread = threading.Thread(target=self.parent.run, args=[lambda pid: f"open, {pid}"])
        self._thread.start()

    def close(self) -> None:
        """End it and its server."""
        self.parent.stop()
        self._thread.join()
        self.parent.close()


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Scripted]:
    """A parent with servers of our own."""
    scripted = Scripted(tmp_path)
    yield scripted
    scripted.close()


def test_a_server_that_keeps_dying_young_is_tried_less_and_less_often(scripted: Scripted) -> None:
    """It says so each time, never gives up, and is quick again once a server has answered."""
    eventually(lambda: len(scripted.events), lambda count: count == 1)
    assert scripted.events[0].startswith("open, ")
    scripted.mood.write_text("die", encoding="utf-8")
    scripted.parent.kill_server()
    eventually(lambda: len(scripted.events), lambda count: count >= 5)
    young = [_YOUNG_DEATH.fullmatch(line) for line in scripted.events[1:5]]
    assert [match and match.groups() for match in young] == [
        ("exit code 7", "0.1"),
        ("exit code 7", "0.2"),
        ("exit code 7", "0.4"),
        ("exit code 7", "0.8"),
    ]
    scripted.mood.write_text("serve", encoding="utf-8")
    eventually(lambda: DEATH.fullmatch(scripted.events[-1]), bool)
    young_deaths = sum(bool(_YOUNG_DEATH.fullmatch(line)) for line in scripted.events)
    scripted.parent.kill_server()
    eventually(lambda: sum(bool(DEATH.fullmatch(line)) for line in scripted.events), lambda told: told == 2)
    assert all("(SIGKILL)" in line for line in scripted.events if DEATH.fullmatch(line))
    assert len(scripted.events) == 1 + young_deaths + 2, "one line for each death"


def test_a_server_that_dies_once_it_is_open_is_not_taken_for_broken(scripted: Scripted) -> None:
    """Whatever it dies of, as where every sale in progress is a crash: the pauses stay short."""
    eventually(lambda: len(scripted.events), lambda count: count == 1)
    scripted.mood.write_text("open and die", encoding="utf-8")
    scripted.parent.kill_server()
    eventually(lambda: len(scripted.events), lambda count: count >= 5)
    young = [_YOUNG_DEATH.fullmatch(line) for line in scripted.events[1:5]]
    assert [match and match.groups() for match in young] == [("exit code 7", "0.1")] * 4


def test_the_pause_grows_to_five_seconds_and_no_further() -> None:
    """A tenth of a second doubled, and doubled again, where servers cannot open."""
    pauses = [0.0]
    while len(pauses) < 9:
        pauses.append(next_pause(pauses[-1], is_broken=True))
    assert pauses == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_the_pause_hardly_grows_after_servers_that_were_killed() -> None:
    """Ten in a row, where every sale is a crash, cost less than two seconds; without end, it is no loop."""
    pauses = [0.0]
    while len(pauses) < 100:
        pauses.append(next_pause(pauses[-1], is_broken=False))
    assert pauses[1] == 0.1
    assert sum(pauses[:11]) < 2
    assert pauses[-1] == 5.0


def test_the_parent_loads_the_settings_and_the_supervisor_alone() -> None:
    """So that a module which cannot be imported ends a server, and not the parent."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, app; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    ours = (
        "cli",
        "cli_parser",
        "process_wide",
        "serving",
        "serving.fork_client",
        "serving.lifeline",
        "serving.listener",
        "serving.probe",
        "serving.server_processes",
        "serving.supervised_programs",
        "serving.requests",
        "serving.restarts",
        "serving.supervisor",
        "setting_parsers",
        "settings",
    )
    assert {name for name in loaded if name.split(".")[0] == "store"} <= {
        "store",
        *(f"store.{module}" for module in ours),
    }
    names = {name.split(".")[0] for name in loaded}
    assert names.isdisjoint({"dbos", "flask", "psycopg", "sqlalchemy", "waitress", "werkzeug"})


# --- a server that hangs ----------------------------------------------------------------------------

_HANG_SECONDS = 4


@pytest.mark.sampled(1)
def test_a_server_that_stops_answering_is_replaced(keep: Callable[..., SupervisedShop]) -> None:
    """It is killed, its orders go on, and the parent says why."""
    shop = keep(STORE_HANG_SECONDS=_HANG_SECONDS)
    payment_id, hung = shop.shopper.buy(key()), shop.server_pid
    os.kill(hung, signal.SIGSTOP)
    shop.wait_for_deaths(1)
    eventually(shop.shopper.is_open, bool)  # one that has answered may not take any click yet
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    assert shop.deaths[0][:2] == (str(hung), "SIGKILL")
    assert f"Server {hung} has not answered for {_HANG_SECONDS} s and is killed." in shop.parent.output
    assert not is_alive(hung)


@pytest.mark.sampled(1)
def test_a_parent_that_was_suspended_kills_nobody(keep: Callable[..., SupervisedShop]) -> None:
    """It has not looked meanwhile, however long that was; afterwards it looks as before."""
    shop = keep(STORE_HANG_SECONDS=_HANG_SECONDS)
    server = shop.server_pid
    os.kill(shop.parent.pid, signal.SIGSTOP)
    suspended_at = time.monotonic()
    eventually(time.monotonic, lambda now: now > suspended_at + 2 * _HANG_SECONDS)
    os.kill(shop.parent.pid, signal.SIGCONT)
    eventually(time.monotonic, lambda now: now > suspended_at + 4 * _HANG_SECONDS)
    assert not shop.deaths
    assert is_alive(server)
    assert shop.shopper.is_open()
    os.kill(server, signal.SIGSTOP)
    shop.wait_for_deaths(1)


@pytest.mark.sampled(1)
def test_nobody_is_killed_for_a_hang_where_that_is_off(keep: Callable[..., SupervisedShop]) -> None:
    """0, for whoever stops a server in a debugger."""
    shop = keep(STORE_HANG_SECONDS=0)
    server, stopped_at = shop.server_pid, time.monotonic()
    os.kill(server, signal.SIGSTOP)
    eventually(time.monotonic, lambda now: now > stopped_at + 5)
    os.kill(server, signal.SIGCONT)
    assert shop.shopper.is_open()
    assert not shop.deaths


def test_a_python_without_the_requirements_is_refused() -> None:
    """In one sentence, and at once: every server that the parent starts would die of it, without end."""
    told = subprocess.run(
        [sys.executable, "-E", "-S", "app.py"],  # as the system's Python would be: without what a venv has
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert told.returncode == 2
    assert is_one_sentence(told.stderr.removeprefix("widget store: ").rstrip("\n"))
    assert "lacks dbos," in told.stderr
