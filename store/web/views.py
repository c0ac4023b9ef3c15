"""What the pages and fragments show of payments and orders, computed before a template sees it.

A template branches on one `state`, and reads neither the request nor a clock nor a database.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from store.reads.crashes import Crash
from store.reads.records import Board, Order, PaymentView, Refund
from store.reads.timeline import Deploy
from store.vocabulary import PaymentState, Status
from store.web.track import Track

_TOLD_AGAIN_SECONDS = 60
"""How often a page that counts down by itself is told the time that is left, though nothing else changed."""
_LAST_SECONDS = {"now": 10, "soon": 30}
"""Of a payment window, in which the countdown looks otherwise, the shortest first."""


class State(StrEnum):
    """Where a payment and its order stand, as a shopper is told."""

    RESERVING = "reserving"
    REFUSED = "refused"
    """The client holds too many unpaid units, and got no order."""
    AWAITING_PAYMENT = "awaiting_payment"
    SETTLING = "settling"
    """Word of the payment has come, and the workflow decides next."""
    TIME_IS_UP = "time_is_up"
    """No word has come in time, and the workflow decides next."""
    PAID = "paid"
    DISPATCHED = "dispatched"
    SOLD_OUT = "sold_out"
    DECLINED = "declined"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Shelf:
    """What there is to buy, and the key that Buy Now carries."""

    on_hand: int
    key: str

    @classmethod
    def of(cls, board: Board, key: str) -> Shelf:
        """The shelf of the board."""
        return cls(board.product.on_hand, key)


@dataclass(frozen=True)
class OrderView:
    """One order, on its page and among others."""

    state: State
    order: Order
    track: Track
    refund: Refund | None = None

    @classmethod
    def of(
        cls,
        order: Order,
        crashes: Iterable[Crash],
        refund: Refund | None = None,
        deploys: Iterable[Deploy] = (),
    ) -> OrderView:
        """The order as it stands now, with the crashes and deploys that met it, oldest first."""
        track = Track.of(f"order {order.order_id}", order.progress, crashes).with_deploys(deploys)
        return cls(_state_of_order(order), order, track, refund)

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more, so that the page need not look again."""
        return self.order.is_final


@dataclass(frozen=True)
class PaymentPage:
    """One payment, on its page, while it may change; and the two ends after which one may buy again."""

    payment_id: str
    state: State
    order: Order | None
    left_ms: int
    """Of the payment window; 0 unless it is open."""
    can_pay_here: bool
    """Whether the page itself may say that it is paid, and not only a provider."""
    shelf: Shelf | None
    """A way back in, after those two ends."""
    unpaid: Sequence[Order] = ()
    """What this browser holds and can still pay, where it may hold no more; the newest first."""

    @classmethod
    def of(
        cls,
        payment_id: str,
        view: PaymentView,
        *,
        can_pay_here: bool,
        shelf: Shelf | None,
        unpaid: Sequence[Order],
    ) -> PaymentPage:
        """The payment as it stands now."""
        order, state = view.order, state_of(view)
        left_ms = order.ms_to_pay() if order and state is State.AWAITING_PAYMENT else 0
        if state is State.AWAITING_PAYMENT and not left_ms:  # it ended while this was computed
            state = State.TIME_IS_UP
        return cls(payment_id, state, order, left_ms, can_pay_here, shelf, unpaid)

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more, so that the page need not look again."""
        return ends_on_payment_page(self.state)

    @property
    def seconds_left(self) -> int:
        """Of the payment window, the one that has begun included."""
        return math.ceil(self.left_ms / 1000)

    @property
    def hurry(self) -> str:
        """`soon` in the last half minute of the payment window, `now` in its last ten seconds, else empty."""
        if not self.left_ms or self.window_seconds < _LAST_SECONDS["soon"]:
            return ""
        return next((name for name, last in _LAST_SECONDS.items() if self.seconds_left <= last), "")

    @property
    def steady(self) -> object:
        """All that a page which counts down cannot know, and once a minute the time that is left."""
        return replace(self, left_ms=0), self.hurry, self.seconds_left // _TOLD_AGAIN_SECONDS

    @property
    def window_seconds(self) -> int:
        """How long the window of this order is, whatever the setting is by now."""
        return math.ceil((self.order.pay_by - self.order.created_at).total_seconds()) if self.order else 0

    @property
    def refresh_seconds(self) -> int:
        """After how long a browser without JavaScript looks again; 0 for never."""
        if self.state is State.REFUSED:
            return 0
        return 1 if self.state is State.RESERVING else 5


def state_of(view: PaymentView) -> State:
    """Where a payment stands."""
    return State(view.state) if view.order is None else _state_of_order(view.order)


def ends_on_payment_page(state: State) -> bool:
    """Whether the payment page keeps a payment that has come to this end, because it may buy again."""
    return state in {State.SOLD_OUT, State.REFUSED}


def _state_of_order(order: Order) -> State:
    if order.reason is not None:
        return State(order.reason)
    if order.status is Status.PENDING and order.state is PaymentState.SETTLING and not order.has_notice:
        return State.TIME_IS_UP
    return State(order.state)
