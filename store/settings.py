"""The settings; this is the only module that reads the environment."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any, NoReturn

from store import setting_parsers

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where `app.py`, `schema.sql`, `templates/` and `static/` stand."""

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
REFUSED = 2
"""Exit code for a setting that makes no sense."""
LOST = 4
"""Exit code of a server that others count as lost, as after it was frozen for longer than its lease."""


class BadSetting(ValueError):
    """A setting that makes no sense; the message is one sentence that names it."""


def refuse(sentence: str) -> NoReturn:
    """End the process with one sentence that says what to change."""
    print(f"widget store: {sentence}", file=sys.stderr)
    raise SystemExit(REFUSED)


def _setting(variable: str, default: Any, meaning: str) -> Any:
    """A field of `Settings`, with the variable it is read from and its line in docs/operators.md."""
    # Passwords, and database URLs, which may hold one, stay out of tracebacks and logs.
    shown = not variable.endswith(("DATABASE_URL", "PASSWORD", "SECRET"))
    return field(default=default, repr=shown, metadata={"variable": variable, "meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, already checked. Durations are seconds."""

    host: str = _setting("STORE_HOST", "127.0.0.1", "address that `python app.py` listens on")
    port: int = _setting("STORE_PORT", 8000, "port that `python app.py` listens on; 0 picks a free one")
    threads: int = _setting(
        "STORE_THREADS",
        16,
        "threads of a process for pages, and as many again for forms; half as many for JSON requests that "
        "wait for a workflow, and a quarter for polls",
    )
    processes: int = _setting(
        "STORE_PROCESSES", 1, "server processes that `python app.py` keeps up; several on Postgres alone"
    )
    machine: str = _setting(
        "STORE_MACHINE", "", "what this machine is called in the record of servers; without it, its host name"
    )
    lease_seconds: float = _setting(
        "STORE_LEASE_SECONDS",
        5.0,
        "on Postgres, a server process that has given no sign of life for so long counts as lost, and others "
        "take up its orders",
    )
    hang_seconds: float = _setting(
        "STORE_HANG_SECONDS",
        10.0,
        "a server that answers nothing for so long is killed and replaced by `python app.py`; 0 for never",
    )
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
    trusted_proxy_addresses: str = _setting(
        "STORE_TRUSTED_PROXY_ADDRESSES",
        "127.0.0.1, ::1",
        "where those proxies connect from: addresses and networks such as `10.0.0.0/8`, with commas between "
        "them; nobody else's headers are believed",
    )
    trusted_hosts: str = _setting(
        "STORE_TRUSTED_HOSTS",
        "",
        "host names that the shop accepts, with commas between them; `.example.com` is that name and all its "
        "subdomains; loopback names and `STORE_HOST` are always accepted",
    )
    audience_host: str = _setting(
        "STORE_AUDIENCE_HOST",
        "",
        "name or address at which phones reach the shop: the QR code of the stage leads there, and the shop "
        "accepts it; without it, the name by which the browser on the projector has asked for the stage",
    )
    webhook_secret: str = _setting(
        "STORE_WEBHOOK_SECRET",
        "",
        "secret that payment webhooks must be signed with, base64, as in `whsec_…`; where it is set, the "
        "payment page cannot confirm a payment; while it is replaced, the old one and the new one with a "
        "space between",
    )
    unpaid_per_client: int = _setting(
        "STORE_UNPAID_PER_CLIENT",
        50,
        "unpaid orders that one address may hold units with; 0 for no limit",
    )
    greetings_per_client: int = _setting(
        "STORE_GREETINGS_PER_CLIENT", 20, "greetings that one address may have under way; 0 for no limit"
    )
    greeting_window_seconds: float = _setting(
        "STORE_GREETING_WINDOW_SECONDS",
        300.0,
        "how long a greeting asks the online guestbook before it gives up",
    )
    reconcile_seconds: float = _setting(
        "STORE_RECONCILE_SECONDS", 30.0, "time between two looks for stuck orders and greetings; 0 for none"
    )
    keep_checkpoints_days: int = _setting(
        "STORE_KEEP_CHECKPOINTS_DAYS",
        30,
        "days after which the checkpoints of what has ended are removed, as DBOS keeps them for ever; the "
        "orders and the books stay; 0 for never",
    )
    connections_per_client: int = _setting(
        "STORE_CONNECTIONS_PER_CLIENT",
        500,
        "connections that one address may have open, of 2000 in all; 0 for no limit",
    )
    guestbook_url: str = _setting(
        "STORE_GUESTBOOK_URL",
        "",
        "the online guestbook, somebody else's system; without it, `python app.py` runs one of its own",
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
    def from_env(cls, environ: Mapping[str, str] = os.environ, *, is_strict: bool = True) -> Settings:
        """Read and check every setting.

        A server whose parent may be of another version is not strict: names that it does not know may pass.

        Raises:
            BadSetting: on the first value that makes no sense, and on a `STORE_` name that is no setting.
        """
        if is_strict and (why_not := setting_parsers.why_unknown(environ)):
            raise BadSetting(why_not)
        given: dict[str, Any] = {}
        for each in fields(cls):
            variable = each.metadata["variable"]
            if text := environ.get(variable, "").strip():
                try:
                    given[each.name] = setting_parsers.PARSERS[variable](variable, text)
                except ValueError as refusal:
                    raise BadSetting(str(refusal)) from None
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

    def is_trusted_proxy(self, address: IPv4Address | IPv6Address | None) -> bool:
        """Whether a reverse proxy of ours connects from there."""
        return address is not None and any(address in network for network in self._proxy_networks)

    @cached_property
    def _proxy_networks(self) -> list[IPv4Network | IPv6Network]:
        if self.trusted_proxies == 0:
            return []
        return [ip_network(text.strip()) for text in self.trusted_proxy_addresses.split(",")]

    @property
    def is_for_this_machine_only(self) -> bool:
        """Whether nobody but this machine can reach the shop, as far as the settings tell."""
        return self.host in LOOPBACK_HOSTS and self.trusted_proxies == 0

    @property
    def machine_name(self) -> str:
        """What this machine is called in the record of its server processes."""
        return self.machine or platform.node() or "localhost"

    @property
    def listens_on_every_address(self) -> bool:
        """Whether STORE_HOST is a wildcard, so that any address of the machine reaches the shop."""
        return self.host in {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound

    @property
    def guestbook_file(self) -> Path:
        """Where the guestbook that `python app.py` runs has its book: beside the store's file, or in var/."""
        if is_sqlite(self.database_url):
            return _beside(self.database_url, "guestbook")
        return ROOT / "var" / "guestbook.sqlite3"

    @property
    def can_pay_here(self) -> bool:
        """Whether the pages may say that something is paid. With a secret, only its holder may."""
        return not self.webhook_keys

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        """What webhooks may be signed with; none if they need not be signed."""
        return tuple(setting_parsers.webhook_key(secret) for secret in self.webhook_secret.split())

    @property
    def offers_presenter_tools(self) -> bool:
        """Whether the shop can be crashed and restocked from its pages, by those who may."""
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


def sqlite_file(url: str) -> Path:
    """The file of a database URL of SQLite, already checked."""
    return Path(url.removeprefix("sqlite:///"))


def _checkpoints_beside(database_url: str) -> str:
    """The default system database: another file in the same folder, or the same Postgres."""
    if not is_sqlite(database_url):
        return database_url
    return f"sqlite:///{_beside(database_url, 'checkpoints')}"


def _beside(database_url: str, name: str) -> Path:
    """Another file in the folder of a SQLite file, with this name behind its own."""
    store = sqlite_file(database_url)
    return store.with_name(f"{store.stem}-{name}{store.suffix}")


def _file(url: str) -> Path | None:
    return sqlite_file(url).resolve() if is_sqlite(url) else None
