"""The settings: a default for each, and one clear sentence for a value that makes no sense."""

from __future__ import annotations

import base64
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from store.settings import ROOT, BadSetting, Settings
from tests.support.refusal import is_one_sentence, refusal

pytestmark = pytest.mark.quick

_KEY = base64.b64encode(b"twenty-four bytes of key").decode()
_OTHER_KEY = base64.b64encode(b"another twenty-four bytes").decode()
_GOOD: list[tuple[str, str, Any]] = [
    ("STORE_HOST", "localhost", "localhost"),
    ("STORE_HOST", "::1", "::1"),
    ("STORE_HOST", "0.0.0.0", "0.0.0.0"),  # noqa: S104 - read, not listened on
    ("STORE_PORT", "0", 0),
    ("STORE_PORT", " 65535 ", 65535),
    ("STORE_THREADS", "2", 2),
    ("STORE_PROCESSES", "4", 4),
    ("STORE_MACHINE", "shop-1.example", "shop-1.example"),
    ("STORE_LEASE_SECONDS", "2", 2.0),
    ("STORE_HANG_SECONDS", "0", 0.0),
    ("STORE_PAYMENT_WINDOW_SECONDS", "0.5", 0.5),
    ("STORE_PAYMENT_WINDOW_SECONDS", "86400", 86400.0),
    ("STORE_DISPATCH_TICK_SECONDS", "0", 0.0),
    ("STORE_PRESENTER_PASSWORD", "correct horse: battery", "correct horse: battery"),
    ("STORE_TRUSTED_PROXIES", "1", 1),
    ("STORE_TRUSTED_PROXY_ADDRESSES", "192.0.2.7", "192.0.2.7"),
    ("STORE_TRUSTED_PROXY_ADDRESSES", "10.0.0.0/8 , 2001:db8::/32,::1", "10.0.0.0/8,2001:db8::/32,::1"),
    ("STORE_TRUSTED_HOSTS", "widgets.example", "widgets.example"),
    ("STORE_TRUSTED_HOSTS", "a.example, .b.example,192.0.2.7,::1", "a.example,.b.example,192.0.2.7,::1"),
    ("STORE_AUDIENCE_HOST", "laptop.local", "laptop.local"),
    ("STORE_WEBHOOK_SECRET", f"whsec_{_KEY}", f"whsec_{_KEY}"),
    ("STORE_WEBHOOK_SECRET", f"{_KEY} whsec_{_OTHER_KEY}", f"{_KEY} whsec_{_OTHER_KEY}"),
    ("STORE_GUESTBOOK_URL", "http://127.0.0.1:8001/", "http://127.0.0.1:8001"),
    ("STORE_GUESTBOOK_URL", "https://books.example/guests", "https://books.example/guests"),
    ("STORE_UNPAID_PER_CLIENT", "0", 0),
    ("STORE_UNPAID_PER_CLIENT", "1000", 1000),
    ("STORE_GREETINGS_PER_CLIENT", "0", 0),
    ("STORE_GREETING_WINDOW_SECONDS", "1.5", 1.5),
    ("STORE_RECONCILE_SECONDS", "0", 0.0),
    ("STORE_KEEP_CHECKPOINTS_DAYS", "0", 0),
    ("STORE_KEEP_CHECKPOINTS_DAYS", "7", 7),
    ("STORE_CONNECTIONS_PER_CLIENT", "0", 0),
    ("STORE_CONNECTIONS_PER_CLIENT", "2000", 2000),
    ("DBOS_DATABASE_URL", "sqlite:////srv/shop.db", "sqlite:////srv/shop.db"),
    ("DBOS_DATABASE_URL", "sqlite:///shop.db", f"sqlite:///{Path.cwd() / 'shop.db'}"),
    ("DBOS_DATABASE_URL", "postgresql://u:p@h:5433/widgets", "postgresql+psycopg://u:p@h:5433/widgets"),
    ("DBOS_DATABASE_URL", "postgres://u:p@h/widgets", "postgresql+psycopg://u:p@h/widgets"),
    (
        "DBOS_DATABASE_URL",
        "postgresql+psycopg://u:p%40ss@h/widgets",
        "postgresql+psycopg://u:p%40ss@h/widgets",
    ),
    ("DBOS_SYSTEM_DATABASE_URL", "sqlite:////srv/memory.db", "sqlite:////srv/memory.db"),
]

