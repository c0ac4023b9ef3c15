"""Trust in the stand-in: explored schedules, walked by real processes under DBOS.

Wherever a server is killed, both databases are as the explorer has left them at the same point of one of its
schedules, and so they are in the end: orders, movements, payments, notices, and what DBOS has written down.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from typing import Any

import pytest

from store.explore.scenarios import Action, Scenario
from store.proof.claims import CLAIMS
from store.vocabulary import Outcome, dispatch_id
from tests.conftest import NewUrl
from tests.support.server import MORTAL
from tests.support.shop import Shop
from tests.support.shopper import eventually, key
from tests.support.visited import Left, OrderLeft, Visited, order_as_left, workflow_as_left

_BEGINS = {
    "the start of checkout": "starts the checkout",
    "reserve": "“reserve” commits",
    "the checkpoint of reserve": "“reserve” is checkpointed",
    "the checkpoint of DBOS.setEvent": "announces “held”",
    "the checkpoint of DBOS.sleep": "notes its deadline",
}
_IS_TOLD = {
    "the notice of the payment": "^The bank says",
    "the payment message": "wakes the checkout",
}
_ENDS = {
    "the event that it is settled": "announces “settled”",
    "the end of checkout": "^A's checkout.*: ends",
}
_IS_SETTLED = {"the checkpoint of settle": "“settle” is checkpointed"}
_WAITS_NO_LONGER = {"the checkpoint of DBOS.recv": "waits no longer"}
_TICKS = {
    "tick 1": "“tick 1” commits",
    "the checkpoint of tick 1": "“tick 1” is checkpointed",
    "tick 10": "“tick 10” commits",
    "the checkpoint of tick 10": "“tick 10” is checkpointed",
}
_PAID = {
    **_BEGINS,
    **_IS_TOLD,
    **_WAITS_NO_LONGER,
    "charge": "“settle” commits",
    **_IS_SETTLED,
    "the start of dispatch": "starts the dispatch",
    **_ENDS,
    **_TICKS,
    "the end of dispatch": "^A's dispatch.*: ends",
}
_CANCELLED = {"cancel": "“settle” commits", **_IS_SETTLED, **_ENDS}
_FAILED = {**_BEGINS, **_IS_TOLD, **_WAITS_NO_LONGER, **_CANCELLED}
_EXPIRED = {**_BEGINS, **_WAITS_NO_LONGER, **_CANCELLED}
"""Where the real server kills itself, in the order in which it comes there; what the explored one says."""
_WAYS = {Outcome.PAID: _PAID, Outcome.FAILED: _FAILED, None: _EXPIRED}
_IS_SHOWN = {
    Outcome.PAID: "Dispatched",
    Outcome.FAILED: "Payment cancelled",
    None: "The payment window closed",
}
_SPACING = 3
"""Of all pairs of deaths, one in so many is walked."""
Point = tuple[str, str]


def schedules() -> Iterator[tuple[Outcome | None, tuple[Point, ...]]]:
    """One death before and after each transaction; and two, the second by the server that goes on."""
    for outcome, points in _WAYS.items():
        yield from ((outcome, ((moment, each),)) for each in points for moment in ("before", "after"))
        pairs = [pair for pair in combinations(points, 2) if not _are_at_once(*pair)][::_SPACING]
        yield from ((outcome, (("after", first), ("after", second))) for first, second in pairs)


def _are_at_once(first: str, second: str) -> bool:
    """Whether the second may be over when the first is: a dispatch goes on beside the end of its checkout."""
    return first in {"the start of dispatch", *_ENDS} and (
        second in _TICKS or second == "the end of dispatch"
    )


def name_of(value: object) -> str | None:
    """As the schedules are told apart."""
    if isinstance(value, tuple):
        return ", ".join(f"{moment} {point}" for moment, point in value)
    return str(value or "expired") if value is None or isinstance(value, Outcome) else None


@cache
def visited(outcome: Outcome | None) -> Visited:
    """What the explorer has seen of such an order, with two deaths at most."""
    told = () if outcome is None else (Action("notice", "A", outcome),)
    return Visited(Scenario("replayed", (Action("buy", "A", client="A"), *told), crashes=2))


class Walk:
    """One order of a real shop."""

    def __init__(self, shop: Shop, outcome: Outcome | None) -> None:
        self._shop, self._payment_id, self._outcome = shop, key(), outcome
        self._to_ask = [("/buy", {"key": self._payment_id})]
        if outcome is not None:
            self._to_ask.append((f"/pay/{self._payment_id}", {"outcome": outcome}))

    def until_death(self, point: Point) -> Left:
        """Go on with a server that dies there; what it leaves."""
        server, moment = self._shop.server, " commit of ".join(point)
        server.restart(script=(*MORTAL, moment), expect_to_open=False)
        self._ask_what_is_left()
        assert server.wait_for_death() == -9
        assert f"dying {moment}\n" in server.output
        return self.what_is_left()

    def to_the_end(self) -> Left:
        """Go on until nothing moves any more; what there is then."""
        self._shop.server.restart()
        self._ask_what_is_left()
        assert not self._to_ask
        eventually(
            self.what_is_left,
            lambda found: bool(found.workflows) and {status for status, _ in found.workflows} == {"SUCCESS"},
        )
        # Once more: what was read first may be older than the end of the workflows, which was read last.
        found = self.what_is_left()
        self._shop.shopper.wait_for(self._payment_id, _IS_SHOWN[self._outcome])
        self._shop.server.kill()
        return found

    def _ask_what_is_left(self) -> None:
        server = self._shop.server
        eventually(lambda: server.has_ended or (server.url and self._shop.shopper.is_open()), bool)
        while self._to_ask and not server.has_ended:
            path, form = self._to_ask[0]
            try:
                answer = self._shop.shopper.submit(path, **form)
            except (OSError, http.client.HTTPException):
                return  # and it is asked of the next
            if answer.status == 303:
                self._to_ask.pop(0)
                # A payment that comes before its order is another schedule.
                eventually(lambda: server.has_ended or self._is_waited_for(), bool)
            else:
                assert answer.status == 503, answer  # it has not got to it in time, and is asked again

    def _is_waited_for(self) -> bool:
        """Whether the checkout has noted until when it waits."""
        waits = "SELECT 1 FROM operation_outputs WHERE workflow_uuid = :key AND function_name = 'DBOS.sleep'"
        return bool(self._shop.checkpoints.rows(waits, key=self._payment_id))

    def what_is_left(self) -> Left:
        """Read what both databases have of the order."""
        tables, checkpoints, key = self._shop.tables.rows, self._shop.checkpoints.rows, self._payment_id
        notices = tables(
            "SELECT outcome FROM payment_notices WHERE payment_id = :key ORDER BY received_at_ms", key=key
        )
        order = order_as_left(
            tables("SELECT status, reason, progress FROM orders WHERE payment_id = :key", key=key)
        )
        return Left(
            order,
            _sorted(tables("SELECT kind FROM stock_movements WHERE cause = :key", key=key)),
            _sorted(tables("SELECT kind FROM payments WHERE payment_id = :key", key=key)),
            tuple(outcome for (outcome,) in notices),
            tuple(self._workflows_left(order)),
            _sorted(checkpoints("SELECT key FROM workflow_events WHERE workflow_uuid = :key", key=key)),
            tuple(
                bool(was_received)
                for (was_received,) in checkpoints(
                    "SELECT consumed FROM notifications WHERE destination_uuid = :key", key=key
                )
            ),
        )

    def _workflows_left(self, order: OrderLeft) -> Iterator[tuple[str, tuple[str, ...]]]:
        for workflow_id in (self._payment_id, dispatch_id(self._payment_id)):
            rows = self._shop.checkpoints.rows
            steps = rows(
                "SELECT function_name FROM operation_outputs WHERE workflow_uuid = :id", id=workflow_id
            )
            for (status,) in rows(
                "SELECT status FROM workflow_status WHERE workflow_uuid = :id", id=workflow_id
            ):
                is_dispatch = workflow_id != self._payment_id
                yield workflow_as_left(status, [name for (name,) in steps], order if is_dispatch else None)


def _sorted(rows: list[Any]) -> tuple[str, ...]:
    return tuple(sorted(value for (value,) in rows))


@pytest.fixture(scope="module")
def shop_in_which(new_url: NewUrl) -> Iterator[Callable[[Outcome | None], Shop]]:
    """Two shops of this module, both closed: in that for what expires, nobody has long to pay."""
    shops: dict[bool, Shop] = {}

    def shop_in_which(outcome: Outcome | None) -> Shop:
        is_hasty = outcome is None
        if is_hasty not in shops:
            settings = {"STORE_PAYMENT_WINDOW_SECONDS": 1} if is_hasty else {}
            shops[is_hasty] = Shop(new_url(), STORE_DISPATCH_TICK_SECONDS=0.01, **settings)
            shops[is_hasty].server.start()
            shops[is_hasty].server.kill()
        return shops[is_hasty]

    yield shop_in_which
    for shop in shops.values():
        shop.server.close()


@pytest.mark.quick
def test_as_many_are_walked_as_is_claimed() -> None:
    """To sceptics, who may count."""
    assert any(f"walks {len(list(schedules()))} explored schedules" in claim.is_checked for claim in CLAIMS)


@pytest.mark.first_of_all
@pytest.mark.sampled(6)
@pytest.mark.parametrize(("outcome", "deaths"), list(schedules()), ids=name_of)
def test_a_real_server_leaves_what_the_explored_one_leaves(
    shop_in_which: Callable[[Outcome | None], Shop], outcome: Outcome | None, deaths: tuple[Point, ...]
) -> None:
    """At each death, and in the end."""
    shop = shop_in_which(outcome)
    if not shop.tables.rows("SELECT 1 FROM products WHERE on_hand > 10"):
        shop.tables.refill()
    shop.server.log.clear()
    walk, explored = Walk(shop, outcome), visited(outcome)
    try:
        for moment, transaction in deaths:
            found = walk.until_death((moment, transaction))
            assert found in explored.around(moment, _WAYS[outcome][transaction])
        assert walk.to_the_end() in explored.at_rest()
    finally:
        shop.server.close()  # or a server that has not died takes up what the next test waits for
    assert not shop.tables.faults()
