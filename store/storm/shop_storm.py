"""A storm on the shop that is open: a process of its own, with shoppers who have the server killed.

A server starts it, by `python -m store.storm.shop_storm <number> <address>`, and it outlives that server,
which it has killed. It does not outlive the shop: the parent of the servers holds the other end of its
standard input, too. All that it knows it writes to the database, and where it finds there that it is not
wanted any more, it ends at once.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from statistics import median
from typing import Any, NoReturn, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from store.database import for_a_last_word
from store.serving import requests
from store.settings import Settings
from store.stage import storm_state
from store.stage.storm_state import Batch, Phase, Sale, Storm
from store.storm.audit import count_doubled, count_lost, endings_of, look_at_every_order
from store.storm.notes import Notes, Purchase
from store.storm.shop_shopper import OpenShop, Sales, ShopShopper, observer, presenter

_WRITE_SECONDS = 0.5
"""Between two writes: SQLite has one writer, and the shop is to be it."""
_LATEST_SECONDS = 30.0
"""How long after its time the last kills may come, where starts take longer than lies between two kills."""
_LIFE_SECONDS = 1.2
"""How long a server serves before it is killed."""
_REST_SECONDS = 60.0
"""Beside the payment window: the shop must have come to rest so long after the last shopper left."""
_MOST_TRIES = 10
"""At the beginning, of a database that does not take it."""
_MOST_COMPLAINTS = 20
_log = logging.getLogger("store.storm")
R = TypeVar("R")


class ShopStorm:
    """One storm, from its first shopper to its verdict."""

    def __init__(self, storm: Storm, address: str, settings: Settings, engine: sa.Engine) -> None:
        self._storm, self._settings, self._engine = storm, settings, engine
        self._shop = OpenShop(address, storm.secret, storm.seed, storm.shoppers)
        self._notes, self._sales = Notes(), Sales()
        self._began_at = time.monotonic()
        self._is_over = threading.Event()
        self._killed = 0
        self._phase = Phase.BLOWING
        # What is not written down yet, of which a write that failed may have written all.
        self._batch: Batch | None = None
        self._batches = self._requests_written = 0
        self._made: list[Purchase] = []

    def run(self) -> None:
        """All of it; the process ends in here if nobody wants it any more."""
        shoppers = [
            threading.Thread(target=self._shopper(number).shop_and_tell, args=[self._is_over.is_set])
            for number in range(self._storm.shoppers)
        ]
        killer = threading.Thread(target=self._kill)
        others = [killer, threading.Thread(target=self._keep_the_shelf_filled)]
        for thread in [*shoppers, *others]:
            thread.daemon = True
            thread.start()
        while self._seconds() < self._storm.seconds or killer.is_alive():
            self._write()
        self._is_over.set()
        self._phase = Phase.RESTING
        while any(thread.is_alive() for thread in [*shoppers, *others]):
            self._write()
        ledger: list[dict[str, Any]] = []
        auditor = threading.Thread(target=lambda: ledger.append(self._audit()), daemon=True)
        auditor.start()
        while auditor.is_alive() or self._has_more_to_write():
            self._write()
        finish = partial(storm_state.finish, phase=Phase.ENDED, verdict=self._verdict(ledger[0]))
        while self._try(finish) is None:
            time.sleep(_WRITE_SECONDS)  # between two tries

    def _shopper(self, number: int) -> ShopShopper:
        return ShopShopper(self._shop, number, self._notes, self._settings, sales=self._sales)

    def _seconds(self) -> float:
        return time.monotonic() - self._began_at

    def _kill(self) -> None:
        """Have the server killed at moments that chance picks.

        Each time it is one that has answered somebody, with an order on its way if one comes in time: the
        death of a server that has nothing to do would show nothing.
        """
        chance = random.Random(self._storm.seed)  # noqa: S311 - it keeps no secret
        killed = 0
        for moment in sorted(chance.uniform(0.05, 0.9) for _ in range(self._storm.kills)):
            while self._seconds() < moment * self._storm.seconds:
                time.sleep(0.02)  # between two looks at the clock
            server = self._server_to_kill(killed)
            if server is None:
                return
            try:
                requests.ask_to_kill(0)
            except OSError:  # the shop is closed
                return
            killed = server
            self._killed += 1

    def _server_to_kill(self, killed: int) -> int | None:
        """A newer server than that, with an order on its way; None if none comes in time, or is wanted.

        One that dies of something else meanwhile, as of a crash that the presenter armed, has a successor.
        """
        while (server := self._server_after(killed)) is not None:
            self._wait_for_an_order()
            newest = self._try(storm_state.newest_server)
            if newest == server:
                break
            if newest:
                killed = server
        return server

    def _server_after(self, killed: int) -> int | None:
        """A newer server than that, once it has served for a while; None if none comes in time.

        Whoever looks on is to see what each death has done before the next one.
        """
        while self._seconds() < self._storm.seconds + _LATEST_SECONDS:
            server = self._try(storm_state.newest_server)
            if server == 0:
                return None  # it is not wanted any more: so this process ends in a moment
            if server is not None and server > killed:
                since = time.monotonic()
                while self._notes.answered_at < since + (_LIFE_SECONDS if killed else 0):
                    if self._seconds() > self._storm.seconds + _LATEST_SECONDS:
                        return None
                    time.sleep(0.02)  # between two looks
                return server
            time.sleep(0.1)  # between two looks
        return None

    def _wait_for_an_order(self) -> None:
        """Until one of this storm's is paid and not shipped; not longer than anybody comes who could buy."""
        while self._seconds() < self._storm.seconds and not self._try(storm_state.on_their_way):
            time.sleep(0.05)  # between two looks

    def _keep_the_shelf_filled(self) -> None:
        chance = random.Random(~self._storm.seed)  # noqa: S311 - it keeps no secret
        filler = presenter(self._shop, self._notes, self._settings)
        while not self._is_over.wait(chance.uniform(0.5, 4)):
            filler.post("/restock")

    # --- what is written down -------------------------------------------------------------------

    def _write(self) -> None:
        """Wait a little, and write down what came meanwhile; nobody wants it any more if the row says so."""
        time.sleep(_WRITE_SECONDS)
        if self._batch is None:
            self._batches += 1
            requests = self._notes.log[self._requests_written :]
            self._requests_written += len(requests)
            sales: list[Sale] = self._sales.take()
            self._batch = Batch(self._batches, self._phase, self._killed, sales, requests)
        is_on = self._try(partial(storm_state.record, batch=self._batch))
        if is_on is None:
            return  # another try comes, with the same
        if not is_on:
            end("it is not wanted any more")
        self._batch = None

    def _has_more_to_write(self) -> bool:
        return self._batch is not None or self._requests_written < len(self._notes.log)

    def _try(self, do: Callable[[Session, str], R]) -> R | None:
        """What a transaction about this storm returns; None where the database does not take it now."""
        return write(self._engine, partial(do, secret=self._storm.secret))  # type: ignore[call-arg]

    # --- the end --------------------------------------------------------------------------------

    def _audit(self) -> dict[str, Any]:
        """Look at every order once nothing moves any more; the ledger then."""
        looker = observer(self._shop, self._notes, self._settings)
        deadline = time.monotonic() + self._settings.payment_window_seconds + _REST_SECONDS
        self._made = look_at_every_order(looker, self._notes)
        while True:
            answer = looker.get("/ledger.json")
            ledger: dict[str, Any] = json.loads(answer.text) if answer.status == 200 else {}
            if (ledger.get("balanced") and not ledger["catching_up"]) or time.monotonic() > deadline:
                return ledger
            time.sleep(_WRITE_SECONDS)  # between two looks

    def _verdict(self, ledger: dict[str, Any]) -> dict[str, Any]:
        notes = self._notes
        balances = bool(ledger.get("balanced"))
        return {
            "ok": balances and not notes.complaints and not notes.refused,
            "balanced": balances,
            "orders": len(self._made),
            "lost": count_lost(self._made),
            "doubled": count_doubled(self._made),
            "endings": endings_of(notes),
            "usual_pause_seconds": round(median(notes.pauses), 2) if notes.pauses else None,
            "longest_pause_seconds": round(notes.longest_pause_seconds, 2),
            "longest_dark_seconds": round(notes.longest_dark_seconds, 2),
            "complaints": notes.complaints[:_MOST_COMPLAINTS],
        }