_BAD: list[tuple[str, str]] = [
    *[("STORE_HOST", text) for text in ("two words", "http://127.0.0.1", "127.0.0.1/8", "a?b")],
    *[("STORE_AUDIENCE_HOST", text) for text in ("two words", "http://192.0.2.7")],
    *[("STORE_PORT", text) for text in ("web", "-1", "65536", "80.5", "1e3", "0x50", "٣", "9" * 5000)],
    *[("STORE_THREADS", text) for text in ("many", "0", "1", "513", "-4")],
    *[("STORE_PROCESSES", text) for text in ("several", "0", "65", "1.5")],
    *[("STORE_MACHINE", text) for text in ("two words", "a/b", "-a", "a" * 65, "ä")],
    *[("STORE_LEASE_SECONDS", text) for text in ("long", "0.5", "1.9", "3601", "nan")],
    *[("STORE_HANG_SECONDS", text) for text in ("never", "-1", "nan", "3601")],
    *[("STORE_PAYMENT_WINDOW_SECONDS", text) for text in ("soon", "0", "-1", "nan", "inf", "86401", "2m")],
    *[("STORE_DISPATCH_TICK_SECONDS", text) for text in ("slow", "-0.1", "nan", "-inf", "3601")],
    *[("STORE_PRESENTER_PASSWORD", text) for text in ("x", "hunter2")],
    *[("STORE_GREETINGS_PER_CLIENT", text) for text in ("few", "-1", "1000001")],
    *[("STORE_RECONCILE_SECONDS", text) for text in ("often", "-1", "86401")],
    *[("STORE_KEEP_CHECKPOINTS_DAYS", text) for text in ("long", "-1", "0.5", "36501")],
    *[("STORE_GREETING_WINDOW_SECONDS", text) for text in ("soon", "0.9", "86401", "nan")],
    *[("STORE_TRUSTED_PROXIES", text) for text in ("yes", "-1", "11", "*")],
    *[
        ("STORE_TRUSTED_PROXY_ADDRESSES", text)
        for text in ("*", "nginx", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.1,", ",", "1.1.1.1 1.1.1.2", "[::1]")
    ],
    *[
        ("STORE_TRUSTED_HOSTS", text)
        for text in ("*", "a.example:80", "http://a.example", "two words", "a.example,", ",", "..a", "приве́т")
    ],
    *[
        ("STORE_WEBHOOK_SECRET", text)
        for text in ("hunter2", "whsec_", "aHVudGVyMg==", f"{_KEY}hunter2", f"{_KEY} hunter2", "x" * 200)
    ],
    *[
        ("STORE_GUESTBOOK_URL", text)
        for text in ("here", "127.0.0.1:8001", "ftp://a.example", "http://", "http://a:b", "http://u:hunter2@h/")
    ],
    *[("STORE_CONNECTIONS_PER_CLIENT", text) for text in ("many", "-1", "5.5", "2001")],
    *[("STORE_UNPAID_PER_CLIENT", text) for text in ("some", "-1", "1.5", "1000001")],
    *[
        (variable, text)
        for variable in ("DBOS_DATABASE_URL", "DBOS_SYSTEM_DATABASE_URL")
        for text in (
            "widgets", "/var/store.sqlite3", "sqlite://", "sqlite:///:memory:", "mysql://u:hunter2@h/widgets",
            "postgresql+asyncpg://u:hunter2@h/widgets", "postgresql://u:hunter2@h", "postgresql://u:hunter2@h/",
            "postgresql://u:hunter2@h:five/widgets", "postgresql://u:hunter2@h:1:2/widgets",
            "postgresql://u:hunter2@[::1/widgets", "postgresql://u:half@hunter2@h/widgets",
        )
    ],
]  # fmt: skip


def variables() -> dict[str, str]:
    """The variables of `Settings`, with the name of the field of each."""
    return {field.metadata["variable"]: field.name for field in fields(Settings)}


def test_a_shop_without_settings_runs_on_this_machine_alone() -> None:
    """Nothing to set: loopback, two minutes to pay, ticks of a second, SQLite files under var/."""
    found = Settings.from_env({})
    assert found == Settings()
    assert (found.host, found.port) == ("127.0.0.1", 8000)
    assert (found.payment_window_seconds, found.dispatch_tick_seconds) == (120, 1)
    assert found.trusted_proxies == 0
    assert found.offers_presenter_tools
    assert found.database_url == f"sqlite:///{ROOT}/var/store.sqlite3"
    assert found.system_database_url == f"sqlite:///{ROOT}/var/store-checkpoints.sqlite3"


@pytest.mark.parametrize("variable", variables())
def test_a_variable_that_is_empty_is_not_set(variable: str) -> None:
    """As a compose file leaves it."""
    assert Settings.from_env({variable: " "}) == Settings()


@pytest.mark.parametrize(("variable", "text", "value"), _GOOD)
def test_a_good_value_is_taken(variable: str, text: str, value: object) -> None:
    """And no other setting moves with it, but for the checkpoints, which stay beside the store."""
    found = Settings.from_env({variable: text})
    assert getattr(found, variables()[variable]) == value
    follows = {"system_database_url"} if variable == "DBOS_DATABASE_URL" else set()
    for name in set(variables().values()) - {variables()[variable]} - follows:
        assert getattr(found, name) == getattr(Settings(), name)


def test_every_variable_is_tried_here() -> None:
    """A new setting comes with a good value and a bad one."""
    assert {variable for variable, _, _ in _GOOD} == {variable for variable, _ in _BAD} == set(variables())


@pytest.mark.parametrize(("variable", "text"), _BAD, ids=lambda text: text[:40])
def test_a_bad_value_is_refused_in_one_sentence(variable: str, text: str) -> None:
    """It begins with the name of the variable, and never tells a password."""
    with pytest.raises(BadSetting) as refused:
        Settings.from_env({variable: text})
    sentence = str(refused.value)
    assert sentence.startswith(f"{variable} ")
    assert is_one_sentence(sentence), sentence
    assert "hunter2" not in sentence
    assert len(sentence) < 250, "a sentence that can be read"


@pytest.mark.parametrize(
    ("store", "checkpoints"),
    [
        ("sqlite:////srv/shop.db", "sqlite:////srv/shop-checkpoints.db"),
        ("sqlite:////srv/shop", "sqlite:////srv/shop-checkpoints"),
        ("postgresql://u:p@h/widgets", "postgresql+psycopg://u:p@h/widgets"),
    ],
)
def test_checkpoints_are_kept_beside_the_store(store: str, checkpoints: str) -> None:
    """A second SQLite file, or the same Postgres database."""
    assert Settings.from_env({"DBOS_DATABASE_URL": store}).system_database_url == checkpoints


@pytest.mark.parametrize(
    "same", ["sqlite:////srv/shop.db", "sqlite:////srv/x/../shop.db", "sqlite:////srv//shop.db"]
)
def test_two_writers_do_not_share_one_sqlite_file(same: str) -> None:
    """However the file is spelt."""
    with pytest.raises(BadSetting, match="DBOS_SYSTEM_DATABASE_URL must name another SQLite file"):
        Settings.from_env({"DBOS_DATABASE_URL": "sqlite:////srv/shop.db", "DBOS_SYSTEM_DATABASE_URL": same})


@pytest.mark.parametrize(
    ("given", "offered"),
    [
        ({"STORE_HOST": "127.0.0.1"}, True),
        ({"STORE_HOST": "localhost"}, True),
        ({"STORE_HOST": "::1"}, True),
        ({"STORE_HOST": "0.0.0.0"}, False),  # noqa: S104 - read, not listened on
        ({"STORE_HOST": "192.0.2.1"}, False),
        ({"STORE_TRUSTED_PROXIES": "1"}, False),
        ({"STORE_HOST": "0.0.0.0", "STORE_PRESENTER_PASSWORD": "long enough"}, True),  # noqa: S104 - as above
        ({"STORE_TRUSTED_PROXIES": "1", "STORE_PRESENTER_PASSWORD": "long enough"}, True),
    ],
)
def test_presenter_tools_are_for_this_machine_or_behind_a_password(
    given: dict[str, str], offered: bool
) -> None:
    """Whoever can be reached by others does not offer them to everybody."""
    assert Settings.from_env(given).offers_presenter_tools is offered


def test_no_password_is_ever_shown() -> None:
    """Not when the settings are printed, as a traceback or a debugger does."""
    url = "postgresql://widgets:hunter2@127.0.0.1/widgets"
    found = Settings.from_env(
        {
            "DBOS_DATABASE_URL": url,
            "DBOS_SYSTEM_DATABASE_URL": url,
            "STORE_PRESENTER_PASSWORD": "hunter2hunter2",
        }
    )
    assert "hunter2" in found.database_url
    assert "hunter2" not in f"{found!r} {found}"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("STORE_PORT", "web"),
        ("STORE_HOST", "nonesuch.invalid"),
        ("STORE_HOST", "x" * 70),
        ("STORE_HOST", "192.0.2.1"),  # an address of documentation, which is no machine's own
        ("DBOS_SYSTEM_DATABASE_URL", "postgresql://u:hunter2@h:five/widgets"),
    ],
    ids=lambda text: text[:40],
)
def test_the_shop_refuses_before_anything_starts(tmp_path: Path, variable: str, text: str) -> None:
    """One sentence, exit code 2, and no database file was made."""
    sentence = refusal(**{"DBOS_DATABASE_URL": f"sqlite:///{tmp_path}/var/store.sqlite3", variable: text})
    assert variable in sentence
    assert "hunter2" not in sentence
    assert not list(tmp_path.iterdir())


