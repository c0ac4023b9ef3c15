"""The shoppers of a storm: what they do."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable

from store.storm.browser import BREATHING, Browser
from store.storm.notes import Notes, Purchase, Visit
from store.storm.servers import Addresses
from store.vocabulary import TRANSITIONS, GreetingOutcome, Outcome, Reason, Status

_GREETING_ENDS = {
    GreetingOutcome.GREETED: "Thank you for being awesome",
    GreetingOutcome.REFUSED: "The guestbook refused your name",
    GreetingOutcome.GIVEN_UP: "The guestbook did not answer in time",
}
"""How the heading of a greeting's page begins once it has ended."""
_GREETING_CHANCE = 0.2
"""Of somebody who is told of the guestbook, to sign it instead of buying."""
_SHOWN = frozenset({200, 0, *BREATHING})
"""What the page of a store answers that is there, or that a death keeps from answering."""
_NUMBER = re.compile(r"Order No\. (\d+)")


class Shopper(Browser):
    """A shopper. Two with the same seed make the same choices."""

    def __init__(
        self, where: str | Addresses, seed: str, notes: Notes, window_seconds: float, *, greets: bool = False
    ) -> None:
        super().__init__(where, notes)
        self._chance = random.Random(seed)  # noqa: S311 - it keeps no secret
        self._window_seconds = window_seconds
        self._greets = greets

    def shop_and_tell(self, is_over: Callable[[], bool]) -> None:
        """`shop_until`, with whatever goes wrong with the shopper itself among the complaints."""
        try:
            self.shop_until(is_over)
        except Exception as error:  # noqa: BLE001 - a storm must not pass because its shoppers died
            self._notes.complain(f"a shopper could not go on: {error!r}")

    def shop_until(self, is_over: Callable[[], bool]) -> None:
        """Buy one widget after another, each in its own way."""
        ways = self.ways()
        self._pause()  # they do not all come through the door at once
        while not is_over():
            if self._greets and self._chance.random() < _GREETING_CHANCE:
                self.greet()
                self._pause()
                continue
            way = self._chance.choices(list(ways), list(ways.values()))[0]
            page = self.get("/")
            if page.status not in _SHOWN:
                self._notes.complain(f"the page of the store answered {page.status}")
            key = re.search(r'name="key" value="([^"]+)"', page.text)
            if key is not None:  # otherwise the shelf is empty
                way(self._begin(key[1]))
            self._pause()

    def ways(self) -> dict[Callable[[Purchase], None], int]:
        """What may be done with a Buy Now, each with how often it is, of 100 times."""
        return {
            self.confirm: 40,
            self.decline: 12,
            self.double_click: 14,
            self._walk_away: 12,
            self._come_back_late: 8,
            self.reload: 14,
        }

    def _begin(self, key: str) -> Purchase:
        return self._notes.begin(key)

    def look(self, purchase: Purchase) -> Status | Reason | None:
        """Open the order's page, and hold it against what it said before."""
        asked_at = time.monotonic()
        page = self.get(f"/orders/{purchase.key}")
        number = _NUMBER.search(page.text)
        ending = re.search(r'data-ending="(\w+)"', page.text)
        if number is None or ending is None:
            if page.status == 404 and (not purchase.is_taken or purchase.is_younger_than_a_copy):
                return None  # the shelf was empty, or the order is still to be made again
            if page.status != 200 or not page.path.startswith("/pay/"):  # where it is still being reserved
                self._notes.complain(f"the page of an order answered {page.status} and did not show it")
            return None
        if purchase.number not in {None, int(number[1])}:
            self._notes.complain(f"order No. {purchase.number} was later shown as No. {number[1]}")
        purchase.show(int(number[1]))
        shown = Status(ending[1]) if ending[1] in set(Status) else Reason(ending[1])
        before = purchase.seen_before(asked_at)
        if before is not None and before is not shown and not _may_follow(before, shown):
            self._notes.complain(f"order No. {number[1]} was shown as {before}, and later as {shown}")
        if not purchase.seen or purchase.seen[-1] is not shown:
            purchase.see(shown)
        return shown

    def greet(self) -> None:
        """Sign the guestbook, and look how far it has come."""
        visit = self.sign()
        self._pause()
        self.look_at_greeting(visit)

    def sign(self) -> Visit:
        """Ask for a greeting."""
        key = f"{self._chance.getrandbits(96):024x}"
        visit = self._notes.visit(key, f"Visitor {key[:8]}")
        answer = self.post("/guestbook", key=key, name=visit.name)
        # An older copy of the store may have been restored before the answer's page was fetched.
        if answer.status not in {200, 404}:
            self._notes.complain(f"the guestbook answered {answer.status}")
        return visit

    def look_at_greeting(self, visit: Visit) -> str:
        """Open the greeting's page, and note how it ended if it has; the heading."""
        page = self.get(f"/greetings/{visit.key}")
        heading = re.search(r"<h1[^>]*>(.*?)</h1>", page.text, re.DOTALL)
        shown = heading[1].strip() if heading else ""
        visit.outcome = next((end for end, words in _GREETING_ENDS.items() if shown.startswith(words)), None)
        return shown

    # --- the ways to buy ----------------------------------------------------------------

    def confirm(self, purchase: Purchase) -> None:
        """Buy and pay."""
        if self._buy(purchase):
            self._pause()
            self._settle(purchase, Outcome.PAID)

    def decline(self, purchase: Purchase) -> None:
        """Buy, and have the payment fail."""
        if self._buy(purchase):
            self._pause()
            self._settle(purchase, Outcome.FAILED)

    def double_click(self, purchase: Purchase) -> None:
        """Buy and pay, each with two clicks at once."""
        self._both_at_once(lambda: self._buy(purchase))
        if purchase.is_taken:
            self._both_at_once(lambda: self._settle(purchase, Outcome.PAID))

    def _walk_away(self, purchase: Purchase) -> None:
        if self._buy(purchase):
            purchase.may_end_as = frozenset({Reason.EXPIRED, Reason.SOLD_OUT})

    def _come_back_late(self, purchase: Purchase) -> None:
        if not self._buy(purchase):
            return
        time.sleep(self._window_seconds + 0.2)  # being late is what this shopper is about
        # If the shop was dead at the deadline, it may find the payment before it looks at the
        # clock. Then the payment counts: the shopper paid, and gets a widget.
        purchase.may_end_as = frozenset({Status.DISPATCHED, Reason.EXPIRED, Reason.SOLD_OUT})
        self._send(purchase, Outcome.PAID)
        self.look(purchase)

    def reload(self, purchase: Purchase) -> None:
        """Buy, load the payment page again, pay twice, and look on for a while."""
        if not self._buy(purchase):
            return
        self.get(f"/pay/{purchase.key}")
        self._send(purchase, Outcome.PAID)
        self._settle(purchase, Outcome.PAID)
        for _ in range(5):
            self.look(purchase)
            self._pause()

    # --- what a click does ----------------------------------------------------------------

    def _buy(self, purchase: Purchase) -> bool:
        """Click Buy Now, on an empty shelf once more with the same key; whether there is a payment page."""
        for _ in range(2):
            answer = self.post("/buy", key=purchase.key)
            if answer.status == 404 and purchase.is_younger_than_a_copy:
                continue  # the click was lost before anybody saw an order of it: click again
            if answer.status != 200:
                self._notes.complain(f"Buy Now answered {answer.status}")
            if not answer.status:  # given up: nobody was promised an order, and there may be one all the same
                purchase.may_end_as = frozenset({Reason.EXPIRED, Reason.SOLD_OUT})
                return False
            if not answer.path.startswith("/?"):
                purchase.is_taken = True
                if number := _NUMBER.search(answer.text):
                    purchase.show(int(number[1]))
                return True
            # A click that died with its server may have made an order all the same.
            purchase.may_end_as = frozenset({Reason.EXPIRED, Reason.SOLD_OUT})
            self._pause()
        return False

    def _settle(self, purchase: Purchase, outcome: Outcome) -> None:
        wanted = Status.DISPATCHED if outcome is Outcome.PAID else Reason.DECLINED
        purchase.may_end_as = frozenset({wanted, Reason.EXPIRED, Reason.SOLD_OUT})
        self._send(purchase, outcome)
        # The window opened after Buy Now was sent. What was answered within it was in time,
        # whatever crashes now.
        if time.monotonic() < purchase.sent_at + self._window_seconds:
            purchase.may_end_as = frozenset({wanted, Reason.SOLD_OUT})
        self.look(purchase)

    def _send(self, purchase: Purchase, outcome: Outcome) -> None:
        answer = self.post(f"/pay/{purchase.key}", outcome=outcome)
        if answer.status != 200 and not (answer.status == 404 and purchase.is_younger_than_a_copy):
            self._notes.complain(f"{outcome.value} answered {answer.status}")

    def _both_at_once(self, click: Callable[[], object]) -> None:
        second = threading.Thread(target=click, daemon=True)
        second.start()
        click()
        second.join()

    def _pause(self) -> None:
        time.sleep(self._chance.uniform(0.2, 1.8))  # people look at what they see


def _may_follow(before: Status | Reason, after: Status | Reason) -> bool:
    """Whether an order shown as `before` may later be shown as `after`, with steps in between or not."""
    following = TRANSITIONS[before] if isinstance(before, Status) else frozenset()
    now = after if isinstance(after, Status) else Status.CANCELLED
    return now in following or any(_may_follow(step, after) for step in following)
