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
from store.durable.deadlines import PAGE_SECONDS, DeadlineExceeded
from store.settings import REFUSED, Settings, refuse

_AGAIN_SECONDS = 0.5
"""Between two tries."""
_LAST_SECONDS = 5.0
"""How long a server that cannot open says so before it ends: its parent starts the next one at once."""
_log = logging.getLogger("store")


class Opening:
    """Opens one shop: prepares its databases and calls `launch`, which is called once in a process."""

    def __init__(
        self, app: Flask, settings: Settings, databases: Databases, launch: Callable[[], None]
    ) -> None:
        self._settings, self._databases, self._launch = settings, databases, launch
        self._is_open = False
        self._need_not_wait = threading.Event()
        """Set once it is open, or will not be at once."""
        app.before_request(self._refuse)

    def begin(self) -> None:
        """Open it, in a thread. Returns once it is open, or once its visitors are to be told that it is not.

        Usually that takes a moment, in which they wait for the server as they do for any that starts. Where
        others share its address, they are not kept waiting, and this one answers only once it can.
        """
        threading.Thread(target=self._open, name="opening", daemon=True).start()
        self._need_not_wait.wait(PAGE_SECONDS if self._settings.processes == 1 else None)

    def _refuse(self) -> None:
        # The calm page needs its style, and health speaks for itself.
        if not self._is_open and request.endpoint not in {"static", "health"}:
            raise DeadlineExceeded("the shop is not open yet")

    def _open(self) -> None:
        engines = (self._databases.store, self._databases.system)
        for engine in engines:
            sa.event.listen(engine, "handle_error", self._note_trouble)
        try:
            self._prepare()
            self._launch()
        except DatabaseRefused as refusal:
            with suppress(SystemExit):  # which ends a thread alone
                refuse(str(refusal))
            os._exit(REFUSED)
        except Exception:  # noqa: BLE001 - whatever it was, the next server may open
            # DBOS cannot be launched twice in a process, so another has to try.
            _log.exception("the shop could not be opened")
            self._need_not_wait.set()
            time.sleep(_LAST_SECONDS)
            os._exit(1)
        for engine in engines:
            sa.event.remove(engine, "handle_error", self._note_trouble)
        self._is_open = True
        self._need_not_wait.set()

    def _prepare(self) -> None:
        last_said = ""
        while True:
            try:
                schema.prepare(self._databases, self._settings)
            except DatabaseAway as trouble:
                self._need_not_wait.set()
                if str(trouble) != last_said:
                    last_said = str(trouble)
                    _log.warning("not open yet: %s", trouble)
                time.sleep(_AGAIN_SECONDS)
            else:
                return

    def _note_trouble(self, _context: sa.ExceptionContext) -> None:
        # What DBOS meets while it is launched, it waits out.
        self._need_not_wait.set()