def test_flask_refuses_as_the_shop_does(tmp_path: Path) -> None:
    """`flask run` and `waitress-serve` read the same settings, and say the same."""
    url = f"sqlite:///{tmp_path}/var/store.sqlite3"
    sentence = refusal("-m", "flask", "run", "--port", "0", DBOS_DATABASE_URL=url, STORE_THREADS="none")
    assert sentence.startswith("STORE_THREADS ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "STORE_SERVICE_HOST",
        "STORE_SERVICE_PORT_HTTP",
        "STORE_POSTGRES_PORT",
        "STORE_DB_PORT_5432_TCP_ADDR",
        "STORE_DB_PORT_5432_TCP",
    ],
)
def test_what_a_container_is_told_of_its_neighbours_is_no_setting(name: str) -> None:
    """Kubernetes names the services of a namespace to everybody in it."""
    assert Settings.from_env({name: "tcp://10.0.0.1:5432"}) == Settings()


def test_a_server_may_be_older_than_its_parent() -> None:
    """It is handed every setting that the parent knows."""
    assert Settings.from_env({"STORE_OF_THE_FUTURE": "1"}, is_strict=False) == Settings()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("STORE_TREADS", "STORE_TREADS is no setting of the store; the nearest one is STORE_THREADS."),
        ("STORE_PAYMENT_WINDOW", "the nearest one is STORE_PAYMENT_WINDOW_SECONDS."),
        ("STORE_XYZ", "STORE_XYZ is no setting of the store; the nearest one is "),
    ],
)
def test_a_name_that_is_no_setting_is_refused(name: str, says: str) -> None:
    """With the nearest one, even where it is empty: a misspelled one would be ignored in silence."""
    for text in ("8", ""):
        with pytest.raises(BadSetting, match=re.escape(says)) as refused:
            Settings.from_env({name: text})
        assert is_one_sentence(str(refused.value))
