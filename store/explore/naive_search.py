"""The naive twin under the same search: the shortest ways in which it loses money, units and greetings.

Each `write` of it is one transaction, and what it does next is known to its process alone. What is lost is
what the real ledger counts as the naive lane's damage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, cast

from dbos import SQLAlchemyDatasource

from store.durable import executors_table, step_decorators
from store.durable.executors_table import Identity
from store.explore.database import MemoryStore, Saved
from store.explore.guestbook import Book
from store.explore.turns import Paused
from store.explore.witnesses import ExploredWitnesses
from store.explore.world import World
from store.ledger.ledger import LedgerReader
from store.money import price
from store.stage import naive
from store.stage.shortest_losses import CHARGED, Loss

_TABLES = ("naive_runs", "naive_orders", "naive_payments", "naive_greetings", "executors", "products")
_NOW_MS = 1_800_000_000_000
_WORDS = {
    "naive_runs": "Buy Now is clicked",
    "naive_orders": "the order is written down",
    "naive_payments": f"{price(naive.PRICE_CENTS)} are taken",
    "naive_greetings": "the greeting is written down here",
}
"""What a statement on each table is, for people."""
_LOSSES = {
    CHARGED: f"lose {price(naive.PRICE_CENTS)}",
    "units_held_for_ever": "hold a unit for ever",
    "greetings_never_written_down": "lose a greeting",
}
_SOLD_TWICE = "sell one unit twice"
_CLICKED = {"greetings_never_written_down": "Sign both books is clicked"}
"""A run of the twin is a sale and a greeting; this is what whoever greets has clicked."""


@dataclass(frozen=True)
class _State:
    saved: Saved
    executor: int
    threads: tuple[tuple[str, str, int], ...]
    """What the process is at: which function, for whom, and how many writes it has made."""
    waiting: tuple[str, ...]
    """Shoppers who have not clicked."""
    is_dead: bool
    signed: int


def _as_told(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
    clicked = _CLICKED.get(name, _WORDS["naive_runs"])
    return tuple(step.replace(_WORDS["naive_runs"], clicked) for step in path)


def find_losses() -> list[Loss]:
    """Every kind of loss that the naive twin can come to with two shoppers and one death."""
    return list(_Search().losses())


class _Search:
    def __init__(self) -> None:
        self._said = ""
        self._writes_left = 0
        self._book = Book()
        self._clicks = 0
        self._store = MemoryStore(1, _TABLES)
        self._write = naive.write

    def losses(self) -> Iterator[Loss]:
        with self._installed():
            self._start_server(1)
            first = _State(self._store.save(), 1, (), ("A", "B"), is_dead=False, signed=0)
            known = {first}
            waiting: deque[tuple[_State, tuple[str, ...]]] = deque([(first, ())])
            missing = {*_LOSSES, "sold_twice"}
            while waiting and missing:
                state, steps = waiting.popleft()
                for step, following in self._moves(state):
                    if following in known:
                        continue
                    known.add(following)
                    path = (*steps, step)
                    for name in sorted(missing & self._lost(following)):
                        missing.discard(name)
                        yield Loss(name, _LOSSES.get(name, _SOLD_TWICE), _as_told(name, path))
                    waiting.append((following, path))
        self._store.close()

    def _moves(self, state: _State) -> Iterator[tuple[str, _State]]:
        if state.is_dead:
            return
        for key in state.waiting:
            self._store.load(state.saved)
            self._clicks, self._writes_left = 2 - len(state.waiting), 1
            visitor = naive.begin(key, state.executor)
            threads = (*state.threads, ("checkout", key, 0), ("greet", str(visitor), 0))
            others = tuple(each for each in state.waiting if each != key)
            yield (
                f"{key}: {self._said}",
                _State(
                    self._store.save(), state.executor, threads, others, is_dead=False, signed=state.signed
                ),
            )
        for thread in state.threads:
            yield from self._go_on(state, thread)
        self._store.load(state.saved)
        self._start_server(state.executor + 1)
        yield (
            "The server dies",
            _State(self._store.save(), state.executor + 1, (), (), is_dead=True, signed=state.signed),
        )

    def _go_on(self, state: _State, thread: tuple[str, str, int]) -> Iterator[tuple[str, _State]]:
        name, whose, done = thread
        function: Callable[[str], object] = {"checkout": naive.checkout, "greet": naive.greet}[name]
        self._store.load(state.saved)
        self._skip, self._writes_left, self._said = done, 1, ""
        self._book.world.book = {f"unkeyed {number}": number + 1 for number in range(state.signed)}
        is_over = True
        try:
            function(whose)
        except Paused:
            is_over = False
        others = tuple(each for each in state.threads if each != thread)
        threads = others if is_over else (*others, (name, whose, done + 1))
        if self._said:
            yield f"{whose}: {self._said}", _State(
                self._store.save(), state.executor, threads, state.waiting, is_dead=False,
                signed=len(self._book.world.book),
            )  # fmt: skip

    def _one_write(self, statement: str, **values: object) -> list[int]:
        """What `write` does, once: what was written before is skipped, and what comes after not reached."""
        if self._skip:
            self._skip -= 1
            return []
        if not self._writes_left:
            raise Paused
        self._writes_left -= 1
        [table] = [table for table in _WORDS if f"{table} " in statement]
        self._said = _WORDS[table]
        return self._store.run_tx_step({}, lambda: self._write(statement, **values))

    _skip = 0

    def _start_server(self, number: int) -> None:
        executors_table.record_start(Identity("here", number, f"here-{number}", None))

    def _lost(self, state: _State) -> set[str]:
        self._store.load(state.saved)
        self._store.bring_back()
        world = World(_NOW_MS, (), 0, 0, 0, 0, may_forget=False)
        ledger = LedgerReader(self._store.engine, 1.0, ExploredWitnesses(world)).read()
        lost = {name for name, count in ledger.damage.items() if count}
        if len(state.saved.rows["naive_payments"]) > 1:
            lost.add("sold_twice")
        return lost

    @contextmanager
    def _installed(self) -> Iterator[None]:
        self._book.world = World(_NOW_MS, (), 0, 0, 0, 0, may_forget=False)
        names: list[tuple[ModuleType, str, Any]] = [
            (naive, "write", self._one_write),
            (naive, "time", SimpleNamespace(sleep=lambda _seconds: None)),
            (naive, "now_ms", lambda: _NOW_MS),
            (naive, "guestbook", self._book),
            (naive, "secrets", SimpleNamespace(token_hex=lambda _bytes: str(self._clicks))),
            (executors_table, "now_ms", lambda: _NOW_MS),
        ]
        step_decorators.bind(cast(SQLAlchemyDatasource, self._store))
        naive.lane.set(naive.Lane(self._store.engine, "", 0.0))
        with ExitStack() as stack:
            for module, name, value in names:
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, value)
            yield
