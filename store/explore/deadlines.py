"""When the next thing is due in an explored shop, whose clock stands still until then."""

from __future__ import annotations

import json

from store.explore.database import Rows
from store.explore.world import World
from store.vocabulary import Status

_WAITS = {"the deadline of the wait", "sleep"}
# Columns of `schema.sql`.
PAYMENT_ID, ORDER_ID, STATUS, REASON, PROGRESS, CREATED_AT, PAY_BY, EXTENDED_AT = 0, 1, 4, 5, 6, 7, 8, 10
GIVE_UP_AT, OUTCOME = 4, 5


def next_after_now(rows: Rows, world: World) -> int | None:
    """The earliest time, in ms since 1970, that somebody waits for; None if nobody waits for any."""
    due = [order[PAY_BY] for order in rows["orders"] if order[STATUS] == Status.PENDING]
    due += [request[GIVE_UP_AT] for request in rows["greeting_requests"] if request[OUTCOME] is None]
    for workflow in world.workflows.values():
        if workflow.status == "PENDING" and workflow.steps and workflow.steps[-1][0] in _WAITS:
            due.append(json.loads(workflow.steps[-1][1])["wake_ms"])
    return min((at_ms for at_ms in due if at_ms > world.now_ms), default=None)
