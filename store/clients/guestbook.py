"""The client of the online guestbook, which is somebody else's system.

It may be away, slow, broken, or answer something else altogether. Its answers are sorted into three: it
signed; it may sign later, so that a retry makes sense; it never will. A retry is safe, because a request
carries an idempotency key. Its texts are cleaned on the way in: JSON can hold characters that neither UTF-8
nor Postgres can.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import urlencode, urlsplit

from store.durable.deadlines import DeadlineExceeded, call_with_deadline
from store.vocabulary import NAME_MAX_LENGTH, fit_to_show

_SIGN_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_LONGEST_ANSWER = 256 * 1024
_LONGEST_REASON = 200
_under_way = BoundedSemaphore(32)
"""Calls of theirs, so that a slow neighbour never takes a call to the database its place."""
_LARGEST_NUMBER = 2**31 - 1
"""That the schema holds."""
# Beside those from 500 up: not there yet, took too long, still busy with the same key, too early, too many.
_WORTH_ANOTHER_TRY = frozenset({404, 408, 409, 425, 429})
_SIGNED = frozenset({200, 201})


class Unavailable(Exception):
    """It did not sign, and may if it is asked again; the text is one sentence."""


class Refused(Exception):
    """It will never sign this; the text is its reason, one sentence."""


@dataclass(frozen=True)
class Signature:
    """Who signed, and the number that the online guestbook gave it."""

    number: int
    name: str


def sign(url: str, name: str, key: str | None) -> Signature:
    """Sign the guestbook at `url`, once for each key, or once more where there is none.

    Raises:
        Unavailable: whether it has signed is not known, and asking again with the same key is safe.
        Refused: it says that asking again is of no use.
    """
    headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
    body = json.dumps({"name": name}).encode()
    status, answer = _ask(url, "/record_greeting", _SIGN_SECONDS, body=body, headers=headers)
    if 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY:
        raise Refused(_reason(status, answer))
    # Its name may be trimmed or spelled otherwise over there: the key says whose it is.
    return _signature(_understood(status, answer))


def newest(url: str, limit: int) -> list[Signature]:
    """The newest signatures, newest first.

    Raises:
        Unavailable: it does not say.
    """
    answer = _understood(*_ask(url, f"/signatures?{urlencode({'limit': limit})}", _LOOK_SECONDS))
    listed = answer.get("signatures")
    if not isinstance(listed, list):
        raise Unavailable("The guestbook answers something that is no list of signatures.")
    return [_signature(each) for each in listed]


def begin_anew(url: str) -> None:
    """Have the guestbook at `url` forget every signature; asked again, it has none still.

    Raises:
        Unavailable: whether it has done so is not known, or it does not offer that.
    """
    _understood(*_ask(url, "/signatures", _LOOK_SECONDS, method="DELETE"))


def make_trouble(url: str, **trouble: object) -> None:
    """Tell the guestbook that comes with the store what to do wrong, as its file says.

    Raises:
        Unavailable: it does not take it.
    """
    headers = {"Content-Type": "application/json"}
    _understood(*_ask(url, "/trouble", _LOOK_SECONDS, body=json.dumps(trouble).encode(), headers=headers))


def _ask(url: str, path: str, seconds: float, *, method: str = "", **sent: Any) -> tuple[int, bytes]:
    if not url:
        raise Unavailable(
            "No guestbook is running. `python app.py` runs one beside the shop; where the shop is started "
            "otherwise, start `python guestbook_service.py` and set STORE_GUESTBOOK_URL to its address."
        )
    where = urlsplit(url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
    connection = kind(where.netloc, timeout=seconds)

    def ask() -> tuple[int, bytes]:
        try:
            connection.request(method or ("POST" if sent else "GET"), where.path + path, **sent)
            response = connection.getresponse()
            return response.status, response.read(_LONGEST_ANSWER)
        finally:
            connection.close()

    try:
        # The connection's own limit is for each of its bytes; this one is for all of them.
        return call_with_deadline(ask, seconds, slots=_under_way)
    except (TimeoutError, DeadlineExceeded):
        if connection.sock is not None:  # ends the thread that still reads, however slowly it is answered
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        raise Unavailable(f"The guestbook did not answer within {seconds:g} seconds.") from None
    except (OSError, http.client.HTTPException):
        raise Unavailable("The guestbook cannot be reached.") from None


def _understood(status: int, answer: bytes) -> dict[str, Any]:
    if status not in _SIGNED:
        raise Unavailable(f"The guestbook answers with an error ({status}).")
    found = _json(answer)
    if not isinstance(found, dict):
        raise Unavailable("The guestbook answers something that nobody understands.")
    return found


def _signature(found: Any) -> Signature:
    number, name = (found.get("signature"), found.get("name")) if isinstance(found, dict) else (None, None)
    if type(number) is not int or not 0 < number <= _LARGEST_NUMBER or not isinstance(name, str):
        raise Unavailable("The guestbook answers something that is no signature.")
    return Signature(number, fit_to_show(name, NAME_MAX_LENGTH))


def _reason(status: int, answer: bytes) -> str:
    found = _json(answer)
    said = found.get("error") if isinstance(found, dict) else None
    if isinstance(said, str) and said.strip():
        return f"The guestbook refuses ({status}): {fit_to_show(said, _LONGEST_REASON)}"
    return f"The guestbook refuses ({status}) and does not say why."


def _json(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):  # the second of a thousand brackets
        return None
