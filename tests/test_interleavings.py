"""Whatever shoppers, banks, deadlines and crashes do in whatever order, the books stay right.

Hypothesis makes up the sequences and, where one fails, finds the shortest that still does. All run
against one shop with a parent, whose orders, books and crashes add up from sequence to sequence.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from store.settings import is_sqlite
from store.vocabulary import Outcome
from tests.conftest import NewUrl, Often
from tests.support.shop import SupervisedShop
from tests.support.shopper import Answer, eventually, key

_log = logging.getLogger(__name__)
_WINDOW_SECONDS = 0.4
_UNITS = 12
"""On the shelf at first: few enough that some sequences find it empty."""
_SEQUENCES = {"sqlite": (30, 500), "postgres": (12, 100)}
"""In `make test`, and in `make torture`."""
_STEPS = 8
_CRASHES_OF_EIGHT = 1
_OUTCOMES = st.sampled_from(list(Outcome))


@dataclass
class Told:
    """What the shop has been told of one order, and has answered for."""

    payment_id: str
    outcomes: set[Outcome] = field(default_factory=set)

    @property
    def may_end_as(self) -> set[tuple[str, tuple[str, ...]]]:
        """The endings that are honest, each with what the books must have of its money."""
        if not self.outcomes:
            return {("expired", ()), ("sold_out", ())}
        if self.outcomes == {Outcome.FAILED}:
            return {("declined", ()), ("expired", ()), ("sold_out", ())}
        given_back = ("charge", "refund")
        endings = {("dispatched", ("charge",)), ("expired", given_back), ("sold_out", given_back)}
        if Outcome.FAILED in self.outcomes:
            endings.add(("declined", given_back))
        return endings


class Interleavings(RuleBasedStateMachine):
    """One sequence. Every request is repeated until it is answered, as a page and a bank do."""

    shop: SupervisedShop
    everything: dict[str, Told]
    """Of all sequences."""
    sequences: list[int]
    """How many orders there had been at the end of each."""

    orders: Bundle[Told] = Bundle("orders")

    @rule(target=orders)
    def buy(self) -> Told:
        """A click on Buy Now."""
        return self._buy()

    @rule(target=orders, outcome=_OUTCOMES)
    def buy_and_be_heard_of_at_once(self, outcome: Outcome) -> Told:
        """A shopper who does not wait: the window is still open, however slow the machine is."""
        told = self._buy()
        self.announce(told, outcome)
        return told

    @rule(told=orders)
    def buy_again(self, told: Told) -> None:
        """The same click, from a page that was kept open."""
        assert self._ask("POST", "/buy", f"key={told.payment_id}").status == 303

    @rule(told=orders, outcome=_OUTCOMES)
    def press(self, told: Told, outcome: Outcome) -> None:
        """Confirm or Cancel, in time or late."""
        assert self._ask("POST", f"/pay/{told.payment_id}", f"outcome={outcome}").status == 303
        told.outcomes.add(outcome)

    @rule(told=orders, outcome=_OUTCOMES)
    def announce(self, told: Told, outcome: Outcome) -> None:
        """The bank's word."""
        assert self._ask("POST", f"/payment_webhook/{told.payment_id}/{outcome}").status == 200
        told.outcomes.add(outcome)

    @rule(told=orders, outcomes=st.lists(_OUTCOMES, min_size=2, max_size=3))
    def announce_at_once(self, told: Told, outcomes: list[Outcome]) -> None:
        """Words that race each other."""
        with ThreadPoolExecutor(len(outcomes)) as pool:
            answers = pool.map(
                lambda outcome: self._ask("POST", f"/payment_webhook/{told.payment_id}/{outcome}"), outcomes
            )
            assert {answer.status for answer in answers} == {200}
        told.outcomes |= set(outcomes)

    @rule(told=orders)
    def wait_out_the_window(self, told: Told) -> None:
        """Until the order is no longer waiting for its payment."""
        eventually(lambda: self._status_of(told), lambda status: status not in {None, "pending"})

    @rule(told=orders, when=st.sampled_from(["before", "after"]))
    def pay_at_the_last_moment(self, told: Told, when: str) -> None:
        """A payment as near to the deadline as one can be."""
        if when == "after":
            self.wait_out_the_window(told)
        else:
            eventually(
                lambda: self.shop.tables.rows(
                    "SELECT pay_by_ms FROM orders WHERE payment_id = :id", id=told.payment_id
                ),
                bool,
            )
        self.announce(told, Outcome.PAID)

    @rule(chance=st.integers(1, 8))
    def crash(self, chance: int) -> None:
        """The server is killed, once in a while."""
        if chance <= _CRASHES_OF_EIGHT:
            self._kill()

    @rule(told=orders, chance=st.integers(1, 8))
    def crash_over_a_payment(self, told: Told, chance: int) -> None:
        """The server is killed while the bank's word is on its way."""
        if chance <= _CRASHES_OF_EIGHT:
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(self._ask, "POST", f"/payment_webhook/{told.payment_id}/paid")
                self._kill()
                assert answer.result().status == 200
            told.outcomes.add(Outcome.PAID)

    @rule()
    def restock(self) -> None:
        """Fill the shelf."""
        assert self._ask("POST", "/restock").status in {200, 303}

    def teardown(self) -> None:
        """What holds at any moment holds now."""
        self.sequences.append(len(self.everything))
        answer = self._ask("GET", "/ledger.json")
        # It opened with as few units as is good for this test. The books say so, and add up all the same.
        assert [fault["subject"] for fault in answer.json["faults"]] == ["the opening stock"], answer.text
        first, *others = answer.json["lines"]
        figures = first["figures"]
        assert figures["stocked"] == figures["on_the_shelf"] + figures["held"] + figures["sold"], answer.text
        assert all(line["ok"] for line in others), answer.text

    def _buy(self) -> Told:
        told = Told(key())
        self.everything[told.payment_id] = told
        assert self._ask("POST", "/buy", f"key={told.payment_id}").status == 303
        return told

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it is dead already, and the next one not yet up
            os.kill(self.shop.server_pid, signal.SIGKILL)

    def _status_of(self, told: Told) -> str | None:
        rows = self.shop.tables.rows("SELECT status FROM orders WHERE payment_id = :id", id=told.payment_id)
        return rows[0].status if rows else None

    def _ask(self, method: str, path: str, form: str | None = None) -> Answer:
        headers = {"Accept": "*/*", "Content-Type": "application/x-www-form-urlencoded"}

        def once() -> Answer | None:
            try:
                return self.shop.shopper.request(method, path, form, headers)
            except (OSError, http.client.HTTPException):
                return None

        answered = eventually(once, lambda answer: answer is not None and answer.status not in {503, 504})
        assert answered is not None
        return answered


