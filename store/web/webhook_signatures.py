"""Signed webhooks: the signature, as Standard Webhooks defines it, and what the body must say.

The specification is at https://www.standardwebhooks.com. A sender signs
`<webhook-id>.<webhook-timestamp>.<body>` with HMAC-SHA256 and sends, beside those two, the
header `webhook-signature`: one or more of `v1,<base64>` with spaces between them, one for each
secret that is in use. Its own Python library brings an HTTP client and four more packages for
these few lines.

The body names the payment and its outcome, because the path is not signed: a message that was
overheard is good for what it says, and for nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from werkzeug.datastructures import Headers

from store.vocabulary import Outcome

TOLERANCE_SECONDS = 5 * 60
"""A message older or newer than this is refused: it may have been recorded and sent again."""

# Without a full stop, which is what divides it from the timestamp.
_MESSAGE_ID = re.compile(r"[!-\-/-~]{1,255}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class BadSignature(Exception):
    """A message that is not signed as it must be; the text is one sentence for its sender."""


class BadBody(Exception):
    """A body that does not say which payment ended how; the text is one sentence for its sender."""


def is_message_id(text: str) -> bool:
    """Whether `text` may be the `webhook-id` of a message."""
    return _MESSAGE_ID.fullmatch(text) is not None


def body_of(payment_id: str, outcome: Outcome) -> bytes:
    """The body of a message about that payment."""
    return json.dumps({"payment_id": payment_id, "status": outcome}).encode()


def read_body(body: bytes) -> tuple[str, Outcome]:
    """The payment and the outcome that a body names; it may have further members.

    Raises:
        BadBody: it is no JSON object that names both, each once.
    """
    try:
        said = json.loads(body.decode(), object_pairs_hook=_members, parse_constant=_no_number)
    except (ValueError, RecursionError):  # no UTF-8, no JSON, a name that comes twice, or nested too deeply
        said = None
    if isinstance(said, dict):
        payment_id, status = said.get("payment_id"), said.get("status")
        if isinstance(payment_id, str) and isinstance(status, str) and status in set(Outcome):
            return payment_id, Outcome(status)
    raise BadBody(
        'The body must be a JSON object such as {"payment_id": "...", "status": "paid"}, '
        "where status is paid or failed and no name comes twice."
    )


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two that have one name, readers take different ones.
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError
    return members


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature of a message, as it stands in `webhook-signature`; `timestamp` in seconds since 1970."""
    return "v1," + base64.b64encode(_code(key, message_id, str(timestamp), body)).decode()


def verify(keys: Iterable[bytes], headers: Headers, body: bytes, now: float) -> None:
    """Check a message against every key that is in use. `now` is in seconds since 1970.

    Raises:
        BadSignature: it has no signature, an old one, or none that one of the keys has made.
    """
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    signatures = headers.get("webhook-signature", "")
    if not (is_message_id(message_id) and _TIMESTAMP.fullmatch(timestamp) and signatures):
        raise BadSignature(
            "A webhook needs the headers webhook-id, webhook-timestamp and webhook-signature: "
            "sign it as Standard Webhooks says."
        )
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise BadSignature(
            "That webhook-timestamp is more than five minutes from now: sign the message again and resend it."
        )
    made = [_code(key, message_id, timestamp, body) for key in keys]
    # Every pair is compared, each in constant time: how long it takes tells nothing.
    matches = [hmac.compare_digest(one, other) for one in made for other in _read(signatures)]
    if not any(matches):
        raise BadSignature(
            "That webhook-signature is not one that this shop's secret makes: check the secret."
        )


def _code(key: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    signed = b".".join([message_id.encode(), timestamp.encode(), body])
    return hmac.digest(key, signed, hashlib.sha256)


def _read(signatures: str) -> list[bytes]:
    """The signatures of the one version that is checked here; those of others may stand beside them."""
    found = []
    for signature in signatures.split(" "):
        version, _, code = signature.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(code, validate=True))
            except ValueError:  # then it is none
                continue
    return found


def _no_number(name: str) -> NoReturn:
    # NaN and Infinity, which Python reads and JSON has not.
    raise ValueError(name)
