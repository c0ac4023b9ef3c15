"""How the text of a setting is read and checked.

Each parser takes the name of a variable and its text, and returns the value. A text that makes no sense
is a ValueError, whose message is one sentence that begins with the variable and says what it may be.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from ipaddress import ip_network
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_DATABASE_URL = re.compile(
    r"(?P<driver>[\w+]+)://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?P<host>\[[^/?]+\]|[^/:?\[]*)(?::(?P<port>[^/?]*))?"
    r"(?:/(?P<database>[^?]*))?(?:\?.*)?"
)
"""As SQLAlchemy reads one; the parent of the servers, which reads settings too, does without it."""
_SHORTEST_PASSWORD = 8
_SHORTEST_WEBHOOK_KEY, _LONGEST_WEBHOOK_KEY = 24, 64
"""Bytes, as Standard Webhooks has them."""


def address(variable: str, text: str) -> str:
    """A host name or an address to listen on."""
    try:
        text.encode("idna")
    except UnicodeError:
        raise ValueError(f"{variable} must be a host name or an address such as 127.0.0.1.") from None
    if any(ch.isspace() or ch in "/?#" for ch in text):
        raise ValueError(f"{variable} must be a host name or an address such as 127.0.0.1, not {text!r}.")
    return text


def whole_number(low: int, high: int) -> Callable[[str, str], Any]:
    """Reads a whole number between two, both included."""

    def read(variable: str, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise ValueError(f"{variable} must be a whole number from {low} to {high}, not {text[:40]!r}.")
        return int(text)

    return read


def seconds(low: float, high: float) -> Callable[[str, str], Any]:
    """Reads a number of seconds between two, both included."""

    def read(variable: str, text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = float("nan")
        if not (isfinite(seconds) and low <= seconds <= high):
            raise ValueError(
                f"{variable} must be a number of seconds from {low:g} to {high:g}, not {text!r}."
            )
        return seconds

    return read


def password(variable: str, text: str) -> str:
    """A password, which strangers may try."""
    if len(text) < _SHORTEST_PASSWORD:
        raise ValueError(
            f"{variable} must have at least {_SHORTEST_PASSWORD} characters, "
            "because anyone who can reach the shop may try."
        )
    return text


def webhook_key(secret: str) -> bytes:
    """The bytes of one secret, with or without `whsec_` before it."""
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


def webhook_secrets(variable: str, text: str) -> str:
    """One secret or more, with spaces between them."""
    for secret in text.split():
        try:
            size = len(webhook_key(secret))
        except ValueError:
            size = 0
        if not _SHORTEST_WEBHOOK_KEY <= size <= _LONGEST_WEBHOOK_KEY:
            raise ValueError(
                f"{variable} must be {_SHORTEST_WEBHOOK_KEY} to {_LONGEST_WEBHOOK_KEY} random bytes "
                "in base64, with or without whsec_ before them."
            )
    return text


def networks(variable: str, text: str) -> str:
    """Addresses and networks, with commas between them."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        try:
            ip_network(part)
        except ValueError:
            raise ValueError(
                f"{variable} must be addresses or networks with commas between them, "
                f"such as 127.0.0.1, 10.0.0.0/8, not {part[:80]!r}."
            ) from None
    return ",".join(parts)