def write(engine: sa.Engine, change: Callable[[Session], R]) -> R | None:
    """Run one transaction; None where the database does not take it now."""
    try:
        with Session(engine) as session, session.begin():
            return change(session)
    except DBAPIError as error:
        _log.warning("not written down yet: %s", str(error.orig).splitlines()[0])
        return None


def end(why: str) -> NoReturn:
    """End this process at once, with all its shoppers."""
    _log.warning("the storm ends: %s", why)
    os._exit(0)


def _end_with_the_shop(engine: sa.Engine, secret: str) -> None:
    """End once the parent of the servers is gone, which holds the other end of our standard input."""
    with suppress(OSError):  # that is how it ends where something that we asked for was not read
        while os.read(0, 1):
            pass
    write(engine, partial(storm_state.finish, secret=secret, phase=Phase.LOST))
    end("the shop was closed")


def main(number: int, address: str) -> None:
    """Be the storm of that number, unless another process is, on the shop at that address."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    settings = Settings.from_env(is_strict=False)
    engine = for_a_last_word(settings)
    for _ in range(_MOST_TRIES):
        storm = write(engine, partial(storm_state.begin, number=number))
        if storm is not None:
            break
        time.sleep(_WRITE_SECONDS)  # the database may take it then
    else:
        return  # another process is that storm, or nobody wants it any more
    threading.Thread(target=_end_with_the_shop, args=[engine, storm.secret], daemon=True).start()
    ShopStorm(storm, address, settings, engine).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
