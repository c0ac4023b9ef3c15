"""The reset: back to the state in which a shop opens, for the next talk.

Nothing is taken from under a workflow. The presenter's press, or their command, writes down that it is
wanted, and every server that runs ends as in a crash. The next one empties everything before any workflow
runs: the checkpoints first, then the online guestbook, whose owner offers that, and the request with the
store, last of all. One that dies over it is followed by one that begins it again.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import abort, redirect, request, url_for
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as AnyResponse

from store import schema
from store.clients import guestbook
from store.database import Databases
from store.durable import runtime
from store.durable.deadlines import call_with_deadline
from store.durable.statements import execute, now_ms_of_database
from store.durable.step_decorators import now_ms, plain_transaction
from store.settings import Settings
from store.stage import faults, storm_state
from store.stage.across_processes import ANSWER_SECONDS
from store.stage.presenter_bar import presenter
from store.statement_text import text
from store.web.every_request import page

_BATCH = 500
_SILENCE_MS = 1200
"""More than twice the time between two signs of life."""
_LONGEST_SILENCE_SECONDS = 5.0
_SHORT_LOOK_SECONDS = 0.05
_LOCK = 0x52455345
"""Any number, the same in every process."""
_log = logging.getLogger("store")


def carry_out(settings: Settings, databases: Databases) -> None:
    """Begin anew, if that was asked for: before any workflow runs."""
    if not settings.offers_presenter_tools:
        return  # the client that has asked for it was not let in here
    if is_asked():
        with _one_at_a_time(databases):
            if is_asked():
                _wait_for_silence(databases)
                _begin_anew(settings, databases)


@contextmanager
def _one_at_a_time(databases: Databases) -> Iterator[None]:
    """Of several servers that start together, have one carry it out, and the others wait for that."""
    if databases.store.dialect.name == "sqlite":  # this one has the file to itself
        yield
        return
    with databases.store.connect() as connection, connection.begin():
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield


def _wait_for_silence(databases: Databases) -> None:
    """Wait until the other servers have ended, which they do as soon as they see that it is asked for."""
    if databases.store.dialect.name == "sqlite":
        return
    # One that has no tools does not look whether it is asked for: it ends once its row is gone.
    deadline = time.monotonic() + _LONGEST_SILENCE_SECONDS
    while time.monotonic() < deadline:
        with Session(databases.reader) as session:
            living, seen_at_ms = session.execute(
                text("SELECT count(*), max(seen_at_ms) FROM executors WHERE ended_at_ms IS NULL")
            ).one()
            silent_ms = now_ms_of_database(session) - (seen_at_ms or 0)
        if not living or silent_ms > _SILENCE_MS:
            return
        time.sleep(_SHORT_LOOK_SECONDS)


def _begin_anew(settings: Settings, databases: Databases) -> None:
    client = runtime.client_of(settings, databases.system)
    while found := client.list_workflows(limit=_BATCH, load_input=False, load_output=False):
        client.delete_workflows([each.workflow_id for each in found])
    # After the workflows, which would sign again; before the request is gone, or it might never be done.
    kept = _why_guestbook_is_kept(settings)
    _record(kept)
    schema.begin_anew(databases)
    _log.warning("the shop begins anew, as the presenter has asked")
    if kept:
        _log.warning("the online guestbook is as it was: %s", kept)


def _why_guestbook_is_kept(settings: Settings) -> str:
    """Empty the online guestbook; why that could not be done, or nothing. It may take a second, no more."""
    if not settings.guestbook_url:
        return ""
    if why_not := faults.why_no_guestbook(settings):
        return why_not
    try:
        guestbook.begin_anew(settings.guestbook_url)
    except guestbook.Unavailable as trouble:
        return str(trouble)
    return ""


@presenter.get("/stage/reset")
def show_reset() -> str:
    """Ask whether it is meant."""
    return page("reset.html", server=_this_server())


@presenter.post("/stage/reset")
def reset() -> AnyResponse:
    """Write down that the shop is to begin anew, and end this server."""
    if request.form.get("confirm") != "yes":
        abort(400, "A reset forgets every order: confirm it on its page.")
    # Sent again by a browser, to the next server, it is not meant.
    if request.form.get("server") == _this_server():
        call_with_deadline(storm_state.stop)
        call_with_deadline(ask)
        timer = threading.Timer(ANSWER_SECONDS, os._exit, [1])
        timer.daemon = True
        timer.start()
    return redirect(url_for(".stage"), 303)


def _this_server() -> str:
    """What no other server is called, not even one of the same number after a reset."""
    return f"{runtime.executor_number()}-{os.getpid()}"


@plain_transaction
def ask(session: Session) -> None:
    """Have the next server begin anew, and those that run end."""
    # No row changes where it has been asked for.
    execute(
        session,
        "INSERT INTO reset_requests (only_row, asked_at_ms) VALUES (1, :at_ms) ON CONFLICT DO NOTHING",
        at_ms=now_ms(),
    )


@plain_transaction
def is_asked(session: Session) -> bool:
    """Whether it was asked for, and no server has done it yet."""
    return session.execute(text("SELECT 1 FROM reset_requests")).first() is not None


@plain_transaction
def why_guestbook_was_kept(session: Session) -> str:
    """Why the last reset did not empty the online guestbook; empty if it did, or there was none."""
    row = session.execute(text("SELECT guestbook_kept FROM last_reset")).first()
    return row.guestbook_kept if row else ""


@plain_transaction
def _record(session: Session, guestbook_kept: str) -> None:
    execute(
        session,
        "INSERT INTO last_reset (only_row, at_ms, guestbook_kept) VALUES (1, :at_ms, :kept)"
        " ON CONFLICT (only_row) DO UPDATE"
        " SET at_ms = excluded.at_ms, guestbook_kept = excluded.guestbook_kept",
        at_ms=now_ms(),
        kept=guestbook_kept,
    )
