"""What the shoppers of a storm were shown, and what a restored copy may make untrue of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from store.stage.storm_state import Request, RequestOutcome
from store.vocabulary import GreetingOutcome, Reason, Status

_ENDED = {Status.DISPATCHED, *Reason}


@dataclass
class Purchase:
    """One click on Buy Now, and all that its shopper was shown of it."""

    key: str
    sent_at: float = field(default_factory=time.monotonic)
    """When Buy Now was first sent, at the latest; on the monotonic clock."""
    number: int | None = None
    seen: list[Status | Reason] = field(default_factory=list)
    """What its page said, in order: a status, or for a cancelled order the reason; without repeats."""
    seen_at: list[float] = field(default_factory=list)
    """When each of these was seen first."""
    known_at: float | None = None
    """When a page first showed that the order is there."""
    may_end_as: frozenset[Status | Reason] = frozenset(_ENDED)
    """What can become of it, given what the shopper did."""
    is_taken: bool = False
    """Whether any Buy Now was answered with a payment page. One on an empty shelf makes no order."""
    is_younger_than_a_copy: bool = False
    """Whether an older copy was restored, of either database, before which nobody had seen the order."""
    may_be_gone: bool = False
    """Whether an older copy of the checkpoints was restored while all that there was of it was a click."""

    def show(self, number: int) -> None:
        """A page with this number was shown, so the order is there, whatever copy is restored from now on."""
        self.may_be_gone = False
        self.number = number
        if self.known_at is None:
            self.known_at = time.monotonic()

    def see(self, shown: Status | Reason) -> None:
        """A page with this status, another than before, was shown."""
        self.seen.append(shown)
        self.seen_at.append(time.monotonic())

    def seen_before(self, at: float) -> Status | Reason | None:
        """The last status that had been shown then, of what still counts.

        Of two pages that were asked for at the same time, the one that was read later may be the older one.
        """
        since = sum(each >= at for each in self.seen_at)
        earlier = self.seen[: len(self.seen) - since]
        return earlier[-1] if earlier else None

    def restored(self, copied_at: float, *, of_checkpoints: bool) -> bool:
        """A copy of that time was put in place; whether the copy did not have the order.

        What was shown before the copy was taken is in it, and must still be so. What was shown since may
        be of the time that is lost, and is forgotten: an order made since then may get another number.
        """
        is_younger = self.known_at is None or self.known_at >= copied_at
        self.is_younger_than_a_copy = self.is_younger_than_a_copy or is_younger
        if of_checkpoints:  # what a page has shown is in the store
            self.may_be_gone = self.may_be_gone or self.known_at is None
            return False
        while self.seen_at and self.seen_at[-1] >= copied_at:
            self.seen_at.pop()
            self.seen.pop()
        if not is_younger or self.number is None:
            return False
        self.number = self.known_at = None
        return True


@dataclass
class Visit:
    """One greeting that was asked for."""

    key: str
    name: str
    outcome: GreetingOutcome | None = None


class Notes:
    """What all shoppers write down together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.purchases: list[Purchase] = []
        self.visits: list[Visit] = []
        self.complaints: list[str] = []
        self.log: list[Request] = []
        """Every request, as it was answered or given up."""
        self.unanswered = 0
        """Requests that died with the server, or were told to come back, and were sent again."""
        self.refused = 0
        """Connections that nobody took."""
        self.longest_pause_seconds = 0.0
        self.pauses: list[float] = []
        """How long each request took that had to be sent again, in seconds."""
        self.longest_dark_seconds = 0.0
        """The longest time in which nobody at all was answered."""
        self._began_at = self._answered_at = time.monotonic()
        self.younger_than_a_copy = 0
        """Orders that were made after a copy of the store was taken that was then restored."""

    def begin(self, key: str) -> Purchase:
        """A new purchase."""
        purchase = Purchase(key)
        with self._lock:
            self.purchases.append(purchase)
        return purchase

    def visit(self, key: str, name: str) -> Visit:
        """A new greeting."""
        visit = Visit(key, name)
        with self._lock:
            self.visits.append(visit)
        return visit

    def restored(self, copied_at: float, *, of_checkpoints: bool) -> None:
        """An older copy was put in place, and no server has run on it yet."""
        with self._lock:
            for purchase in self.purchases:
                self.younger_than_a_copy += purchase.restored(copied_at, of_checkpoints=of_checkpoints)

    def complain(self, sentence: str) -> None:
        """Something that no shopper should see."""
        with self._lock:
            self.complaints.append(sentence)

    @property
    def answered_at(self) -> float:
        """When somebody was answered last, on the monotonic clock."""
        return self._answered_at

    def answered(self) -> None:
        """Somebody was, now, with something else than that they should come back."""
        with self._lock:
            now = time.monotonic()
            self.longest_dark_seconds = max(self.longest_dark_seconds, now - self._answered_at)
            self._answered_at = now

    @property
    def requests(self) -> int:
        """How many there were."""
        return len(self.log)

    def count(self, *, waited_seconds: float, unanswered: int, refused: int, is_given_up: bool) -> None:
        """One request, answered in the end or given up."""
        at_seconds = time.monotonic() - waited_seconds - self._began_at
        outcome = RequestOutcome.SENT_AGAIN if unanswered else RequestOutcome.ANSWERED
        if refused or is_given_up:
            outcome = RequestOutcome.UNANSWERED if is_given_up else RequestOutcome.REFUSED
        with self._lock:
            self.log.append(Request(round(1000 * at_seconds), round(1000 * waited_seconds), outcome))
            self.unanswered += unanswered
            self.refused += refused
            self.longest_pause_seconds = max(self.longest_pause_seconds, waited_seconds)
            if unanswered:
                self.pauses.append(waited_seconds)
