"""What a shopper of a storm asks with: a browser's manners, though it runs no JavaScript.

One that gets no answer asks again, with the same key, until there is one; how long that took is how long
the shop paused.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from store.storm.notes import Notes
from store.storm.servers import Addresses, OneAddress

_GIVE_UP_SECONDS = 60.0
"""A shopper who waits for longer than this for one answer says that the shop is broken."""
_ANSWER_SECONDS = 10.0
BREATHING = frozenset({502, 503, 504})
"""Answers that say: not now, ask again."""


@dataclass(frozen=True)
class Reply:
    """What the shop said; redirects are followed as a browser does."""

    status: int
    path: str
    text: str
    tag: str = ""
    """Of the content, where it is a piece of a page."""


class Browser:
    """Asks the shop at `where`, and writes down how long each answer took."""

    def __init__(self, where: str | Addresses, notes: Notes) -> None:
        self._headers = {"Accept": "text/html"}
        self._addresses = OneAddress(where) if isinstance(where, str) else where
        self._notes = notes

    def get(self, path: str) -> Reply:
        """Open a page."""
        return self._until_answered("GET", path)

    def poll(self, path: str, shown_tag: str) -> Reply:
        """Ask for a piece of a page as a page does that shows one of this tag: 304 where that is the same."""
        return self._until_answered("GET", path, headers={"HX-Request": "true", "HX-PTag": shown_tag})

    def post(self, path: str, **form: str) -> Reply:
        """Submit a form."""
        return self._until_answered("POST", path, form)

    def _until_answered(
        self,
        method: str,
        path: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The answer, however often the request has to be sent for it."""
        began_at = time.monotonic()
        unanswered, refused, host = 0, 0, ""
        while True:
            host = self._addresses.pick(failed=host)
            try:
                answer = self._once(host, method, path, form, headers or {})
                if answer.status not in BREATHING:
                    self._notes.answered()
                    break
            except ConnectionRefusedError:
                refused += not self._addresses.is_gone(host)
            except (OSError, http.client.HTTPException):
                pass  # the server died over it: that is what the storm is for
            unanswered += 1
            if time.monotonic() - began_at > _GIVE_UP_SECONDS:
                self._notes.complain(
                    f"{method} {path.split('/')[1]} had no answer for {_GIVE_UP_SECONDS:g} s"
                )
                answer = Reply(0, path, "")
                break
            time.sleep(0.1)  # between two tries
        self._notes.count(
            waited_seconds=time.monotonic() - began_at,
            unanswered=unanswered,
            refused=refused,
            is_given_up=answer.status == 0,
        )
        return answer

    def _once(
        self, host: str, method: str, path: str, form: Mapping[str, str] | None, more: Mapping[str, str]
    ) -> Reply:
        while True:
            connection = http.client.HTTPConnection(host, timeout=_ANSWER_SECONDS)
            headers = {**self._headers, **more}
            if form is not None:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            try:
                connection.request(method, path, None if form is None else urlencode(form), headers)
                response = connection.getresponse()
                text = response.read().decode()
            finally:
                connection.close()
            if response.status != 303:
                return Reply(response.status, path, text, response.headers.get("HX-PTag", ""))
            method, path, form = "GET", response.headers["Location"], None
