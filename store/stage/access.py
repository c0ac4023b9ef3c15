"""Who may use the presenter's tools.

Without a password: whoever is on this machine, if the shop listens to nobody else. With one:
whoever knows it, by HTTP Basic (RFC 7617), from anywhere.

After a wrong password its address has to wait, and until then no password from there is looked at,
not even the right one. It cannot be otherwise: if the right one were always let in at once, its answer
would tell it from the wrong ones, and there would be as many guesses in a second as requests.

So that a guesser behind the same router does not keep the presenter out, a browser that has signed in
once is recognised by a signed cookie. What it tries counts for itself, and not for its address (OWASP
calls that device cookies). The cookie is no password: without one it opens nothing, and whoever has
stolen it has as many guesses as one more address. It is signed with a key made of the password, so it
outlives a crash, and a new password forgets all browsers.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from enum import Enum, auto
from functools import cached_property

from flask import Request
from itsdangerous import BadSignature, Signer

from store.settings import LOOPBACK_HOSTS, Settings
from store.web.origin import address_of, client_of, name_asked_for

_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 10.0
_REMEMBERED = 10_000
"""Addresses and browsers whose failed tries are remembered; the oldest are forgotten."""
COOKIE = "presenter"
"""Name of the cookie of a browser that has signed in."""
_KEY_ROUNDS = 200_000
"""So that a stolen cookie is slow to find the password with: some 0.1 s for each guess."""
_PROXY_HEADERS = (
    "x-", "forwarded", "via", "proxy-", "wl-proxy-", "cf-", "cdn-", "fastly-", "fly-", "akamai-", "ali-",
    "cloudfront-", "incap-", "ngrok-", "remote-", "tailscale-",
)  # fmt: skip
"""What the headers of proxies begin with. No browser sends a header of its own that begins with x-."""


class Decision(Enum):
    """What the gate says to a request."""

    WELCOME = auto()
    UNKNOWN = auto()
    """It names no password, or a wrong one."""
    TOO_SOON = auto()
    """A try from the same address or browser has just failed."""
    CLOSED = auto()
    """See `Access.is_closed_to`."""


class Access:
    """Stands before the presenter's tools of one shop."""

    def __init__(self, settings: Settings) -> None:
        self._password = settings.presenter_password.encode()
        self._is_private = settings.is_for_this_machine_only
        self._lock = threading.Lock()
        # Of each address or browser whose last try failed: how long it must wait, and since when.
        self._failed: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def is_closed_to(self, request: Request) -> bool:
        """Whether there are no tools for anybody who comes from there."""
        return not self._password and not (self._is_private and _is_local(request))

    def ask(self, request: Request) -> Decision:
        """Whether whoever makes this request may use the tools."""
        if self.is_closed_to(request):
            return Decision.CLOSED
        if not self._password:
            return Decision.WELCOME
        if request.authorization is None or request.authorization.password is None:
            return Decision.UNKNOWN
        return self._try(self._who(request), request.authorization.password.encode())

    def seconds_to_wait(self, request: Request) -> int:
        """How long until another try is listened to, in whole seconds, 1 or more."""
        return max(1, -int(-self._left(self._who(request)) // 1))

    def cookie_for(self, request: Request) -> str | None:
        """What a browser that has been welcomed is to send along from now on; None if it does already."""
        if not self._password or self._browser(request) is not None:
            return None
        return self._signer.sign(secrets.token_urlsafe(12)).decode()

    def _who(self, request: Request) -> str:
        """Whom a try counts for."""
        return self._browser(request) or client_of(request)

    def _browser(self, request: Request) -> str | None:
        """The browser that has signed in before, by its cookie; None if it has not."""
        try:
            return f"browser {self._signer.unsign(request.cookies.get(COOKIE, '')).decode()}"
        except BadSignature:
            return None

    @cached_property
    def _signer(self) -> Signer:
        key = hashlib.pbkdf2_hmac("sha256", self._password, b"store.gate", _KEY_ROUNDS)
        return Signer(key, salt="store.gate", digest_method=hashlib.sha256)

    def _try(self, who: str, password: bytes) -> Decision:
        # One at a time, so that a thousand tries at once are not a thousand first tries.
        with self._lock:
            if self._left(who) > 0:
                return Decision.TOO_SOON
            if hmac.compare_digest(password, self._password):
                self._failed.pop(who, None)
                return Decision.WELCOME
            waited, _ = self._failed.pop(who, (0.0, 0.0))
            wait = min(max(_FIRST_WAIT_SECONDS, 2 * waited), _LONGEST_WAIT_SECONDS)
            self._failed[who] = (wait, time.monotonic())
            if len(self._failed) > _REMEMBERED:
                self._failed.popitem(last=False)
            return Decision.UNKNOWN

    def _left(self, who: str) -> float:
        wait, since = self._failed.get(who, (0.0, 0.0))
        return since + wait - time.monotonic()


def _is_local(request: Request) -> bool:
    """Whether a request comes from this machine, and from no proxy on it that nobody told us of.

    It must also call the shop by a name of this machine: a page of another site, whose name was
    made to mean this machine, does not. `waitress-serve` takes away what a proxy says of
    itself, so there nobody can be sure.
    """
    address = address_of(request)
    return (
        address is not None
        and address.is_loopback
        and name_asked_for(request) in LOOPBACK_HOSTS
        and not _comes_through_a_proxy(request)
        and not str(request.environ.get("SERVER_SOFTWARE")).startswith("waitress")
    )


def _comes_through_a_proxy(request: Request) -> bool:
    """Whether a request looks like that of a proxy, by its headers or by how it asks.

    A proxy that adds no header, such as nginx with a bare `proxy_pass`, speaks HTTP/1.0 or closes
    each connection, which no browser of today does. One that adds none and keeps its connections
    cannot be told from a browser: that is what STORE_TRUSTED_PROXIES is for.
    """
    names = [name.lower() for name in request.headers.keys()]  # noqa: SIM118 - iterating gives pairs
    return (
        request.environ.get("SERVER_PROTOCOL") == "HTTP/1.0"
        or "close" in request.headers.get("Connection", "").lower()
        or any(name.startswith(_PROXY_HEADERS) or name.endswith("-ip") for name in names)
    )
