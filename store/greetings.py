"""Owns the read side of the guestbook: the two books, and how far one greeting has come between them.

Imports `online`, `patience`, `queries`, `shared` and `vocabulary`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from dbos import DBOS

from store import online
from store.patience import promptly
from store.queries import Checkpoint, checkpoints_of
from store.shared import Shared
from store.vocabulary import GREETING, RECORD_STEP, SIGN_STEP, WAIT_STEP, greeting_id

_LINES = 6
"""Of each book on its page."""
_SIGNATURES = 100
_BOOKS_SECONDS = 0.5
"""How old what a poll is shown may be: every watcher in that time is served by one look at each book."""


@dataclass(frozen=True)
class Greeting:
    """One visitor's greeting, as far as it has come."""

    name: str
    signature: int | None
    """Its number in the online guestbook, once it has signed there."""
    beats: int
    """How many of the `GREETING_BEATS` between the two books it has waited."""
    is_recorded: bool
    """Whether it is in our own book too."""
    trouble: str
    """Why the online guestbook has not signed, one sentence."""
    is_refused: bool
    """Whether it never will."""
    history: list[Checkpoint]

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.is_recorded or self.is_refused


@dataclass(frozen=True)
class Line:
    """One line of either book; they belong together if their numbers are the same."""

    signature: int
    name: str


@dataclass(frozen=True)
class Books:
    """The newest lines of the two books, newest first."""

    online: list[Line]
    ours: list[Line]
    trouble: str
    """Why the online guestbook cannot be shown, one sentence; nothing if it can."""


class Greetings:
    """Reads of greetings, and of the books that they are in."""

    def __init__(self, reader: sa.Engine, guestbook_url: str) -> None:
        self._reader, self._url = reader, guestbook_url
        self._books = Shared(self._read_books, _BOOKS_SECONDS)
        self._signatures = Shared(self._read_signatures, _BOOKS_SECONDS)

    def books(self, beside: Greeting | None = None) -> Books:
        """Both books; beside a greeting that is final, as they are since it is."""
        if beside is not None and beside.is_final:
            self._books.forget()
        return self._books.get()

    def signature_of(self, name: str) -> int | None:
        """The number of the newest signature of that name over there, if it is among the newest hundred."""
        return next((each.number for each in self._signatures.get() if each.name == name), None)

    def find(self, key: str) -> Greeting | None:
        """How far the greeting has come that this key has started; None if it has started none."""
        workflow_id = greeting_id(key)
        workflow = promptly(lambda: DBOS.get_workflow_status(workflow_id))
        if workflow is None or workflow.name != GREETING or workflow.input is None:
            return None
        steps = promptly(lambda: DBOS.list_workflow_steps(workflow_id))
        asked = [each["output"] for each in steps if each["function_name"] == SIGN_STEP and each["output"]]
        last: Any = asked[-1] if asked else {"signature": 0, "trouble": "", "may_pass": True}
        return Greeting(
            name=workflow.input["args"][0],
            signature=last["signature"] or None,
            beats=sum(each["function_name"].startswith(WAIT_STEP) for each in steps),
            is_recorded=any(each["function_name"] == RECORD_STEP for each in steps),
            trouble=last["trouble"],
            is_refused=bool(last["trouble"]) and not last["may_pass"],
            history=checkpoints_of(steps),
        )

    def _read_books(self) -> Books:
        ours = [
            Line(row.signature, row.name)
            for row in self._rows(
                "SELECT signature, name FROM greetings"
                " ORDER BY recorded_at_ms DESC, greeting_id LIMIT :limit",
                limit=_LINES,
            )
        ]
        try:
            theirs = [Line(each.number, each.name) for each in online.newest(self._url, _LINES)]
        except online.Unavailable as trouble:
            return Books([], ours, str(trouble))
        return Books(theirs, ours, "")

    def _read_signatures(self) -> list[online.Signature]:
        try:
            return online.newest(self._url, _SIGNATURES)
        except online.Unavailable:
            return []

    def _rows(self, statement: str, **values: object) -> list[sa.Row[tuple[object, ...]]]:
        with self._reader.connect() as connection:
            return list(connection.execute(sa.text(statement), values))
