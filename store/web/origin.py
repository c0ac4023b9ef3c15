"""Where a request comes from: its client, the name it asks for, and the page that sent it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Flask, Request, abort, request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from store.client_addresses import client_at, parse_address
from store.settings import LOOPBACK_HOSTS, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_log = logging.getLogger("store")


def prepare(app: Flask, settings: Settings) -> None:
    """Have `app` believe its proxies, and refuse what nobody who belongs here would send."""
    if settings.trusted_proxies:
        app.wsgi_app = BehindProxies(app.wsgi_app, settings)  # type: ignore[assignment, method-assign]
    app.before_request(partial(_refuse_unknown_names, settings))
    app.before_request(_refuse_changes_by_other_sites)


class BehindProxies:
    """Applies the X-Forwarded headers of the proxies that the settings name, and of nobody else.

    Each proxy adds the address that it was asked from to X-Forwarded-For. The scheme and the host are what
    the last proxy says, because proxies replace these. Nothing else in the store reads these headers,
    so those of a stranger are ignored by not applying them.
    """

    def __init__(self, app: WSGIApplication, settings: Settings) -> None:
        self._app = app
        self._believing = ProxyFix(app, x_for=settings.trusted_proxies, x_proto=1, x_host=1)
        self._settings = settings
        self._has_warned = False

    def __call__(self, wsgi: WSGIEnvironment, start_response: StartResponse, /) -> Iterable[bytes]:
        """Answer one request."""
        peer = wsgi.get("REMOTE_ADDR", "")
        if not self._settings.is_trusted_proxy(parse_address(peer)):
            if "HTTP_X_FORWARDED_FOR" in wsgi and not self._has_warned:
                self._has_warned = True  # once: others who say so may be anybody
                _log.warning(
                    "ignored X-Forwarded-For from %s, which is not in STORE_TRUSTED_PROXY_ADDRESSES", peer
                )
            return self._app(wsgi, start_response)
        scheme = wsgi.pop("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        if scheme in {"http", "https"}:
            wsgi["HTTP_X_FORWARDED_PROTO"] = scheme
        return self._believing(wsgi, start_response)


def address_of(request: Request) -> IPv4Address | IPv6Address | None:
    """Where a request comes from; None if that is no address."""
    return parse_address(request.remote_addr or "")


def client_of(request: Request) -> str:
    """The client that a request counts for."""
    return client_at(address_of(request))


def name_asked_for(request: Request) -> str:
    """The host name in the address that the visitor asked for, in lower case; "" if it is none."""
    # Not `request.host` alone: where the header makes no sense, that is the name of the server.
    try:
        return urlsplit(f"//{request.headers.get('Host', request.host)}").hostname or ""
    except ValueError:  # [ without ]
        return ""


def _refuse_unknown_names(settings: Settings) -> None:
    """Answer only to names of ours.

    Whoever makes a name of theirs mean our address has a page in a visitor's browser that may
    read ours (DNS rebinding). A bare address cannot be made to mean another, so a shop that
    listens on every address of its machine answers to all of them.
    """
    if "Host" not in request.headers:  # HTTP/1.0: no browser of today
        return
    name = name_asked_for(request)
    if name in LOOPBACK_HOSTS or name == settings.host.lower():
        return
    if name and name == settings.audience_host.lower():
        return
    if settings.listens_on_every_address and _is_address(name):
        return
    trusted = settings.trusted_hosts.lower().split(",")
    # Werkzeug takes what follows a colon for a port: an address of IPv6 is compared whole.
    if name and (name in trusted or (":" not in name and host_is_trusted(name, trusted))):
        return
    abort(
        400,
        "The shop does not go by the name in that address: use its own, "
        "or have its operator add the name to STORE_TRUSTED_HOSTS.",
    )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _refuse_changes_by_other_sites() -> None:
    if request.method not in _SAFE_METHODS:
        refuse_other_sites()


def refuse_other_sites() -> None:
    """Let no page of another site change anything here, with the password that its reader's browser knows.

    A browser says where a request comes from: in Sec-Fetch-Site, or, over plain HTTP and if it
    is old, in Origin alone. Whatever sends neither is no browser, and has no such reader.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        is_ours = site in {"same-origin", "none"}
    else:
        is_ours = request.headers.get("Origin") in {None, f"{request.scheme}://{request.host}"}
    if not is_ours:
        abort(403, "Only the shop's own pages may do that: open the store itself and try again.")
