"""Owns the settings, and is the only reader of the environment. Imports nothing of ours."""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where `app.py`, `schema.sql`, `templates/` and `static/` stand."""

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
_SHORTEST_PASSWORD = 8
_SHORTEST_WEBHOOK_KEY, _LONGEST_WEBHOOK_KEY = 24, 64
"""Bytes, as Standard Webhooks has them."""
REFUSED = 2
"""Exit code for a setting that makes no sense."""


class BadSetting(ValueError):
    """A setting that makes no sense; the message is one sentence that names it."""


def refuse(sentence: str) -> NoReturn:
    """End the process with one sentence that says what to change."""
    print(f"widget store: {sentence}", file=sys.stderr)
    raise SystemExit(REFUSED)


def _setting(variable: str, default: Any, meaning: str) -> Any:
    """A field of `Settings`, with the variable it is read from and its line in the README."""
    # Passwords, and database URLs, which may hold one, stay out of tracebacks and logs.
    shown = not variable.endswith(("DATABASE_URL", "PASSWORD", "SECRET"))
    return field(default=default, repr=shown, metadata={"variable": variable, "meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, already checked. Durations are seconds."""

    host: str = _setting("STORE_HOST", "127.0.0.1", "address that `python app.py` listens on")
    port: int = _setting("STORE_PORT", 8000, "port that `python app.py` listens on; 0 picks a free one")
    threads: int = _setting("STORE_THREADS", 16, "requests answered at the same time by one process")
    payment_window_seconds: float = _setting(
        "STORE_PAYMENT_WINDOW_SECONDS", 120.0, "how long an unpaid order holds its unit"
    )
    dispatch_tick_seconds: float = _setting(
        "STORE_DISPATCH_TICK_SECONDS", 1.0, "time between two of the ten steps of a dispatch"
    )
    presenter_password: str = _setting(
        "STORE_PRESENTER_PASSWORD",
        "",
        "opens the presenter's tools, at `/presenter`, on any address; without it, on loopback only",
    )
    trusted_proxies: int = _setting(
        "STORE_TRUSTED_PROXIES", 0, "reverse proxies in front whose `X-Forwarded-*` headers are believed"
    )
    trusted_hosts: str = _setting(
        "STORE_TRUSTED_HOSTS",
        "",
        "names that the shop goes by, with commas between them, `.example.com` for a name and all below it; "
        "loopback and `STORE_HOST` always are",
    )
    webhook_secret: str = _setting(
        "STORE_WEBHOOK_SECRET",
        "",
        "what payment webhooks must be signed with: base64, as in `whsec_…`; two with a space between "
        "while one replaces the other",
    )
    unpaid_per_client: int = _setting(
        "STORE_UNPAID_PER_CLIENT",
        50,
        "unpaid orders that one address may hold units with; 0 for no limit",
    )
    database_url: str = _setting(
        "DBOS_DATABASE_URL",
        f"sqlite:///{ROOT / 'var' / 'store.sqlite3'}",
        "the store's tables: `sqlite:///file` or `postgresql://user:password@host/name`",
    )
    system_database_url: str = _setting(
        "DBOS_SYSTEM_DATABASE_URL",
        "",
        "the checkpoints; beside the store's SQLite file, or in the same Postgres database",
    )

    def __post_init__(self) -> None:
        if not self.system_database_url:
            object.__setattr__(self, "system_database_url", _checkpoints_beside(self.database_url))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read and check every setting.

        Raises:
            BadSetting: on the first value that makes no sense.
        """
        given: dict[str, Any] = {}
        for each in fields(cls):
            variable = each.metadata["variable"]
            if text := environ.get(variable, "").strip():
                given[each.name] = _READERS[variable](variable, text)
        settings = cls(**given)
        if is_sqlite(settings.database_url) and _file(settings.database_url) == _file(
            settings.system_database_url
        ):
            raise BadSetting(
                "DBOS_SYSTEM_DATABASE_URL must name another SQLite file than DBOS_DATABASE_URL, "
                "because each keeps one writer; leave it out to have one made beside the store's."
            )
        return settings

    def environment(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """`environ`, changed so that `from_env` reads these very settings from it."""
        told = {each.metadata["variable"]: str(getattr(self, each.name)) for each in fields(self)}
        return {**environ, **told}

    @property
    def is_for_this_machine_only(self) -> bool:
        """Whether nobody but this machine can reach the shop, as far as the settings tell."""
        return self.host in LOOPBACK_HOSTS and self.trusted_proxies == 0

    @property
    def listens_on_every_address(self) -> bool:
        """Whether STORE_HOST is a wildcard, so that any address of the machine reaches the shop."""
        return self.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        """What webhooks may be signed with; none if they need not be signed."""
        return tuple(_webhook_key(secret) for secret in self.webhook_secret.split())

    @property
    def offers_presenter_tools(self) -> bool:
        """Whether the shop can be crashed and restocked from its pages, by whoever may."""
        return bool(self.presenter_password) or self.is_for_this_machine_only


@dataclass(frozen=True)
class Process:
    """What the environment says of the process itself, for deciding when to launch DBOS."""

    under_flask_command: bool
    """Started by the `flask` command, of which only some subcommands serve."""
    reloads: bool
    """`flask run` with debug on: a parent watches files, and a child serves."""
    reloader_child: bool
    """The child of `flask run --debug`, the one that serves."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Process:
        """Read the variables that Flask and Werkzeug set for the processes they start."""
        return cls(
            under_flask_command=environ.get("FLASK_RUN_FROM_CLI") == "true",
            reloads=environ.get("FLASK_DEBUG", "").lower() in {"1", "true", "yes"},
            reloader_child=environ.get("WERKZEUG_RUN_MAIN") == "true",
        )


