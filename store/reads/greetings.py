"""Reads of the guestbook: the two guestbooks, and how far one greeting has come between them."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from store.clients import guestbook
from store.clients.guestbook import Signature
from store.durable.step_decorators import now_ms
from store.reads import crashes, time_limit, timeline
from store.reads.cached import BackgroundRead, CachedRead
from store.reads.checkpoints import Checkpoints, as_time
from store.reads.timeline import Timeline
from store.statement_text import text
from store.vocabulary import GreetingOutcome, StepName, greeting_id

_LINES = 8
"""Of both guestbooks on their page."""
_SIGNATURES = 100
"""The newest of each that are looked through."""
_STEPS = 20
"""Of a greeting on its page, the newest: a guestbook that is away for long makes many."""
_LAST_STEPS = {StepName.RECORD, StepName.END}
_GREETING = """
SELECT q.name, q.outcome, q.reason, g.signature, g.recorded_at_ms FROM greeting_requests q
LEFT JOIN greetings g ON g.greeting_id = q.greeting_id WHERE q.greeting_id = :id
"""
_NEW_MS = 5_000
"""What was recorded in this time may have been signed after the online one was read."""
_BOOKS_SECONDS = 0.5
"""How old what a poll is shown may be: every watcher in that time is served by one look at each book."""


class GreetingState(StrEnum):
    """Where a greeting stands, as its visitor is told."""

    SIGNING = "signing"
    KEPT_WAITING = "kept_waiting"
    """The online guestbook is in trouble, and asked again."""
    SIGNED = "signed"
    """Over there, and not yet here."""
    GREETED = "greeted"
    GIVEN_UP = "given_up"
    REFUSED = "refused"


@dataclass(frozen=True)
class Greeting:
    """One visitor's greeting, as far as it has come."""

    name: str
    signature: int | None
    """Its number in the online guestbook, once it has signed there."""
    ticks: int
    """How many of the `GREETING_TICKS` between the two guestbooks it has waited."""
    trouble: str
    """Why the online guestbook has not signed, or never will, one sentence."""
    outcome: GreetingOutcome | None
    """How it ended; None while it is under way."""
    timeline: Timeline
    is_remembered: bool
    """Whether its last step, which made the outcome, is among what DBOS remembers, or is known to be lost."""

    @property
    def state(self) -> GreetingState:
        """Where it stands, as its visitor is told."""
        if self.outcome is not None:
            return GreetingState(self.outcome)
        if self.signature:
            return GreetingState.SIGNED
        return GreetingState.KEPT_WAITING if self.trouble else GreetingState.SIGNING

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more: it has ended, and the list of its steps is whole."""
        return self.outcome is not None and self.is_remembered

    @property
    def is_recorded(self) -> bool:
        """Whether it is in our own book too."""
        return self.outcome is GreetingOutcome.GREETED


@dataclass(frozen=True)
class Line:
    """What both guestbooks have under one number; None where one lacks it."""

    number: int
    online: str | None
    ours: str | None


@dataclass(frozen=True)
class Guestbooks:
    """The newest lines of both guestbooks, the newest first."""

    lines: tuple[Line, ...]
    trouble: str
    """Why the online guestbook cannot be shown, one sentence; nothing if it can."""

    @classmethod
    def of(
        cls, online: list[Signature], ours: list[Signature], trouble: str, *, just_recorded: Set[int]
    ) -> Guestbooks:
        """Put side by side what has the same number.

        Of the online one its newest lines are known: a number below those is not shown, and one above them
        that we have `just_recorded` was signed there since they were read.
        """
        # Of two lines with the same number, the newer one comes first.
        here, there = ({each.number: each.name for each in reversed(book)} for book in (ours, online))
        oldest, newest = min(there, default=0), max(there, default=0)
        return cls(
            tuple(
                Line(
                    number,
                    here[number]
                    if number > newest and number in just_recorded and not trouble
                    else there.get(number),
                    here.get(number),
                )
                for number in sorted({*here, *there}, reverse=True)[:_LINES]
                if number >= oldest
            ),
            trouble,
        )


class Greetings:
    """Reads of greetings, and of the guestbooks that they are in."""

    def __init__(self, reader: sa.Engine, checkpoints: Checkpoints, guestbook_url: str) -> None:
        self._reader, self._checkpoints, self._url = reader, checkpoints, guestbook_url
        self._ours = CachedRead(self._read_ours, _BOOKS_SECONDS)
        not_yet: tuple[list[Signature], str] = ([], "The guestbook has not answered yet.")
        self._theirs = BackgroundRead(self._read_theirs, _BOOKS_SECONDS, at_first=not_yet)

    def guestbooks(self, beside: Greeting | None = None) -> Guestbooks:
        """Both guestbooks; beside a greeting that is final, our own as it is since then."""
        if beside is not None and beside.is_final:
            self._ours.forget()
        lines, trouble = self._theirs.get()
        ours, just_recorded = self._ours.get()
        return Guestbooks.of(lines, ours, trouble, just_recorded=just_recorded)

    def theirs(self) -> tuple[list[Signature], str]:
        """The newest lines of the online book, newest first; or none, and why it cannot be asked."""
        return self._theirs.get()

    def signature_of(self, name: str) -> int | None:
        """The number of the newest signature of that name over there, if it is among the newest hundred."""
        lines, _ = self._theirs.get()
        return next((each.number for each in lines if each.name == name), None)

    def find(self, key: str) -> Greeting | None:
        """How far the greeting has come that this key has started; None if it has started none."""
        workflow_id = greeting_id(key)

        rows: list[Any] = time_limit.read(lambda: self._select(_GREETING, id=workflow_id))
        if not rows:
            return None
        row = rows[0]
        steps = self._checkpoints.list_steps(workflow_id)
        last_server = self._checkpoints.runs_on(workflow_id)
        asked = [
            each["output"]
            for each in steps
            if each["function_name"] == StepName.SIGN and isinstance(each["output"], dict)
        ]
        last: Any = asked[-1] if asked else {"signature": 0, "trouble": ""}
        made_at = {} if row.recorded_at_ms is None else {str(StepName.RECORD): as_time(row.recorded_at_ms)}

        def read_story() -> Timeline:
            with self._reader.connect() as connection:
                met = crashes.of_greetings(connection, [workflow_id]).get(workflow_id, ())
                servers = crashes.servers_of_greeting(connection, workflow_id, last_server)
                return timeline.of(
                    steps[-_STEPS:],
                    met,
                    timeline.mendings_of(connection, [workflow_id]),
                    servers,
                    made_at,
                )

        return Greeting(
            name=row.name,
            signature=row.signature or last["signature"] or None,
            ticks=sum(each["function_name"].startswith(StepName.WAIT) for each in steps),
            trouble=row.reason or last["trouble"],
            outcome=GreetingOutcome(row.outcome) if row.outcome else None,
            timeline=time_limit.read(read_story),
            is_remembered=not steps or any(each["function_name"] in _LAST_STEPS for each in steps),
        )

    def _read_ours(self) -> tuple[list[Signature], frozenset[int]]:
        """The newest lines of both lanes, and the numbers of those that are new."""
        ours = self._select(
            "SELECT signature, name, recorded_at_ms FROM greetings"
            " ORDER BY recorded_at_ms DESC, greeting_id LIMIT :limit",
            limit=_SIGNATURES,
        )
        naive = self._select(
            "SELECT signature, name FROM naive_greetings ORDER BY signature DESC LIMIT :limit",
            limit=_SIGNATURES,
        )
        lines = [Signature(row.signature, row.name) for row in (*ours, *naive)]
        new = now_ms() - _NEW_MS
        return lines, frozenset(row.signature for row in ours if row.recorded_at_ms > new)

    def _read_theirs(self) -> tuple[list[Signature], str]:
        try:
            return guestbook.newest(self._url, _SIGNATURES), ""
        except guestbook.Unavailable as trouble:
            return [], str(trouble)

    def _select(self, statement: str, **values: object) -> list[sa.Row[tuple[object, ...]]]:
        with self._reader.connect() as connection:
            return list(connection.execute(text(statement), values))
