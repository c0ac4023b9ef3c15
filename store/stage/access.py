"""Who may use the presenter's tools.

Without a password: a browser on this machine, if the shop listens to nobody else. With one: a browser that
has signed in, and a program that sends it by HTTP Basic (RFC 7617), from anywhere.

Signing in gives a browser a session: a signed cookie with its time, which ends after `SESSION_SECONDS`. The
key that signs is made of the password. So no secret stands in the repository or in a file, sessions outlive a
crash and are known to every server of the shop, and a new password ends all of them. No session stands in a
table: signing out makes that browser forget its cookie, and a copy of the cookie ends with its time.

After a wrong password its address has to wait, and until then no password from there is looked at,
not even the right one. It cannot be otherwise: if the right one were always let in at once, its answer
would tell it from the wrong ones, and there would be as many guesses in a second as requests. The waits are
rows (`failed_tries.py`): where every sale is a crash, a guesser may end the server that remembers them.

So that a guesser behind the same router does not keep the presenter out, a browser that has signed in
once is recognised by another signed cookie. What it tries counts for itself, and not for its address (OWASP
calls that device cookies). That cookie is no session: without the password it opens nothing, and whoever has
stolen it has as many guesses as one more address.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from flask import Request
from itsdangerous import BadSignature, Signer, TimestampSigner

from store.settings import LOOPBACK_HOSTS, Settings
from store.web.origin import address_of, client_of, name_asked_for

_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 10.0
_REMEMBERED = 10_000
"""Addresses and browsers whose failed tries are remembered; the oldest are forgotten."""
COOKIE = "presenter"
"""Name of the cookie of a browser that has signed in once."""
SESSION_COOKIE = "presenter_session"
"""Name of the cookie of a browser that is signed in."""
SESSION_SECONDS = 12 * 3600
"""How long it is: a day on stage, with its rehearsal."""
_KEY_ROUNDS = 200_000
"""So that a stolen cookie is slow to find the password with: some 0.1 s for each guess."""
_PROXY_HEADERS = (
    "x-", "forwarded", "via", "proxy-", "wl-proxy-", "cf-", "cdn-", "fastly-", "fly-", "akamai-", "ali-",
    "cloudfront-", "incap-", "ngrok-", "remote-", "tailscale-",
)  # fmt: skip
"""What the headers of proxies begin with. No browser sends a header of its own that begins with x-."""


@dataclass(frozen=True)
class Wait:
    """How long an address or browser must wait after its last failed try."""

    seconds: float
    since: float
    """When that was, by the clock of this process that only goes forward."""

    def left(self) -> float:
        """Seconds that are still to wait; 0 or less if none."""
        return self.since + self.seconds - time.monotonic()


@dataclass(frozen=True)
class Record:
    """Where failed tries are kept, so that they outlive this server; by default, nowhere."""

    read: Callable[[], Mapping[str, Wait]] = dict
    """All that are kept, the oldest first."""
    write: Callable[[str, Wait], object] = lambda _who, _wait: None
    forget: Callable[[str], object] = lambda _who: None


class Decision(Enum):
    """Whether a request may use the tools."""

    WELCOME = auto()
    UNKNOWN = auto()
    """It names no password, or a wrong one."""
    TOO_SOON = auto()
    """A try from the same address or browser has just failed."""
    CLOSED = auto()
    """See `Access.is_closed_to`."""


class Access:
    """Stands before the presenter's tools of one shop."""

    def __init__(self, settings: Settings, record: Record | None = None) -> None:
        self._password = settings.presenter_password.encode()
        self._is_private = settings.is_for_this_machine_only
        self._record = record or Record()
        self._lock = threading.Lock()

    def is_closed_to(self, request: Request) -> bool:
        """Whether there are no tools for anybody who comes from there."""
        return not self._password and not (self._is_private and _is_local(request))

    def ask(self, request: Request) -> Decision:
        """Whether the sender of this request may use the tools."""
        if self.is_closed_to(request):
            return Decision.CLOSED
        if not self._password:
            return Decision.WELCOME
        if self.is_signed_in(request):
            return Decision.WELCOME
        if request.authorization is None or request.authorization.password is None:
            return Decision.UNKNOWN
        return self.try_password(request, request.authorization.password)

    def try_password(self, request: Request, password: str) -> Decision:
        """Whether that is the password, as far as the sender of this request may try one now."""
        return self._try(self._who(request), password.encode())

    def is_signed_in(self, request: Request) -> bool:
        """Whether its browser has a session that has not ended."""
        if not self._password or SESSION_COOKIE not in request.cookies:
            return False  # without the key, which takes a moment to make
        try:
            self._session_signer.unsign(request.cookies.get(SESSION_COOKIE, ""), max_age=SESSION_SECONDS)
        except BadSignature:
            return False
        return True

    def new_session(self) -> str:
        """The cookie of a session that begins now."""
        return self._session_signer.sign(secrets.token_urlsafe(12)).decode()

    def seconds_to_wait(self, request: Request) -> int:
        """How long until another try is listened to, in whole seconds, 1 or more."""
        return max(1, -int(-self._left(self._who(request)) // 1))

    def cookie_for(self, request: Request) -> str | None:
        """What a browser that has been welcomed is to send along from now on; None if it does already."""
        if not self._password or self._browser(request) is not None:
            return None
        return self._signer.sign(secrets.token_urlsafe(12)).decode()

    def _who(self, request: Request) -> str:
        """Whom a try counts for: a digest, because the rows are no place for an address."""
        who = self._browser(request) or client_of(request)
        return hashlib.blake2b(who.encode(), digest_size=16).hexdigest()

    def _browser(self, request: Request) -> str | None:
        """The browser that has signed in before, by its cookie; None if it has not."""
        if COOKIE not in request.cookies:
            return None
        try:
            return f"browser {self._signer.unsign(request.cookies.get(COOKIE, '')).decode()}"
        except BadSignature:
            return None

    @cached_property
    def _signer(self) -> Signer:
        return Signer(self._key, salt="store.gate", digest_method=hashlib.sha256)

    @cached_property
    def _session_signer(self) -> TimestampSigner:
        return TimestampSigner(self._key, salt="store.session", digest_method=hashlib.sha256)

    @cached_property
    def _key(self) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", self._password, b"store.gate", _KEY_ROUNDS)

    @cached_property
    def _failed(self) -> OrderedDict[str, Wait]:
        """Of each address or browser whose last try failed: how long it must wait. Only under the lock."""
        return OrderedDict(self._record.read())

    def _try(self, who: str, password: bytes) -> Decision:
        # One at a time, so that a thousand tries at once are not a thousand first tries.
        with self._lock:
            failed = self._failed.get(who)
            if failed is not None and failed.left() > 0:
                return Decision.TOO_SOON
            if hmac.compare_digest(password, self._password):
                if self._failed.pop(who, None) is not None:
                    self._record.forget(who)
                return Decision.WELCOME
            self._remember(who, 2 * failed.seconds if failed else 0)
            return Decision.UNKNOWN

    def _remember(self, who: str, seconds: float) -> None:
        wait = Wait(min(max(_FIRST_WAIT_SECONDS, seconds), _LONGEST_WAIT_SECONDS), time.monotonic())
        self._failed[who] = wait
        self._failed.move_to_end(who)
        if len(self._failed) > _REMEMBERED:
            self._record.forget(self._failed.popitem(last=False)[0])
        self._record.write(who, wait)

    def _left(self, who: str) -> float:
        with self._lock:
            failed = self._failed.get(who)
        return failed.left() if failed else 0.0


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