def is_sqlite(url: str) -> bool:
    """Whether a database URL, already checked, is a SQLite file rather than Postgres."""
    return url.startswith("sqlite:")


def _checkpoints_beside(database_url: str) -> str:
    """The default system database: another file in the same folder, or the same Postgres."""
    if not is_sqlite(database_url):
        return database_url
    store = Path(make_url(database_url).database or "")
    return f"sqlite:///{store.with_name(f'{store.stem}-checkpoints{store.suffix}')}"


def _file(url: str) -> Path | None:
    return Path(make_url(url).database or "").resolve() if is_sqlite(url) else None


def _address(variable: str, text: str) -> str:
    try:
        text.encode("idna")
    except UnicodeError:
        raise BadSetting(f"{variable} must be a host name or an address such as 127.0.0.1.") from None
    if any(ch.isspace() or ch in "/?#" for ch in text):
        raise BadSetting(f"{variable} must be a host name or an address such as 127.0.0.1, not {text!r}.")
    return text


def _whole_number(low: int, high: int) -> Any:
    def read(variable: str, text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise BadSetting(f"{variable} must be a whole number from {low} to {high}, not {text[:40]!r}.")
        return int(text)

    return read


def _seconds(low: float, high: float) -> Any:
    def read(variable: str, text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = float("nan")
        if not (isfinite(seconds) and low <= seconds <= high):
            raise BadSetting(
                f"{variable} must be a number of seconds from {low:g} to {high:g}, not {text!r}."
            )
        return seconds

    return read


def _password(variable: str, text: str) -> str:
    if len(text) < _SHORTEST_PASSWORD:
        raise BadSetting(
            f"{variable} must have at least {_SHORTEST_PASSWORD} characters, "
            "because whoever can reach the shop may try."
        )
    return text


def _webhook_key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


def _webhook_secrets(variable: str, text: str) -> str:
    for secret in text.split():
        try:
            size = len(_webhook_key(secret))
        except ValueError:
            size = 0
        if not _SHORTEST_WEBHOOK_KEY <= size <= _LONGEST_WEBHOOK_KEY:
            raise BadSetting(
                f"{variable} must be {_SHORTEST_WEBHOOK_KEY} to {_LONGEST_WEBHOOK_KEY} random bytes "
                "in base64, with or without whsec_ before them."
            )
    return text


def _host_names(variable: str, text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not re.fullmatch(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|[0-9A-Fa-f:.]+", name, re.ASCII):
            raise BadSetting(
                f"{variable} must be host names with commas between them, such as widgets.example, "
                f"without ports, not {name[:80]!r}."
            )
    return ",".join(names)


def _database(variable: str, text: str) -> str:
    # The text may hold a password, so no message repeats it.
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: of the port
        raise BadSetting(
            f"{variable} must be a database URL such as sqlite:///var/store.sqlite3 "
            "or postgresql://user:password@localhost:5432/widgets."
        ) from None
    if url.drivername in {"sqlite", "sqlite+pysqlite"}:
        if not url.database or url.database == ":memory:":
            raise BadSetting(
                f"{variable} must name a file, because a shop in memory would forget its orders."
            )
        return f"sqlite:///{Path(url.database).absolute()}"
    if url.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        if "@" in (url.host or ""):
            raise BadSetting(f"{variable} must have an @ in its user name or password written as %40.")
        if not url.database:
            raise BadSetting(f"{variable} must end in the name of a Postgres database, as in …/widgets.")
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    raise BadSetting(f"{variable} must start with sqlite:/// or postgresql://, not {url.drivername}.")


_READERS: dict[str, Any] = {
    "STORE_HOST": _address,
    "STORE_PORT": _whole_number(0, 65535),
    "STORE_THREADS": _whole_number(2, 512),
    "STORE_PAYMENT_WINDOW_SECONDS": _seconds(0.1, 86_400),
    "STORE_DISPATCH_TICK_SECONDS": _seconds(0, 3600),
    "STORE_PRESENTER_PASSWORD": _password,
    "STORE_TRUSTED_PROXIES": _whole_number(0, 10),
    "STORE_TRUSTED_HOSTS": _host_names,
    "STORE_WEBHOOK_SECRET": _webhook_secrets,
    "STORE_UNPAID_PER_CLIENT": _whole_number(0, 1_000_000),
    "DBOS_DATABASE_URL": _database,
    "DBOS_SYSTEM_DATABASE_URL": _database,
}
