"""A shopper of a storm on an open shop: one who stays with each order until it has ended."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from store.settings import Settings
from store.stage.storm_requests import HEADER, OBSERVER, PRESENTER
from store.stage.storm_state import Sale
from store.storm.notes import Notes, Purchase
from store.storm.shoppers import Shopper
from store.vocabulary import LIVE

_LOOK_SECONDS = 1.0
"""Between two looks at an order, as its page looks by itself; longer where there are more shoppers."""
_MANY_SHOPPERS = 50
_ENDING_SECONDS = 90.0
"""From the end of the payment window: an order that has not ended by then is complained of."""


class Sales:
    """The clicks on Buy Now that are not written down yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: list[Sale] = []

    def add(self, sale: Sale) -> None:
        """One more."""
        with self._lock:
            self._new.append(sale)

    def take(self) -> list[Sale]:
        """All of them, to be written down."""
        with self._lock:
            taken, self._new = self._new, []
        return taken


@dataclass(frozen=True)
class OpenShop:
    """The shop that is open, as a storm on it sees it."""

    address: str
    secret: str
    seed: int
    shoppers: int


class ShopShopper(Shopper):
    """A shopper, by the number that the shop knows them by for as long as the storm is on."""

    def __init__(
        self, shop: OpenShop, number: int, notes: Notes, settings: Settings, *, sales: Sales | None = None
    ) -> None:
        super().__init__(shop.address, f"{shop.seed}-{number}", notes, settings.payment_window_seconds)
        self._headers[HEADER] = f"{shop.secret}/{number}"
        if number == PRESENTER and settings.presenter_password:
            word = base64.b64encode(f"presenter:{settings.presenter_password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {word}"
        self._number, self._sales, self._sale = number, sales, 0
        self._look_seconds = _LOOK_SECONDS * max(1, shop.shoppers / _MANY_SHOPPERS)

    def ways(self) -> dict[Callable[[Purchase], None], int]:
        """Nobody walks away: the window of an open shop is too long for that."""
        ways = {self.confirm: 52, self.decline: 14, self.double_click: 17, self.reload: 17}
        return {self._then_look_on(way): often for way, often in ways.items()}

    def _begin(self, key: str) -> Purchase:
        self._sale += 1
        if self._sales is not None:
            self._sales.add(Sale(self._number, self._sale, key))
        return super()._begin(key)

    def _then_look_on(self, way: Callable[[Purchase], None]) -> Callable[[Purchase], None]:
        def buy_and_look_on(purchase: Purchase) -> None:
            way(purchase)
            deadline = time.monotonic() + self._window_seconds + _ENDING_SECONDS
            while purchase.is_taken and (not purchase.seen or purchase.seen[-1] in LIVE):
                if time.monotonic() > deadline:
                    self._notes.complain(f"order No. {purchase.number} has not ended in time")
                    return
                time.sleep(self._look_seconds)  # as a page does between two polls
                self.look(purchase)

        return buy_and_look_on


def presenter(shop: OpenShop, notes: Notes, settings: Settings) -> ShopShopper:
    """Who fills the shelf."""
    return ShopShopper(shop, PRESENTER, notes, settings)


def observer(shop: OpenShop, notes: Notes, settings: Settings) -> ShopShopper:
    """Who looks at everything in the end."""
    return ShopShopper(shop, OBSERVER, notes, settings)
