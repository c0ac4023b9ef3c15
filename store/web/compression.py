"""Compresses what the shop says, for those who take it: pages, fragments and JSON that are long enough."""

from __future__ import annotations

import gzip

from flask import Response, request

from store.web import own_orders

_FROM_BYTES = 1024
"""Less than this fits into one packet as it is."""
_LEVEL = 5
"""Half as slow as the best, and a page is a twentieth longer."""
_KINDS = frozenset({"text/html", "application/json"})


def compress(response: Response) -> None:
    """Compress it, if it is long and the client takes gzip. A 304 names what the whole would vary by, too.

    The length of what is compressed tells whether a guess that is in it equals a secret beside it (BREACH).
    A page has no secret but the address that it was asked for, and keys that are new each time; what a
    browser remembers of its orders is the exception, so a client that sends it gets nothing compressed.
    """
    is_text = response.mimetype in _KINDS
    if is_text or response.status_code == 304:
        response.headers["Vary"] = "Accept-Encoding"
    if (
        is_text
        and (response.content_length or 0) >= _FROM_BYTES
        and request.accept_encodings["gzip"]
        and own_orders.COOKIE not in request.cookies
    ):
        response.set_data(gzip.compress(response.get_data(), _LEVEL, mtime=0))
        response.content_encoding = "gzip"
