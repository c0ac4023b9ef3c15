"""Faults that need no certain database: a guestbook that dies, a server that dies while it greets."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from store.serving.supervisor import Supervisor
from store.storm.faults import Again, Kind, NotMade, Way
from store.storm.held_server import Held
from store.storm.notes import Notes
from store.storm.shoppers import Shopper

_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Shop:
    """A shop that faults are made in."""

    supervisor: Supervisor
    held: Held
    guestbook: Supervisor
    notes: Notes
    visitor: Callable[[], Shopper]
    """Somebody who comes in just to see what a fault needs to see."""


def ways(shop: Shop) -> dict[Kind, Way]:
    """How these faults are made."""
    return {
        Kind.GUESTBOOK_DIES: lambda: _guestbook_dies(shop),
        Kind.SERVER_DIES_IN_GREETING: lambda: _server_dies_in_greeting(shop),
    }


@contextmanager
def restored(shop: Shop, *, of_checkpoints: bool, take: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """`take` a copy now, and put it back at the end, with what it returns and no server there."""
    copied_at = time.monotonic()
    put_back = take()
    yield
    with shop.held.none(shop.supervisor):
        put_back()
        shop.notes.restored(copied_at, of_checkpoints=of_checkpoints)


@contextmanager
def _guestbook_dies(shop: Shop) -> Iterator[None]:
    """It dies of what it is sent, after writing it down and before answering; and else of SIGKILL."""
    _tell_guestbook(shop, kind="die", times=1000)
    try:
        with Again(shop.guestbook.kill_server, 0.7):
            yield
    finally:
        _tell_guestbook(shop, kind="none", times=0)


def _tell_guestbook(shop: Shop, **trouble: object) -> None:
    """Tell the guestbook what to do wrong, as soon as there is one."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        connection = http.client.HTTPConnection(urlsplit(shop.guestbook.address).netloc, timeout=5)
        try:
            connection.request("POST", "/trouble", json.dumps(trouble), {"Content-Type": "application/json"})
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass  # it has just died
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise TimeoutError("the guestbook does not come back")
        time.sleep(0.1)  # between two tries


@contextmanager
def _server_dies_in_greeting(shop: Shop) -> Iterator[None]:
    """It is killed as soon as a greeting is seen to be in one of the two books and not in the other."""
    visitor = shop.visitor()
    deadline = time.monotonic() + _PATIENCE_SECONDS
    visit = visitor.sign()
    while visitor.look_at_greeting(visit) != "Signed in the online guestbook, not yet in ours":
        if visit.outcome is not None:
            visit = visitor.sign()
        if time.monotonic() > deadline:
            raise NotMade("No greeting was seen between its two books.")
        time.sleep(0.02)  # between two looks
    shop.supervisor.kill_server()
    yield
