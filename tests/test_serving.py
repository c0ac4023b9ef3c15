"""Every way of serving the shop, and every way of stopping it."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.ports import free_port
from tests.support.server import SERVER, SUPERVISED, Server
from tests.support.shopper import Shopper, eventually, key
from tests.support.started import ROOT
from tests.support.tables import Tables

_STOP_SECONDS = 3.0
_STOPS = 3
"""At most, until one is as short. A busy machine makes one of them long, waiting for orders each of them."""
_DBOS = Path(sys.executable).with_name("dbos")

_WAYS = {
    "python app.py": SUPERVISED,
    "python app.py server": SERVER,
    "flask run": ("-m", "flask", "run", "--port", "PORT"),
    "flask run --debug": ("-m", "flask", "run", "--debug", "--port", "PORT"),
    "waitress-serve": ("-m", "waitress", "--listen=127.0.0.1:PORT", "--call", "app:create_app"),
    "dbos start": (str(_DBOS), "start"),
}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """A SQLite file of one's own: what is served is the same on any database."""
    return f"sqlite:///{tmp_path}/store.sqlite3"


@pytest.fixture(params=_WAYS)
def served(request: pytest.FixtureRequest, database_url: str) -> Iterator[Server]:
    """The shop, served in one of the ways, with dispatches of some seconds."""
    port = str(free_port())
    script = tuple(word.replace("PORT", port) for word in _WAYS[request.param])
    # An order is not dispatched before a stop that takes its whole time has ended.
    settings = {"STORE_PORT": port, "STORE_DISPATCH_TICK_SECONDS": 0.5}
    server = Server(database_url, settings, script=script, afresh=True)
    server.start(url=f"http://127.0.0.1:{port}")
    yield server
    server.close()


def seconds_to_stop(served: Server, number: signal.Signals) -> float:
    """Stop it, and see how long that takes."""
    asked_at = time.monotonic()
    served.signal_group(number)
    served.wait_for_death()
    return time.monotonic() - asked_at


@pytest.mark.sampled(3)
def test_it_serves_and_dispatches(served: Server, database_url: str) -> None:
    """A purchase goes through, by one process that has launched DBOS once."""
    shopper = Shopper(served.url)
    payment_id = shopper.buy()
    shopper.confirm(payment_id)
    shopper.wait_for(payment_id, "Dispatched")
    assert not Tables(database_url).faults()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_soon_and_leaves_its_orders(
    served: Server, database_url: str, number: signal.Signals
) -> None:
    """Ctrl+C and SIGTERM stop it within three seconds; the next start goes on with every order."""
    shopper = Shopper(served.url)
    unpaid, moving = key(), key()
    shopper.buy(unpaid)
    shopper.buy(moving)
    shopper.confirm(moving)
    orders = Tables(database_url).orders
    eventually(orders, lambda found: (found.get(unpaid), found.get(moving)) == ("pending", "paid"))
    took = [seconds_to_stop(served, number)]
    assert Tables(database_url).orders() == {unpaid: "pending", moving: "paid"}
    while min(took) >= _STOP_SECONDS and len(took) < _STOPS:
        served.start(url=served.url)
        took.append(seconds_to_stop(served, number))
    assert min(took) < _STOP_SECONDS, took
    assert "Traceback" not in served.output, served.output

    served.restart(script=SERVER)
    shopper = Shopper(served.url)
    shopper.confirm(unpaid)
    shopper.wait_for(unpaid, "Dispatched")
    shopper.wait_for(moving, "Dispatched")
    assert not Tables(database_url).faults()


@pytest.mark.parametrize("served", ["flask run --debug"], indirect=True)
def test_a_reload_goes_on_with_the_orders(served: Server, database_url: str) -> None:
    """Saving a file restarts the shop of `flask run --debug` at once, though a shopper is about to pay."""
    shopper = Shopper(served.url)
    payment_id = shopper.buy(key())
    (ROOT / "store" / "__init__.py").touch()
    eventually(lambda: served.output.count("Restarting with"), lambda reloads: reloads == 2)
    eventually(shopper.is_open, bool)
    shopper.confirm(payment_id)
    shopper.wait_for(payment_id, "Dispatched")
    assert not Tables(database_url).faults()


@pytest.mark.parametrize("script", [SERVER, SUPERVISED], ids=["server", "supervised"])
def test_on_every_address_both_families_are_served(database_url: str, script: tuple[str, ...]) -> None:
    """`STORE_HOST=::` is every address of the machine, of IPv4 too."""
    server = Server(database_url, {"STORE_HOST": "::"}, script=script).start()
    try:
        port = urlsplit(server.url).port
        for host in ("127.0.0.1", "[::1]"):
            assert Shopper(f"http://{host}:{port}").page("/").status == 200
    finally:
        server.close()


def test_a_port_in_use_is_said_in_one_sentence(database_url: str, tmp_path: Path) -> None:
    """Exit code 2, and the orders of whoever has the port are left alone."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = Server(database_url, {"STORE_PORT": port}).start(expect_to_open=False)
        assert server.wait_for_death() == 2
    assert server.output.count("\n") == 1
    assert f"STORE_PORT {port}" in server.output
    assert not list(tmp_path.iterdir())


def test_dbos_migrate_prepares_a_new_database(tmp_path: Path, database_url: str) -> None:
    """Both files are made, with their tables, before any shop opens on them."""
    checkpoints = tmp_path / "store-checkpoints.sqlite3"
    migrate = (str(_DBOS), "migrate", "--sys-db-url", f"sqlite:///{checkpoints}")
    server = Server(database_url, script=migrate)
    assert server.start(expect_to_open=False).wait_for_death() == 0, server.output
    assert Tables(database_url).rows("SELECT on_hand FROM products") == [(100,)]
    assert Tables(f"sqlite:///{checkpoints}").rows("SELECT count(*) FROM workflow_status") == [(0,)]
