"""Money that comes too late is given back: never kept for nothing, never given back twice."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import NewUrl
from tests.support.server import MORTAL
from tests.support.shop import Shop
from tests.support.shopper import eventually, key
from tests.support.standstill import buy_too_late

_WINDOW_SECONDS = 0.5


@pytest.fixture(scope="module")
def hasty_shop(new_url: NewUrl) -> Iterator[Shop]:
    """A shop where half a second is all that one has to pay."""
    shop = Shop(new_url(), STORE_PAYMENT_WINDOW_SECONDS=_WINDOW_SECONDS)
    shop.server.start()
    yield shop
    shop.server.close()


def money_of(shop: Shop, payment_id: str) -> list[tuple[str, int]]:
    """What was charged and refunded, in the order of the alphabet."""
    rows = shop.tables.rows(
        "SELECT kind, amount_cents FROM payments WHERE payment_id = :id ORDER BY kind", id=payment_id
    )
    return [(row.kind, row.amount_cents) for row in rows]


REFUNDED = [("charge", 9999), ("refund", 9999)]


def expired(shop: Shop) -> str:
    """An order that nobody paid in time."""
    payment_id = shop.shopper.buy(key())
    shop.shopper.wait_for(payment_id, "The payment window closed")
    return payment_id


def declined(shop: Shop) -> str:
    """An order whose payment did not go through."""
    payment_id = shop.shopper.buy(key())
    shop.shopper.cancel(payment_id)
    shop.shopper.wait_for(payment_id, "Payment cancelled")
    return payment_id


@pytest.mark.parametrize("make", [expired, declined])
@pytest.mark.parametrize("way", ["webhook", "page"])
def test_late_money_goes_back(hasty_shop: Shop, shop: Shop, make: Callable[[Shop], str], way: str) -> None:
    """One charge, one refund; the order stays cancelled, and its page says so with the times."""
    if make is declined:  # which wants time to cancel
        hasty_shop = shop
    payment_id = make(hasty_shop)
    ended_as = hasty_shop.tables.orders()[payment_id]
    if way == "webhook":
        answer = hasty_shop.shopper.post(f"/payment_webhook/{payment_id}/paid")
        assert (answer.status, answer.text.isdigit()) == (200, True)
    else:
        assert hasty_shop.shopper.confirm(payment_id).location == f"/orders/{payment_id}"
    assert money_of(hasty_shop, payment_id) == REFUNDED
    assert hasty_shop.tables.orders()[payment_id] == ended_as
    page = hasty_shop.shopper.order(payment_id).text
    assert "Your $99.99 came too late and has been refunded in full." in page
    assert "Refunded $99.99" in page
    assert "You were not charged" not in page
    assert hasty_shop.shopper.get("/ledger.json").json["balanced"]
    assert not hasty_shop.tables.faults()


def test_late_money_for_what_was_sold_out_goes_back(open_shop: Callable[..., Shop]) -> None:
    """The order never held a unit, and the money is still its shopper's."""
    shop = open_shop(units=1)
    payment_id = buy_too_late(shop)
    shop.shopper.post(f"/payment_webhook/{payment_id}/paid")
    assert money_of(shop, payment_id) == REFUNDED
    assert "came too late and has been refunded" in shop.shopper.order(payment_id).text
    assert not shop.tables.faults()


def test_it_goes_back_once_however_often_it_is_announced(hasty_shop: Shop) -> None:
    """By forty webhooks at once, and one more after them."""
    payment_id = expired(hasty_shop)
    with ThreadPoolExecutor(40) as pool:
        path = f"/payment_webhook/{payment_id}/paid"
        answers = list(pool.map(lambda _: hasty_shop.shopper.post(path), range(40)))
    answers.append(hasty_shop.shopper.post(path))
    assert {answer.status for answer in answers} <= {200, 503, 504}
    assert answers[-1].status == 200
    assert money_of(hasty_shop, payment_id) == REFUNDED
    assert not hasty_shop.tables.faults()


