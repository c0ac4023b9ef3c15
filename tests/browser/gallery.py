"""Every page in every state that it has, standing still, so that it can be looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.conftest import Shop
from tests.support.shopper import eventually, key
from tests.support.standstill import buy_too_late


class View(NamedTuple):
    """One page in one state."""

    shop: Shop
    path: str
    heading: str


VIEWS = (
    "store",
    "store-without-orders",
    "store-sold-out",
    "store-came-too-late",
    "pay",
    "pay-reserving",
    "pay-sold-out",
    "pay-refused",
    "pay-time-is-up",
    "order-pending",
    "order-paid",
    "order-under-way",
    "order-dispatched",
    "order-declined",
    "order-expired",
    "order-settling",
    "guestbook",
    "greeting-done",
    "lanes",
    "lanes-run",
    "books",
    "books-broken",
    "not-found",
)


class Gallery:
    """Shops where nothing moves by itself, with an order in every state."""

    def __init__(self, open_still: Callable[..., Shop], guestbook_url: str) -> None:
        self._shop = open_still(STORE_UNPAID_PER_CLIENT=4)
        self._empty = open_still(STORE_GUESTBOOK_URL=guestbook_url)
        # Nobody buys here; a greeting comes to its end.
        self._new = open_still(STORE_GUESTBOOK_URL=guestbook_url, STORE_DISPATCH_TICK_SECONDS=0.01)
        self._empty.books.stock(1)
        pending, late = self._shop.shopper.buy(), self._shop.shopper.buy()
        self._change(late, "UPDATE orders SET pay_by_ms = created_at_ms + 1 WHERE payment_id = :id")
        expired = self._cancelled()
        self._change(expired, "UPDATE orders SET reason = 'expired' WHERE payment_id = :id")
        # A checkout that DBOS knows, and whose order is not there: as it is before `reserve`.
        reserving = self._cancelled()
        self._change(reserving, "DELETE FROM orders WHERE payment_id = :id")
        sold_out = buy_too_late(self._empty)
        heard = self._shop.shopper.buy()
        self._change(
            heard,
            "INSERT INTO payment_notices (payment_id, outcome, received_at_ms) VALUES (:id, 'paid', 1)",
        )
        on_its_way = "Paid. Your widget is on its way"
        self._views = {
            "store": View(self._shop, "/", "The Widget"),
            "store-without-orders": View(self._new, "/", "The Widget"),
            "store-sold-out": View(self._empty, "/", "The Widget"),
            "store-came-too-late": View(self._empty, f"/?key={key()}", "The Widget"),
            "pay": View(self._shop, f"/pay/{pending}", "Your widget is held"),
            "pay-reserving": View(self._shop, f"/pay/{reserving}", "Reserving your widget…"),
            "pay-sold-out": View(self._empty, f"/pay/{sold_out}", "Sold out"),
            "pay-time-is-up": View(self._shop, f"/pay/{late}", "Time is up"),
            "order-declined": View(self._shop, f"/orders/{self._cancelled()}", "Payment cancelled"),
            "order-expired": View(self._shop, f"/orders/{expired}", "The payment window closed"),
            "order-dispatched": View(self._shop, f"/orders/{self._paid(10)}", "Dispatched"),
            "order-under-way": View(self._shop, f"/orders/{self._paid(4)}", on_its_way),
            "order-paid": View(self._shop, f"/orders/{self._paid(0)}", on_its_way),
            "order-pending": View(self._shop, f"/orders/{pending}", "Waiting for your payment"),
            "order-settling": View(self._shop, f"/orders/{heard}", "Settling your payment…"),
            "guestbook": View(self._new, "/guestbook", "The guestbook"),
            "greeting-done": View(self._new, f"/greetings/{self._greeted()}", "Thank you for being awesome"),
            "lanes": View(self._new, "/lanes", "Side by side"),
            "lanes-run": View(self._empty, f"/lanes/{self._run()}", "Side by side"),
            "books": View(self._empty, "/ledger", "The books"),
            # What is arranged above, no shop would do.
            "books-broken": View(self._shop, "/ledger", "The books"),
            "not-found": View(self._shop, "/nowhere", "There is nothing at this address"),
        }
        # The three above hold a unit each, and after this one there is none left for whoever has them.
        self._shop.shopper.buy()
        refused = self._shop.shopper.buy()
        self._views["pay-refused"] = View(self._shop, f"/pay/{refused}", "You have enough for now")
        assert set(self._views) == set(VIEWS)

    def __getitem__(self, name: str) -> View:
        """The view of that name."""
        return self._views[name]

    def close(self) -> None:
        """Close its shops."""
        for shop in (self._shop, self._empty, self._new):
            shop.server.close()

    def _greeted(self) -> str:
        one_key = key()
        self._new.shopper.submit("/guestbook", key=one_key, name="Ada Lovelace")
        eventually(
            lambda: self._new.shopper.page(f"/greetings/{one_key}").text,
            lambda text: "Thank you for being awesome" in text,
        )
        return one_key

    def _run(self) -> str:
        one_key = self._empty.shopper.page("/lanes").key
        self._empty.shopper.submit("/lanes", key=one_key)
        return one_key

    def _cancelled(self) -> str:
        payment_id = self._shop.shopper.buy()
        self._shop.shopper.cancel(payment_id)
        self._shop.shopper.wait_for(payment_id, "Payment cancelled")
        return payment_id

    def _paid(self, progress: int) -> str:
        payment_id = self._shop.shopper.buy()
        self._shop.shopper.confirm(payment_id)
        self._shop.shopper.wait_for(payment_id, "Paid. Your widget is on its way")
        if progress:
            move(self._shop, payment_id, progress)
        return payment_id

    def _change(self, payment_id: str, statement: str) -> None:
        self._shop.books.change(statement, id=payment_id)


def move(shop: Shop, payment_id: str, progress: int) -> None:
    """Write an order's progress into its row, as a tick of its dispatch does."""
    shop.books.change(
        "UPDATE orders SET progress = :progress, status = :status WHERE payment_id = :payment_id",
        progress=progress,
        status="dispatched" if progress == 10 else "paid",
        payment_id=payment_id,
    )


def row(shop: Shop, payment_id: str) -> Any:
    """An order as its table has it."""
    return shop.books.rows("SELECT * FROM orders WHERE payment_id = :id", id=payment_id)[0]
