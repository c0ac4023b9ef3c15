"""A power cut loses what was not synced: the shop that is started on what is left has kept every promise.

Of SQLite. On Postgres, that is Postgres' own promise.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import pytest

from store.settings import ROOT
from tests.conftest import Often
from tests.power.disk import Disk, Record, read
from tests.support.server import SERVER, Server
from tests.support.shopper import Shopper, eventually, key
from tests.support.tables import Tables

_CARELESS = ("-m", "tests.power.careless", "server")
_SETTINGS = {"STORE_PAYMENT_WINDOW_SECONDS": 10, "STORE_DISPATCH_TICK_SECONDS": 0.05}
# By the time that a shop is started on an image, what was unpaid there is late.
_SHOPPERS = 4
_SOLD = "SELECT 1 FROM orders WHERE status = 'dispatched'"
_RANKS = ["Waiting for payment", "Paid. Your widget is on its way", "Dispatched"]
"""What a page says of an order that is paid, in this order."""


@dataclass(frozen=True)
class Promise:
    """What a shopper was shown of an order."""

    payment_id: str
    order_id: int
    rank: int
    """How far it was; see `_RANKS`."""
    by_ns: int
    """When the answer was there, on the monotonic clock."""


@dataclass
class Recording:
    """A shop that sold and was killed, with all that was written, and all that was shown."""

    records: list[Record]
    promises: list[Promise]
    opened: int
    """How many records there were when it opened."""

    def images(self, count: int, seed: int) -> Iterator[Image]:
        """So many disks, each after a power cut at another moment, in the order of the moments."""
        chance = random.Random(seed)
        cuts = sorted(chance.sample(range(self.opened, len(self.records)), count))
        disk, done = Disk(), 0
        for cut in cuts:
            for record in self.records[done:cut]:
                disk.apply(record)
            done = cut
            files = disk.after_a_power_cut(chance)
            yield Image(files, self._promised_by(self.records[cut - 1].at_ns))

    def copied_in_the_wrong_order(self, first: int, second: int) -> Image:
        """The store's file, copied after so many records, and later the checkpoints'."""
        disk, copied = Disk(), {}
        for count, record in enumerate(self.records[:second], start=1):
            disk.apply(record)
            if count == first:
                copied = {
                    name: content for name, content in disk.files().items() if name.startswith("store.")
                }
        late = {name: content for name, content in disk.files().items() if not name.startswith("store.")}
        return Image({**late, **copied}, self._promised_by(self.records[second - 1].at_ns))

    def _promised_by(self, at_ns: int) -> list[Promise]:
        return [promise for promise in self.promises if promise.by_ns < at_ns]


@dataclass
class Image:
    """The files that a shop finds, and what it must keep."""

    files: dict[str, bytes]
    promises: list[Promise] = field(default_factory=list)

    def fault(self, folder: Path) -> str:
        """What is wrong with the shop that is started on it and has come to rest; nothing if all is well."""
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        url = f"sqlite:///{folder}/store.sqlite3"
        server = Server(url, _SETTINGS)
        try:
            server.start()
            return self._fault_of(Shopper(server.url), Tables(url))
        except AssertionError as red:
            return str(red)
        finally:
            server.close()
            shutil.rmtree(folder)

    def _fault_of(self, shopper: Shopper, tables: Tables) -> str:
        def books() -> dict[str, object]:
            found: dict[str, object] = json.loads(shopper.get("/ledger.json").text)
            return found

        live = "SELECT order_id FROM orders WHERE status IN ('pending', 'paid')"
        eventually(lambda: tables.rows(live), lambda rows: not rows)
        ledger = eventually(books, lambda found: not found.get("catching_up"))
        if not ledger["balanced"]:
            return f"the books do not balance: {ledger['faults']}"
        if faults := tables.faults():
            return str(faults)
        rows = tables.rows("SELECT payment_id, order_id, status FROM orders")
        orders = {row.payment_id: row for row in rows}
        for promise in self.promises:
            order = orders.get(promise.payment_id)
            if order is None or order.order_id != promise.order_id:
                return f"{promise} and it is {order}"
            if promise.rank and order.status != "dispatched":
                return f"{promise}, and it is {order}"
        return ""


def _buy_and_note(server: Server, promises: list[Promise], is_over: threading.Event) -> None:
    """Buy one after the other, and write down what is shown; whoever is not answered looks again."""
    while not is_over.is_set():
        payment_id, rank = key(), -1
        shopper = Shopper(server.url)
        try:
            shopper.hold(payment_id)
            shopper.confirm(payment_id)
            while rank < len(_RANKS) - 1 and not is_over.is_set():
                answer = shopper.order(payment_id)
                if answer.status != 200 or answer.heading not in _RANKS:
                    break
                if _RANKS.index(answer.heading) > rank:
                    rank = _RANKS.index(answer.heading)
                    [number, *_] = re.findall(r"Order No\. (\d+)", answer.text)
                    promises.append(Promise(payment_id, int(number), rank, time.monotonic_ns()))
        except (OSError, HTTPException, AssertionError):
            time.sleep(0.05)  # before the next server is asked


def _record(folder: Path, script: tuple[str, ...], orders: int) -> Recording:
    """Sell so many, kill the server twice, and keep all that was written."""
    data, log, library = folder / "data", folder / "log", folder / "recorder.so"
    data.mkdir(parents=True)
    subprocess.run(
        [
            "cc",
            "-shared",
            "-fPIC",
            "-O2",
            "-o",
            library,
            ROOT / "tests/power/recorder.c",
            "-ldl",
            "-lpthread",
        ],
        check=True,
    )
    url = f"sqlite:///{data}/store.sqlite3"
    settings = {**_SETTINGS, "LD_PRELOAD": library, "POWER_FOLDER": data, "POWER_LOG": log}
    server = Server(url, settings, script=script, afresh=True)
    tables, promises, is_over = Tables(url), list[Promise](), threading.Event()
    try:
        server.start()
        opened = len(read(log, data))
        shoppers = [
            threading.Thread(target=_buy_and_note, args=[server, promises, is_over]) for _ in range(_SHOPPERS)
        ]
        for thread in shoppers:
            thread.start()
        for sold in (orders // 3, 2 * orders // 3, orders):
            eventually(lambda: len(tables.rows(_SOLD)), lambda count: count >= sold)  # noqa: B023
            server.kill()
            if sold < orders:
                server.restart(script=script)
        is_over.set()
        for thread in shoppers:
            thread.join()
    finally:
        is_over.set()
        server.close()
    return Recording(read(log, data), promises, opened)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, often: Often) -> Recording:
    """Of the shop as it is."""
    _require_a_compiler()
    return _record(tmp_path_factory.mktemp("power"), SERVER, often(9, 60))


def _require_a_compiler() -> None:
    if shutil.which("cc") is None:
        if os.environ.get("WIDGET_STORE_REQUIRE_ALL") == "1":
            pytest.fail("there is no C compiler here")
        pytest.skip("there is no C compiler here")


@pytest.mark.sampled(2)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(4))
def test_a_shop_keeps_its_promises_after_a_power_cut(
    recording: Recording, tmp_path: Path, often: Often, part: int
) -> None:
    """Whatever of the unsynced the disk has kept: orders end, the books balance, what was shown is so."""
    assert len({promise.payment_id for promise in recording.promises}) > 5
    count = often(1, 50)
    images = enumerate(recording.images(count, seed=part))
    faults = {number: image.fault(tmp_path / str(number)) for number, image in images}
    assert len(faults) == count
    assert not any(faults.values()), {number: fault for number, fault in faults.items() if fault}


@pytest.mark.timeout(600)
def test_without_syncs_a_power_cut_is_seen(tmp_path: Path) -> None:
    """Or the test before this one proves nothing."""
    _require_a_compiler()
    careless = _record(tmp_path / "careless", _CARELESS, 12)
    assert not any(record.operation == "S" for record in careless.records[careless.opened :])
    images = enumerate(careless.images(20, seed=1))
    assert any(image.fault(tmp_path / str(number)) for number, image in images)


def test_files_that_were_copied_in_the_wrong_order_are_seen(recording: Recording, tmp_path: Path) -> None:
    """The store first and the checkpoints later: what the one has lost, a shopper was shown."""
    records = len(recording.records)
    image = recording.copied_in_the_wrong_order((recording.opened + records) // 2, records)
    assert image.fault(tmp_path / "copied")


@pytest.mark.quick
def test_what_a_power_cut_leaves() -> None:
    """The synced, whole; of the rest, any part; and a name only once its folder is synced."""
    ticks = itertools.count()

    def record(operation: str, name: str, offset: int = 0, data: bytes = b"") -> Record:
        return Record(operation, name, offset, data, next(ticks))

    disk = Disk()
    for each in (
        record("C", "a"), record("W", "a", 0, b"1" * 1024), record("S", "a"), record("S", ""),
        record("W", "a", 0, b"2" * 1024), record("C", "b"), record("W", "b", 2, b"3"), record("S", "b"),
    ):  # fmt: skip
        disk.apply(each)
    assert disk.files() == {"a": b"2" * 1024, "b": b"\0\0" + b"3"}
    chance = random.Random(1)
    found = [disk.after_a_power_cut(chance) for _ in range(200)]
    ones, twos = b"1" * 512, b"2" * 512
    assert {each["a"] for each in found} == {ones + ones, twos + twos, ones + twos, twos + ones}
    assert {each.get("b") for each in found} == {None, b"\0\0" + b"3"}
    disk.apply(record("T", "a", 3))
    disk.apply(record("S", "a"))
    disk.apply(record("S", ""))
    assert disk.after_a_power_cut(chance) == {"a": b"222", "b": b"\0\0" + b"3"}
