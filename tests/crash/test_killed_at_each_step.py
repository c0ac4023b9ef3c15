"""A shop killed with SIGKILL at a named point, and over its recovery; started again, and its books.

Before and after each commit of a purchase it is killed by `tests/test_explore_replayed.py`.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.conftest import NewUrl
from tests.support.server import MORTAL
from tests.support.shop import Shop
from tests.support.shopper import Answer, Shopper, eventually, key

_STEPS_OF_A_RECOVERY = (
    "the record of the start",
    "the claim",
    "the recovery",
    "the record of the adoption",
    "the taking up",
)
_INTERRUPTED_AT = (
    "after commit of reserve",
    "after commit of tick 5",
)


def points(steps: tuple[str, ...]) -> list[str]:
    """Before and after each commit."""
    return [f"{moment} commit of {step}" for step in steps for moment in ("before", "after")]


class StubbornShopper(Shopper):
    """Repeats a request that met a dead shop, as a reload or a second click does."""

    def __init__(self, shop: Shop, *fates: str) -> None:
        super().__init__(shop.server.url)
        self._shop = shop
        self._fates = fates
        self.deaths_met = 0

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, asked again of the next shop if the first one dies over it."""
        try:
            return super().request(method, path, body, headers)
        except (OSError, http.client.HTTPException):
            self.deaths_met += 1
            self.see_it_through()
            return super().request(method, path, body, headers)

    def see_it_through(self) -> None:
        """Let the shop die, and die again over its recovery at each of the fates; then open it."""
        assert self._shop.server.wait_for_death() == -9
        for fate in self._fates:
            self._shop.server.restart(script=(*MORTAL, fate), expect_to_open=False)
            assert self._shop.server.wait_for_death() == -9
        self._shop.server.restart()
        self.url = self._shop.server.url


@pytest.fixture(scope="module")
def crash_shop(new_url: NewUrl) -> Iterator[Callable[[str], Shop]]:
    """Opens the shop of this module with an appointment to die; its data stays from test to test."""
    shop = Shop(new_url(), STORE_DISPATCH_TICK_SECONDS=0.01)

    def open_until(point: str) -> Shop:
        shop.server.close()
        shop.server.log.clear()
        if shop.server.url and not shop.tables.rows("SELECT 1 FROM products WHERE on_hand > 10"):
            shop.tables.refill()
        shop.server.restart(script=(*MORTAL, point))
        return shop

    yield open_until
    shop.server.close()


def assert_it_died(shop: Shop, shopper: StubbornShopper, *points: str) -> None:
    """The shop came to each point and was killed there; then it is open again."""
    if shopper.deaths_met == 0:  # it died, or dies now, after the order's last visible change
        shopper.see_it_through()
    for point in points:
        # Not a line by itself: the shop may be in the middle of one of its own.
        assert f"dying {point}\n" in shop.server.output


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("point", "step"),
    [
        ("after commit of reserve", "reserve"),
        ("after commit of charge", "settle"),
        ("after commit of tick 1", "tick 1"),
        ("after commit of tick 10", "tick 10"),
    ],
)
def test_the_timeline_says_what_was_run_again(
    crash_shop: Callable[[str], Shop], point: str, step: str
) -> None:
    """That step alone had committed before the crash. What was recorded by then is remembered."""
    shop = crash_shop(point)
    shopper = StubbornShopper(shop)
    payment_id = shopper.buy(key())
    shopper.confirm(payment_id)
    shopper.wait_for(payment_id, "Dispatched")
    assert_it_died(shop, shopper, point)
    # The last tick is recorded a moment after it shows.
    rows = eventually(
        lambda: re.findall(
            r'<li class="(step|crash) ([a-z-]+)">\s*<span class="what">(?:.*?<code>(.*?)</code>)?',
            shop.shopper.page(f"/orders/{payment_id}/timeline").text,
        ),
        lambda rows: "tick 10" in {name for _, _, name in rows},
    )
    # A checkout that has started its dispatch may itself have something left to record, after the crash.
    crash = [kind for kind, _, _ in rows].index("crash")
    before, after = rows[:crash], rows[crash + 1 :]
    assert {fate for _, fate, _ in before} <= {"remembered"}
    assert {fate for _, fate, _ in after} <= {"ran", "run-again"}
    assert [name for _, fate, name in after if fate == "run-again"] == [step]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("again", points(_STEPS_OF_A_RECOVERY))
