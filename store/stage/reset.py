"""The reset: back to the state in which a shop opens, for the next talk.

Nothing is taken from under a workflow. The presenter's press writes down that it is wanted, and ends the
server as a crash does; the next server empties everything before any workflow runs, the checkpoints first,
and the request with the store, last of all. One that dies over it is followed by one that begins it again.
"""

from __future__ import annotations

import logging
import os
import threading

import sqlalchemy as sa
from flask import abort, redirect, request, url_for
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as AnyResponse

from store import schema
from store.database import Databases
from store.durable import runtime
from store.durable.deadlines import call_with_deadline
from store.durable.statements import execute
from store.durable.step_decorators import now_ms, plain_transaction
from store.settings import Settings
from store.stage import storm_state
from store.stage.tools import presenter
from store.web.every_request import page

_BATCH = 500
_ANSWER_SECONDS = 0.3
"""For the answer to leave, before the server ends."""
_log = logging.getLogger("store")


def carry_out(settings: Settings, databases: Databases) -> None:
    """Begin anew, if that was asked for: before any workflow runs."""
    if not _is_asked():
        return
    client = runtime.client_of(settings, databases.system)
    while found := client.list_workflows(limit=_BATCH, load_input=False, load_output=False):
        client.delete_workflows([each.workflow_id for each in found])
    schema.begin_anew(databases)
    _log.warning("the shop begins anew, as the presenter has asked")


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
        call_with_deadline(_ask)
        timer = threading.Timer(_ANSWER_SECONDS, os._exit, [1])
        timer.daemon = True
        timer.start()
    return redirect(url_for(".stage"), 303)


def _this_server() -> str:
    """What no other server is called, not even one of the same number after a reset."""
    return f"{runtime.executor_number()}-{os.getpid()}"


@plain_transaction
def _ask(session: Session) -> None:
    # No row changes where it has been asked for.
    execute(
        session,
        "INSERT INTO reset_requests (only_row, asked_at_ms) VALUES (1, :at_ms) ON CONFLICT DO NOTHING",
        at_ms=now_ms(),
    )


@plain_transaction
def _is_asked(session: Session) -> bool:
    return session.execute(sa.text("SELECT 1 FROM reset_requests")).first() is not None
