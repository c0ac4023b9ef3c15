"""Opens a shop whose database may be away: visitors are told so, and it goes on trying.

For servers that come after one that has died. The first server of a shop has somebody at the keyboard, and
tells them what is wrong instead.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import sqlalchemy as sa
from flask import Flask, request

from store import schema
from store.database import Databases
from store.database_errors import DatabaseAway, DatabaseRefused
from store.durable.deadlines import PAGE_SECONDS, DeadlineExceeded, seconds_left
from store.settings import REFUSED, Settings, refuse

_AGAIN_SECONDS = 0.5
"""Between two tries."""
_LAST_SECONDS = 5.0
"""How long a server that cannot open says so before it ends: its parent starts the next one at once."""
Launch = Callable[[Callable[[], None]], None]
"""Launches the workflows, and calls what it is given as soon as this server has its number."""
_NEED_NO_WORKFLOWS = frozenset({None, "presenter.crash_application"})
"""Where there is nothing; and to die, a server needs none."""
_log = logging.getLogger("store")


def may_begin_something() -> bool:
    """Whether this request may begin a workflow or tell one something; the others only look."""
    return request.method == "POST" or request.endpoint == "api.greeting"


class Opening:
    """Opens one shop: prepares its databases and calls `launch`, which is called once in a process.

    It opens in two steps. Whoever looks is answered as soon as the tables are there and this server has
    its number, which is half of the way; what acts waits until workflows run.
    """

    def __init__(self, app: Flask, settings: Settings, databases: Databases, launch: Launch) -> None:
        self._settings, self._databases, self._launch = settings, databases, launch
        self._may_look = self._may_act = False
        self._looked_at = 0.0
        """When the first could look, on the monotonic clock."""
        self._may_answer = threading.Event()
        """Set once it has pages to show, or has to say that it is not open."""
        self._need_not_wait = threading.Event()
        """Set once workflows run, or will not at once."""
        # After what gives each request its deadline, and before whatever asks if it may begin something: it
        # may have waited here for long.
        app.before_request_funcs.setdefault(None, []).insert(1, self._refuse)

    def begin(self) -> None:
        """Open it, in a thread. Returns once it is open, or once its visitors are to be told that it is not.

        Usually that takes a moment, in which they wait for the server as they do for any that starts. Where
        others share its address, they are not kept waiting, and this one answers only once it can.
        """
        threading.Thread(target=self._open, name="opening", daemon=True).start()
        if self._settings.processes == 1:
            self._may_answer.wait(PAGE_SECONDS)
        else:
            self._need_not_wait.wait()

    def _refuse(self) -> None:
        # The calm page needs its style, and health speaks for itself.
        if self._may_act or request.endpoint in {"static", "health"}:
            return
        if self._may_look:
            if not may_begin_something() or request.endpoint in _NEED_NO_WORKFLOWS:
                return
            # All together wait as long as one page: a launch that stands still keeps no thread.
            left = self._looked_at + PAGE_SECONDS - time.monotonic()
            self._need_not_wait.wait(max(0.0, min(left, seconds_left())))
        if not self._may_act:
            raise DeadlineExceeded("the shop is not open yet")

    def _open(self) -> None:
        engines = (self._databases.store, self._databases.system)
        for engine in engines:
            sa.event.listen(engine, "handle_error", self._note_trouble)
        try:
            self._prepare()
            self._launch(self._let_look)
        except DatabaseRefused as refusal:
            with suppress(SystemExit):  # which ends a thread alone
                refuse(str(refusal))
            os._exit(REFUSED)
        except Exception:  # noqa: BLE001 - whatever it was, the next server may open
            # DBOS cannot be launched twice in a process, so another has to try.
            self._may_look = False
            _log.exception("the shop could not be opened")
            self._keep_nobody_waiting()
            time.sleep(_LAST_SECONDS)
            os._exit(1)
        for engine in engines:
            sa.event.remove(engine, "handle_error", self._note_trouble)
        self._may_look = self._may_act = True
        self._keep_nobody_waiting()

    def _let_look(self) -> None:
        self._looked_at = time.monotonic()
        self._may_look = True
        self._may_answer.set()

    def _keep_nobody_waiting(self) -> None:
        self._may_answer.set()
        self._need_not_wait.set()

    def _prepare(self) -> None:
        last_said = ""
        while True:
            try:
                schema.prepare(self._databases, self._settings)
            except DatabaseAway as trouble:
                self._keep_nobody_waiting()
                if str(trouble) != last_said:
                    last_said = str(trouble)
                    _log.warning("not open yet: %s", trouble)
                time.sleep(_AGAIN_SECONDS)
            else:
                return

    def _note_trouble(self, _context: sa.ExceptionContext) -> None:
        # What DBOS meets while it is launched, it waits out.
        self._keep_nobody_waiting()
