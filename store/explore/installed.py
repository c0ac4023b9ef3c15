"""Puts the stand-in where the workflows, the commands and the ledger look for DBOS, the clock and others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar, cast

from dbos import SQLAlchemyDatasource

from store import commands, terms_of_sale, workflows
from store.durable import step_decorators
from store.explore.runtime import Runtime
from store.explore.scenarios import Scenario
from store.ledger import account_rules, ledger

T = TypeVar("T")

TICK_MS = 1_000
_PAYMENT_WINDOW_MS = 120_000
_GREETING_WINDOW_MS = TICK_MS
"""So short that two tries are all: a greeting that asks in vain both times gives up."""


@contextmanager
def installed(runtime: Runtime, scenario: Scenario) -> Iterator[None]:
    """Have the real functions run on the stand-in until the end of this block. One at a time in a process."""

    def now_ms() -> int:
        return runtime.world.now_ms

    def call(work: Callable[[], T]) -> T:
        return work()

    clock = SimpleNamespace(sleep=lambda _seconds: None, time_ns=time.time_ns)
    names: list[tuple[ModuleType, str, Any]] = [
        (workflows, "DBOS", runtime),
        (workflows, "SetWorkflowID", runtime.set_workflow_id),
        (workflows, "now_ms", now_ms),
        (workflows, "time", clock),
        (workflows, "guestbook", runtime.book),
        (workflows, "SHELF_SIZE", scenario.units),
        (step_decorators, "DBOS", runtime),
        (commands, "DBOS", runtime),
        (commands, "SetWorkflowID", runtime.set_workflow_id),
        (commands, "call_with_deadline", call),
        (commands, "new_key", lambda: runtime.key_of_restock),
        (account_rules, "SHELF_SIZE", scenario.units),
        (ledger, "now_ms", now_ms),
    ]
    step_decorators.bind(cast(SQLAlchemyDatasource, runtime))
    terms_of_sale.terms.set(
        terms_of_sale.Terms(
            payment_window_ms=_PAYMENT_WINDOW_MS,
            tick_ms=TICK_MS,
            unpaid_per_client=scenario.unpaid_per_client,
            greeting_window_ms=_GREETING_WINDOW_MS,
        )
    )
    with ExitStack() as stack:
        for module, name, value in names:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        yield