def test_a_late_refusal_moves_no_money(hasty_shop: Shop) -> None:
    """A payment that failed has nothing to give back."""
    payment_id = expired(hasty_shop)
    assert hasty_shop.shopper.post(f"/payment_webhook/{payment_id}/failed").status == 200
    assert money_of(hasty_shop, payment_id) == []


def test_a_payment_that_races_with_the_deadline_has_one_end(hasty_shop: Shop) -> None:
    """Twenty payments at about the last moment: each is sold with one charge, or has its money back."""

    def pay_at_the_last_moment(_: int) -> str:
        payment_id = hasty_shop.shopper.buy(key())
        eventually(
            lambda: hasty_shop.shopper.page(f"/pay/{payment_id}"),
            lambda page: page.status == 303 or page.heading == "Time is up",
        )
        hasty_shop.shopper.post(f"/payment_webhook/{payment_id}/paid")
        return payment_id

    with ThreadPoolExecutor(5) as pool:
        payment_ids = list(pool.map(pay_at_the_last_moment, range(20)))
    for payment_id in payment_ids:
        wait_until_it_has_ended(hasty_shop, payment_id)
        ended_as = hasty_shop.tables.orders()[payment_id]
        expected = [("charge", 9999)] if ended_as == "dispatched" else REFUNDED
        assert money_of(hasty_shop, payment_id) == expected, ended_as
    assert not hasty_shop.tables.faults()


def wait_until_it_has_ended(shop: Shop, payment_id: str) -> None:
    """Until its page polls no longer."""
    eventually(
        lambda: shop.shopper.order(payment_id),
        lambda page: 'hx-trigger="every 1s"' not in order_of(page.text),
    )


def order_of(page: str) -> str:
    """The part of an order's page that is about the order."""
    return page[page.index('id="order"') :].partition(">")[0]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_payment_that_only_the_database_heard_of_counts(
    open_shop: Callable[..., Shop], moment: str
) -> None:
    """Killed over its first word of a payment; the deadline passes while the shop is closed.

    Killed before the word was written down, nobody was told that it was; after, it is found
    when the order is closed, and the order is paid.
    """
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=8)  # a restart on a busy machine fits in
    shop.server.kill()
    shop.server.restart(script=(*MORTAL, f"{moment} commit of the notice of the payment"))
    payment_id = shop.shopper.hold(key())
    with pytest.raises((OSError, http.client.HTTPException)):
        shop.shopper.confirm(payment_id)
    assert shop.server.wait_for_death() == -9
    eventually(
        lambda: shop.tables.rows("SELECT pay_by_ms FROM orders")[0].pay_by_ms / 1000,
        lambda pay_by: pay_by < time.time(),
    )
    shop.server.restart()
    if moment == "after":
        shop.shopper.wait_for(payment_id, "Dispatched")
        assert money_of(shop, payment_id) == [("charge", 9999)]
    else:
        shop.shopper.wait_for(payment_id, "The payment window closed")
        assert money_of(shop, payment_id) == []
        shop.shopper.confirm(payment_id)  # as its browser does, which had no answer
        assert money_of(shop, payment_id) == REFUNDED
    assert not shop.tables.faults()


@pytest.mark.sampled(1)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_refund_survives_a_kill(open_shop: Callable[..., Shop], moment: str) -> None:
    """Killed over the one transaction that takes late money and gives it back."""
    shop = open_shop()
    payment_id = declined(shop)
    shop.server.kill()
    shop.server.restart(script=(*MORTAL, f"{moment} commit of the notice of the payment"))
    with pytest.raises((OSError, http.client.HTTPException)):
        shop.shopper.confirm(payment_id)
    assert shop.server.wait_for_death() == -9
    assert money_of(shop, payment_id) == ([] if moment == "before" else REFUNDED)
    shop.server.restart()
    shop.shopper.confirm(payment_id)
    assert money_of(shop, payment_id) == REFUNDED
    assert not shop.tables.faults()