@pytest.fixture
def stormy(new_url: NewUrl) -> Iterator[SupervisedShop]:
    """A shop with a parent, a short payment window, and few units."""
    shop = SupervisedShop(
        new_url(), STORE_PAYMENT_WINDOW_SECONDS=_WINDOW_SECONDS, STORE_DISPATCH_TICK_SECONDS=0
    )
    shop.tables.stock(_UNITS)
    yield shop
    shop.parent.close()


@pytest.mark.timeout(1200)  # there are many
def test_any_sequence_leaves_the_books_right(stormy: SupervisedShop, often: Often) -> None:
    """Each order ends in one of the ways that are honest, with its money, and every invariant holds."""
    count = often(*_SEQUENCES["sqlite" if is_sqlite(stormy.parent.database_url) else "postgres"])

    class OfThisShop(Interleavings):
        shop = stormy
        everything: dict[str, Told] = {}  # noqa: RUF012 - shared by all sequences, on purpose
        sequences: list[int] = []  # noqa: RUF012 - likewise

    run_state_machine_as_test(
        OfThisShop,
        settings=settings(
            max_examples=count,
            stateful_step_count=_STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    eventually(
        lambda: stormy.tables.rows("SELECT 1 FROM orders WHERE status IN ('pending', 'paid')"),
        lambda live: not live,
    )
    ended = stormy.tables.orders()
    assert set(ended) == set(OfThisShop.everything)
    assert len(OfThisShop.sequences) >= count
    assert {*ended.values()} >= {"dispatched", "declined", "expired"}
    for payment_id, told in OfThisShop.everything.items():
        money = tuple(
            row.kind
            for row in stormy.tables.rows(
                "SELECT kind FROM payments WHERE payment_id = :id ORDER BY kind", id=payment_id
            )
        )
        assert (ended[payment_id], money) in told.may_end_as, told
    assert not stormy.tables.faults()
    assert stormy.deaths
    endings = dict(Counter(ended.values()))
    crashes = len(stormy.deaths)
    _log.info("%d sequences, %d crashes, orders: %s", len(OfThisShop.sequences), crashes, endings)
