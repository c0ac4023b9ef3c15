"""An audience with phones, in the shop of `app.py talk`, while its server is killed every ten seconds.

Each buys, pays, and watches the bar to its end before it buys again, as whoever scans a code on a wall does;
what waits on the page is asked for as the page asks. So the shop has as many orders under way as there are
phones, whatever it can sell in a second.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from statistics import quantiles

import pytest

from store.storm import shoppers
from store.storm.browser import Reply
from store.storm.notes import Notes, Purchase
from tests.conftest import Often
from tests.support.server import Server
from tests.support.shopper import Client, eventually
from tests.support.started import is_alive
from tests.support.tables import Tables

_WINDOW_SECONDS = 120.0
_CRASH_EVERY_SECONDS = 10.0
_MANY = 200
_POLL_SECONDS = 1.0
_ARRIVAL_SECONDS = 20.0
"""A code on a wall is not scanned by two hundred people in one moment; by fewer, sooner."""
_NEWEST = "SELECT number, pid FROM executors ORDER BY number DESC LIMIT 1"


class Phone(shoppers.Shopper):
    """Buys one widget after the other, and pays."""

    arrival_seconds = _ARRIVAL_SECONDS

    def __init__(self, address: str, number: int, notes: Notes, buy_now_seconds: list[float]) -> None:
        super().__init__(address, f"phone {number}", notes, _WINDOW_SECONDS)
        self._buy_now_seconds = buy_now_seconds

    def shop_until(self, is_over: Callable[[], bool]) -> None:
        """Come in at some moment, and buy from then on."""
        time.sleep(self._chance.uniform(0, self.arrival_seconds))  # who comes when is part of the load
        super().shop_until(is_over)

    def ways(self) -> dict[Callable[[Purchase], None], int]:
        """One only."""
        return {self.buy_and_watch: 100}

    def buy_and_watch(self, purchase: Purchase) -> None:
        """Buy, pay, and look on as the order's page does until it has come to its end."""
        self.confirm(purchase)
        deadline = time.monotonic() + _WINDOW_SECONDS
        shown_tag = ""
        while purchase.is_taken:
            answer = self.poll(f"/orders/{purchase.key}/progress", shown_tag)
            status = answer.status
            if status == HTTPStatus.GONE:
                # There was no order yet: a browser is still on the page that waits for one.
                status = self.get(f"/orders/{purchase.key}").status
            if status not in {HTTPStatus.OK, HTTPStatus.NOT_MODIFIED}:
                self._notes.complain(f"the poll of an order answered {answer.status}, and its page {status}")
                return
            if answer.status == HTTPStatus.OK and not re.search(r'data-ending="(pending|paid)"', answer.text):
                return  # there is nothing more to be seen of it
            shown_tag = answer.tag or shown_tag
            if time.monotonic() > deadline:
                self._notes.complain("an order was not shipped while its page was open")
                return
            time.sleep(_POLL_SECONDS)  # between two polls of the page

    def post(self, path: str, **form: str) -> Reply:
        """The same, with the time that a Buy Now took, however often it had to be sent."""
        began_at = time.monotonic()
        reply = super().post(path, **form)
        if path == "/buy":
            self._buy_now_seconds.append(time.monotonic() - began_at)
        return reply


@pytest.mark.timeout(600)
def test_an_audience_buys_while_the_server_is_killed(
    talk: Server, tmp_path: Path, often: Often, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is refused or left without an answer, one click is one order, and the books balance."""
    phones, crashes = often(12, _MANY), often(1, 6)
    tables, notes = Tables(f"sqlite:///{tmp_path}/talk/talk.sqlite3"), Notes()
    buy_now_seconds: list[float] = []
    is_over = threading.Event()
    monkeypatch.setattr(Phone, "arrival_seconds", _ARRIVAL_SECONDS * phones / _MANY)
    filler = threading.Thread(target=_fill_the_shelf, args=[talk, is_over])
    audience = [
        threading.Thread(
            target=Phone(talk.url, number, notes, buy_now_seconds).shop_and_tell, args=[is_over.is_set]
        )
        for number in range(phones)
    ]
    for thread in (filler, *audience):
        thread.start()
    try:
        for crash in range(crashes):
            time.sleep(_CRASH_EVERY_SECONDS)  # in which the audience buys
            [(number, pid)] = eventually(lambda: tables.rows(_NEWEST), lambda rows: is_alive(rows[0].pid))
            assert number == crash + 1, "another server died by itself"
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: tables.rows(_NEWEST), lambda rows: rows[0].number == crash + 2)  # noqa: B023
    finally:
        is_over.set()
        for thread in (filler, *audience):
            thread.join()
    live = "SELECT payment_id FROM orders WHERE status IN ('pending', 'paid')"
    eventually(lambda: tables.rows(live), lambda rows: not rows, timeout_seconds=_WINDOW_SECONDS + 60)
    assert notes.complaints == []
    assert notes.refused == 0
    assert tables.faults() == {}
    orders = tables.orders()
    assert {purchase.key for purchase in notes.purchases if purchase.is_taken} <= orders.keys()
    assert len(orders) <= len(notes.purchases)
    assert len(buy_now_seconds) >= phones
    shares = quantiles(buy_now_seconds, n=100)
    # For whoever runs it with `-s`: no time is a limit here.
    print(f"{phones} phones, {len(buy_now_seconds)} clicks on Buy Now, {crashes} crashes:")  # noqa: T201
    print(f"p50 {shares[49]:.3f} s, p99 {shares[98]:.3f} s, worst {max(buy_now_seconds):.3f} s")  # noqa: T201


def _fill_the_shelf(talk: Server, is_over: threading.Event) -> None:
    """As the presenter does when it is empty."""
    [password] = re.findall(
        r"Password\s+(\S+)", eventually(lambda: talk.output, lambda said: "Password" in said)
    )
    credentials = b64encode(f"presenter:{password}".encode()).decode()
    while not is_over.wait(1.0):
        try:
            Client(talk.url).request("POST", "/restock", headers={"Authorization": f"Basic {credentials}"})
        except OSError:
            continue  # the server died over it: the next time does it