def host_names(variable: str, text: str) -> str:
    """Host names, with commas between them."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not re.fullmatch(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:]+", name, re.ASCII):
            raise ValueError(
                f"{variable} must be host names with commas between them, such as widgets.example, "
                f"without ports, not {name[:80]!r}."
            )
    return ",".join(names)


def web_address(variable: str, text: str) -> str:
    """Where another service is."""
    try:
        url = urlsplit(text)
        is_one = url.scheme in {"http", "https"} and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:  # of the port
        is_one = False
    if not is_one or url.query or url.fragment or url.username is not None:
        raise ValueError(
            f"{variable} must be a web address such as http://127.0.0.1:8001, without user or query."
        )
    return text.rstrip("/")


def database(variable: str, text: str) -> str:
    """A database URL, as SQLAlchemy is to have it."""
    # The text may hold a password, so no message repeats it.
    url = _DATABASE_URL.fullmatch(text)
    if url is None or (url["port"] is not None and not url["port"].isdigit()):
        raise ValueError(
            f"{variable} must be a database URL such as sqlite:///var/store.sqlite3 "
            "or postgresql://user:password@localhost:5432/widgets."
        )
    if url["driver"] in {"sqlite", "sqlite+pysqlite"}:
        if not url["database"] or url["database"] == ":memory:":
            raise ValueError(
                f"{variable} must name a file, because a shop in memory would forget its orders."
            )
        return f"sqlite:///{Path(url['database']).absolute()}"
    if url["driver"] in {"postgresql", "postgres", "postgresql+psycopg"}:
        if "@" in (url["host"] or ""):
            raise ValueError(f"{variable} must have an @ in its user name or password written as %40.")
        if not url["database"]:
            raise ValueError(f"{variable} must end in the name of a Postgres database, as in …/widgets.")
        return f"postgresql+psycopg://{text.partition('://')[2]}"
    raise ValueError(f"{variable} must start with sqlite:/// or postgresql://, not {url['driver']}.")


def machine(variable: str, text: str) -> str:
    """A name of a machine, as it stands in front of the number of an executor."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", text, re.ASCII):
        raise ValueError(f"{variable} must be up to 64 letters, digits, ., _ and -, not {text[:80]!r}.")
    return text


PARSERS: dict[str, Any] = {
    "STORE_HOST": address,
    "STORE_PORT": whole_number(0, 65535),
    "STORE_THREADS": whole_number(2, 512),
    "STORE_PROCESSES": whole_number(1, 64),
    "STORE_MACHINE": machine,
    # A sign of life comes every half second, and may be late on a busy machine.
    "STORE_LEASE_SECONDS": seconds(2, 3600),
    "STORE_HANG_SECONDS": seconds(0, 3600),
    "STORE_PAYMENT_WINDOW_SECONDS": seconds(0.1, 86_400),
    "STORE_DISPATCH_TICK_SECONDS": seconds(0, 3600),
    "STORE_PRESENTER_PASSWORD": password,
    "STORE_TRUSTED_PROXIES": whole_number(0, 10),
    "STORE_TRUSTED_PROXY_ADDRESSES": networks,
    "STORE_TRUSTED_HOSTS": host_names,
    "STORE_AUDIENCE_HOST": address,
    "STORE_WEBHOOK_SECRET": webhook_secrets,
    "STORE_UNPAID_PER_CLIENT": whole_number(0, 1_000_000),
    "STORE_GREETINGS_PER_CLIENT": whole_number(0, 1_000_000),
    "STORE_GREETING_WINDOW_SECONDS": seconds(1, 86_400),
    "STORE_RECONCILE_SECONDS": seconds(0, 86_400),
    "STORE_KEEP_CHECKPOINTS_DAYS": whole_number(0, 36_500),
    "STORE_CONNECTIONS_PER_CLIENT": whole_number(0, 2000),
    "STORE_GUESTBOOK_URL": web_address,
    "DBOS_DATABASE_URL": database,
    "DBOS_SYSTEM_DATABASE_URL": database,
}
"""How each setting is parsed, by its variable."""
_SERVICE_LINK = re.compile(
    r"STORE_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes and Docker say, unasked, of a service whose name begins with "store"."""


def why_unknown(names: Iterable[str]) -> str:
    """Which of these variables looks like a setting and is none, one sentence; nothing if all are.

    A setting that is misspelled would be ignored, and nobody would know.
    """
    for name in sorted(names):
        if name.startswith("STORE_") and name not in PARSERS and not _SERVICE_LINK.fullmatch(name):
            [nearest] = get_close_matches(name, PARSERS, n=1, cutoff=0)
            return f"{name} is no setting of the store; the nearest one is {nearest}."
    return ""
