"""Owns the signatures of webhooks, as Standard Webhooks defines them. Imports nothing of ours.

The specification is at https://www.standardwebhooks.com. A sender signs
`<webhook-id>.<webhook-timestamp>.<body>` with HMAC-SHA256 and sends, beside those two, the
header `webhook-signature`: one or more of `v1,<base64>` with spaces between them, one for each
secret that is in use. Its own Python library brings an HTTP client and four more packages for
these few lines.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable

from werkzeug.datastructures import Headers

TOLERANCE_SECONDS = 5 * 60
"""A message older or newer than this is refused: it may have been recorded and sent again."""

# Without a full stop, which is what divides it from the timestamp.
_MESSAGE_ID = re.compile(r"[!-\-/-~]{1,255}", re.ASCII)
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class BadSignature(Exception):
    """A message that is not signed as it must be; the text is one sentence for whoever sent it."""


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The signature of a message, as it stands in `webhook-signature`; `timestamp` in seconds since 1970."""
    return "v1," + base64.b64encode(_code(key, message_id, str(timestamp), body)).decode()


def verify(keys: Iterable[bytes], headers: Headers, body: bytes, now: float) -> str:
    """Check a message against every key that is in use; its id. `now` is in seconds since 1970.

    Raises:
        BadSignature: it has no signature, an old one, or none that one of the keys has made.
    """
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    signatures = headers.get("webhook-signature", "")
    if not (_MESSAGE_ID.fullmatch(message_id) and _TIMESTAMP.fullmatch(timestamp) and signatures):
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
    return message_id


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
