"""Every state of every page, caught in real shops: an exhibit is what was served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.support.markup import Markup
from tests.support.shop import Shop
from tests.support.shopper import Answer, eventually, key
from tests.support.standstill import buy_too_late, orders_held

PAYMENT_WINDOW_SECONDS = 12
"""Long enough to look at a held unit, short enough to wait for the end of it."""
TICK_SECONDS = 0.4
"""Long enough to catch a dispatch on its way."""


@dataclass(frozen=True)
class Exhibit:
    """One state: its page, and the fragments of which the page is made, all as served."""

    page: Answer
    fragments: tuple[Answer, ...]

    @property
    def markup(self) -> Markup:
        """The page, taken apart."""
        return Markup(self.page.text)


def show(shop: Shop, path: str, fragment: str | None = None) -> Exhibit:
    """Look at a page and at its fragment, or else at all that it polls."""
    page = shop.shopper.page(path)
    polled = [element.attrs["hx-get"] for element in Markup(page.text).polled.values()]
    return Exhibit(page, tuple(shop.shopper.page(each) for each in ([fragment] if fragment else polled)))


def show_order(shop: Shop, payment_id: str, heading: str) -> Exhibit:
    """Look at an order once its page and its poll both say so."""
    fragment = f"/orders/{payment_id}/progress"
    shop.shopper.wait_for(payment_id, heading)
    eventually(lambda: shop.shopper.page(fragment), lambda answer: answer.heading == heading)
    return show(shop, f"/orders/{payment_id}", fragment)


def catch_orders(shop: Shop) -> dict[str, Exhibit]:
    """An order that expires, one that is paid, one that is declined, and one that has to wait."""
    shop.server.start()
    shopper, wanted = shop.shopper, key()
    shown = {"store": show(shop, "/"), "error": show(shop, f"/orders/{key()}")}
    held = shopper.hold()
    shown["payment, held"] = show(shop, f"/pay/{held}")
    shown["order, pending"] = show_order(shop, held, "Waiting for your payment")
    paid = shopper.hold()
    shopper.confirm(paid)
    eventually(shop.tables.orders, lambda orders: orders.get(paid) == "paid")
    with ThreadPoolExecutor() as browser, orders_held(shop.database_url):
        shown["order, paid"] = show_order(shop, paid, "Paid. Your widget is on its way")
        buying = browser.submit(shopper.buy, wanted)
        eventually(lambda: shopper.page(f"/pay/{wanted}").status, lambda status: status == 200)
        shown["payment, reserving"] = show(shop, f"/pay/{wanted}")
        eventually(
            lambda: shopper.page(f"/pay/{held}").heading,
            lambda heading: heading == "Time is up",
            timeout_seconds=40,
        )
        shown["payment, time up"] = show(shop, f"/pay/{held}")
        shown["order, time up"] = show(shop, f"/orders/{held}")
        buying.result()
    shopper.cancel(wanted)
    shown["order, declined"] = show_order(shop, wanted, "Payment cancelled")
    shown["order, expired"] = show_order(shop, held, "The payment window closed")
    shown["order, dispatched"] = show_order(shop, paid, "Dispatched")
    return shown


def catch_sold_out(shop: Shop) -> dict[str, Exhibit]:
    """Two clicks on the last unit at the same moment, and one on the empty shelf."""
    shop.server.start()
    shop.tables.stock(1)
    late = buy_too_late(shop)
    return {
        "store, sold out": show(shop, "/"),
        "store, came too late": show(shop, shop.shopper.submit("/buy", key=key()).location),
        "payment, sold out": show(shop, f"/pay/{late}", f"/pay/{late}/status"),
        "order, sold out": show_order(shop, late, "Sold out"),
    }
