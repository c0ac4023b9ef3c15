"""Trust in the stand-in: explored schedules, walked by real processes under DBOS, end in the same tables."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any

import pytest

from store.explore.scenarios import Action, Scenario
from store.explore.shop import OPTIONAL, ExploredShop, State
from store.vocabulary import Outcome
from tests.support.shop import Shop
from tests.support.shopper import eventually, key

_POINTS = {
    "after commit of reserve": "“reserve” commits",
    "after commit of the checkpoint of reserve": "“reserve” is checkpointed",
    "after commit of the checkpoint of DBOS.setEvent": "announces “held”",
    "after commit of the checkpoint of DBOS.sleep": "notes its deadline",
    "after commit of the checkpoint of DBOS.recv": "waits no longer",
    "after commit of the checkpoint of settle": "“settle” is checkpointed",
    "after commit of the event that it is settled": "announces “settled”",
}
"""Where the real server kills itself, and what the explored one has done last when it dies."""
_TABLES = {
    "orders": "SELECT status, reason, progress FROM orders",
    "stock": "SELECT on_hand FROM products",
    "movements": "SELECT kind, units FROM stock_movements ORDER BY kind, units",
    "payments": "SELECT kind, amount_cents FROM payments ORDER BY kind",
    "notices": "SELECT outcome FROM payment_notices ORDER BY received_at_ms",
}
Tables = dict[str, list[tuple[Any, ...]]]


def explored(outcome: Outcome, last_words: str) -> Tables:
    """What the schedule with a death after these words ends in."""
    actions = Action("buy", "A", client="A"), Action("notice", "A", outcome)
    shop = ExploredShop(Scenario("replayed", actions, crashes=1))
    with shop.open():
        state, has_died = shop.first_state(), False
        while move := _next(shop, state):
            candidate, made = move
            state = made.state
            if not has_died and last_words in made.says and candidate[0] == "run":
                has_died = True
                crashed = shop.make(state, ("crash",))
                assert crashed is not None
                state = crashed.state
        assert has_died
        shop.store.load(state.store)
        shop.store.bring_back()
        with shop.store.engine.connect() as connection:
            return {
                name: [tuple(row) for row in connection.exec_driver_sql(select)]
                for name, select in _TABLES.items()
            }


def _next(shop: ExploredShop, state: State) -> Any:
    """What the shop does by itself; or else the next click or notice; time passes last, so never."""
    candidates = list(shop.candidates(state, state.open()))
    by_itself = [each for each in candidates if each[0] not in OPTIONAL | {"time"}]
    asked = [each for each in candidates if each[0] == "act"]
    for candidate in (*by_itself, *asked):
        move = shop.make(state, candidate)
        if move is not None:
            return candidate, move
    return None


@pytest.mark.sampled(3)
@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("point", _POINTS)
def test_a_real_server_killed_there_ends_in_the_same_tables(
    open_shop: Callable[..., Shop], point: str, outcome: Outcome
) -> None:
    """Orders, stock, movements, payments and notices."""
    shop = open_shop(units=1)
    shop.server.kill()
    shop.server.restart(script=("-m", "tests.crash.mortal", point))
    payment_id, is_killed = key(), False
    for path, form in (("/buy", {"key": payment_id}), (f"/pay/{payment_id}", {"outcome": outcome})):
        try:
            shop.shopper.submit(path, **form)
        except (OSError, http.client.HTTPException):
            is_killed = True
            assert shop.server.wait_for_death() == -9
            shop.server.restart()
            shop.shopper.submit(path, **form)
    if not is_killed:
        assert shop.server.wait_for_death() == -9
        shop.server.restart()
    eventually(
        lambda: shop.checkpoints.rows("SELECT status FROM workflow_status"),
        lambda rows: bool(rows) and {row.status for row in rows} == {"SUCCESS"},
    )
    assert f"dying {point}\n" in shop.server.output
    found = {name: [tuple(row) for row in shop.tables.rows(select)] for name, select in _TABLES.items()}
    assert found == explored(outcome, _POINTS[point])