@pytest.mark.parametrize("point", _INTERRUPTED_AT)
def test_a_recovery_survives(crash_shop: Callable[[str], Shop], point: str, again: str) -> None:
    """A second death, over the recovery from the first, and a third over that from the second."""
    shop = crash_shop(point)
    third = "after commit of the taking up"
    shopper = StubbornShopper(shop, again, third)
    payment_id = shopper.buy(key())
    shopper.confirm(payment_id)
    shopper.wait_for(payment_id, "Dispatched")
    assert_it_died(shop, shopper, point, again, third)
    assert shop.tables.orders()[payment_id] == "dispatched"
    assert not shop.tables.faults()


def test_an_unpaid_order_expires_though_the_shop_was_closed(open_shop: Callable[..., Shop]) -> None:
    """The deadline passes while nobody is there; the next start cancels the order."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=1)
    payment_id = shop.shopper.buy(key())
    shop.server.kill()
    shop.server.restart()
    shop.shopper.wait_for(payment_id, "The payment window closed")
    assert shop.tables.orders()[payment_id] == "expired"
    assert not shop.tables.faults()


def test_a_payment_that_arrives_just_before_a_crash_counts(open_shop: Callable[..., Shop]) -> None:
    """A message that the database has is a payment, though nobody had read it."""
    shop = open_shop()
    payment_id = shop.shopper.buy(key())
    shop.server.kill()
    shop.server.restart(script=(*MORTAL, "after commit of the payment message"))
    with pytest.raises((OSError, http.client.HTTPException)):
        shop.shopper.confirm(payment_id)
    assert shop.server.wait_for_death() == -9
    shop.server.restart()
    shop.shopper.wait_for(payment_id, "Dispatched")
    assert not shop.tables.faults()


def test_a_stopped_shop_leaves_its_orders_to_the_next(open_shop: Callable[..., Shop]) -> None:
    """SIGTERM is no different: pending orders stay pending, and can be paid after a restart."""
    shop = open_shop()
    payment_ids = [shop.shopper.buy(key()) for _ in range(5)]
    assert shop.server.stop() == 0
    shop.server.restart()
    for payment_id in payment_ids:
        shop.shopper.confirm(payment_id)
    for payment_id in payment_ids:
        shop.shopper.wait_for(payment_id, "Dispatched")
    assert not shop.tables.faults()


def test_a_payment_between_an_expiry_and_its_checkpoint_dispatches_nothing(
    open_shop: Callable[..., Shop],
) -> None:
    """The order expires, the shop dies before it has written so, and a payment comes: it goes back."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=1)
    shop.server.kill()
    shop.server.restart(script=(*MORTAL, "after commit of cancel"))
    payment_id = shop.shopper.buy(key())
    assert shop.server.wait_for_death() == -9
    assert shop.tables.orders()[payment_id] == "expired"
    # What another server writes that hears of the payment meanwhile.
    for statement in (
        "INSERT INTO payment_notices (payment_id, outcome, received_at_ms) VALUES (:id, 'paid', 1)",
        (
            "INSERT INTO payments (kind, payment_id, amount_cents, recorded_at_ms)"
            " VALUES ('charge', :id, 9999, 1), ('refund', :id, 9999, 1)"
        ),
    ):
        shop.tables.change(statement, id=payment_id)
    shop.server.restart()
    eventually(
        lambda: shop.checkpoints.rows(
            "SELECT status FROM workflow_status WHERE workflow_uuid = :id", id=payment_id
        ),
        lambda ended: ended == [("SUCCESS",)],
    )
    assert shop.checkpoints.rows("SELECT 1 FROM workflow_status WHERE name = 'dispatch'") == []
    assert shop.tables.orders()[payment_id] == "expired"
    assert "tick" not in shop.shopper.page(f"/orders/{payment_id}/timeline").text
    assert not shop.tables.faults()


@pytest.mark.parametrize(("first", "later"), [("paid", "failed"), ("failed", "paid")])
def test_the_first_outcome_counts_though_the_shop_died_over_it(
    open_shop: Callable[..., Shop], first: str, later: str
) -> None:
    """It was written down, and nobody was told; then the other outcome comes."""
    shop = open_shop()
    payment_id = shop.shopper.buy(key())
    shop.server.kill()
    shop.server.restart(script=(*MORTAL, "after commit of the notice of the payment"))
    with pytest.raises((OSError, http.client.HTTPException)):
        shop.shopper.post(f"/payment_webhook/{payment_id}/{first}")
    assert shop.server.wait_for_death() == -9
    shop.server.restart()
    shop.shopper.post(f"/payment_webhook/{payment_id}/{later}")
    shop.shopper.wait_for(payment_id, "Dispatched" if first == "paid" else "Payment cancelled")
    assert not shop.tables.faults()
