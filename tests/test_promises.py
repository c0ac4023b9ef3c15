"""What the house promises about itself, held against its own source: rooms, words, versions, documents."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from enum import StrEnum
from pathlib import Path

import pytest

from store import money, vocabulary
from store.sealed_rows import SEALED
from store.settings import ROOT, Settings
from store.web.static_files import BUNDLES
from tests.support.selection import durations

pytestmark = pytest.mark.quick

_STORE = ROOT / "store"
_MODULES = sorted(path for path in _STORE.rglob("*.py") if path.name != "__init__.py")
_SOURCES = [ROOT / "app.py", *_MODULES]
_SCHEMA = (ROOT / "schema.sql").read_text(encoding="utf-8")
_TEMPLATES = sorted((ROOT / "templates").iterdir())
_WRITES = re.compile(
    r"\b(INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE|DROP\s+TABLE|ALTER\s+TABLE"
    r"|CREATE\s+TABLE)\b",
    re.IGNORECASE,
)

# design.md, "HTML routes" and "JSON routes", with the fragments below each page.
_ROUTES = {
    "GET /",
    "GET /shelf",
    "GET /recent",
    "POST /buy",
    "GET /pay/<payment_id>",
    "POST /pay/<payment_id>",
    "POST /pay/<payment_id>/more_time",
    "GET /pay/<payment_id>/status",
    "GET /orders/<payment_id>",
    "GET /orders/<payment_id>/progress",
    "GET /orders/<payment_id>/timeline",
    "GET /product",
    "GET /orders",
    "GET /order/<order_id>",
    "POST /checkout/<key>",
    "POST /payment_webhook/<payment_id>/<status>",
    "GET /greeting/",
    "GET /greeting/<name>",
    "GET /guestbook",
    "POST /guestbook",
    "GET /guestbook/books",
    "GET /greetings/<key>",
    "GET /greetings/<key>/progress",
    "POST /restock",
    "POST /crash_application",
    "GET /lanes",
    "POST /lanes",
    "GET /lanes/<key>",
    "GET /lanes/<key>/progress",
    "POST /lanes/<key>/again",
    "GET /stage/orders/<payment_id>/again",
    "GET /stage/orders/<payment_id>/again/now",
    "POST /stage/orders/<payment_id>/again",
    "GET /stage",
    "GET /stage/now",
    "GET /stage/notes",
    "GET /stage/notes/now",
    "POST /stage",
    "POST /stage/every_sale",
    "GET /stage/sign_in",
    "POST /stage/sign_in",
    "POST /stage/sign_out",
    "GET /stage/qr.svg",
    "GET /stage/storm",
    "POST /stage/storm",
    "GET /stage/storm/now",
    "GET /stage/storm/newest.svg",
    "GET /stage/storm/<number>.svg",
    "GET /stage/reset",
    "POST /stage/reset",
    "GET /stage/faults",
    "GET /stage/faults/now",
    "POST /stage/faults/<name>",
    "POST /stage/sell_out",
    "POST /stage/window",
    "GET /stage/crashes",
    "GET /stage/crashes/now",
    "POST /stage/crashes/<name>",
    "GET /presenter",
    "GET /presenter/tools",
    "GET /presenter/server",
    "GET /ledger",
    "GET /ledger/lines",
    "GET /ledger.json",
    "GET /proof",
    "GET /health",
    "GET /static/<filename>",
}
_WRITERS = {
    "workflows.py": {
        "closings", "counters", "greeting_requests", "greetings", "holds", "orders", "payment_notices",
        "payments", "products", "refusals", "stock_movements",
    },
    "stage/naive.py": {"naive_greetings", "naive_orders", "naive_payments", "naive_runs", "naive_troubles"},
    "durable/executors_table.py": {"counters", "executors", "greeting_takeovers", "takeovers"},
    "durable/mendings_table.py": {"lost_checkpoints", "mendings", "removed_checkpoints"},
    "stage/crash_points.py": {"armed_crashes", "fired_crashes"},
    "stage/failed_tries.py": {"failed_tries"},
    "stage/faults.py": {"stage_faults"},
    "stage/payment_window_hold.py": {"window_holds"},
    "stage/run_again.py": {"reruns"},
    "stage/deploy.py": {"server_code"},
    "stage/reset.py": {"last_reset", "reset_requests"},
    "stage/talk_state.py": {"stage"},
    "stage/storm_state.py": {"storms", "storm_sales", "storm_requests"},
    "web/health.py": {"pulses"},
}  # fmt: skip
"""Which module writes which tables. Of `counters`, each has rows of its own: see below."""
_EMPTIES = {"schema.py": {"DELETE FROM", "DELETE FROM x;", "UPDATE schema_version SET version = version"}}
"""Whoever makes the tables may empty them before any workflow runs, and tries whether they can be changed."""
_NO_KEY = {"POST /checkout", "POST /checkout/"}
"""An empty key is refused at the address that it makes."""


def named(path: Path) -> str:
    """How a test about a file is called."""
    return str(path.relative_to(ROOT)).removeprefix("store/")


def dotted(path: Path) -> str:
    """The name that a module is imported by."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def texts(path: Path) -> Iterator[str]:
    """Every string in a module, joined as written, docstrings too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)


# --- layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in _SOURCES if named(path) not in _WRITERS], ids=named)
def test_only_the_writers_write(path: Path) -> None:
    """No other module has a statement that changes the database, nor builds one, but that of a reset."""
    assert {text.strip() for text in texts(path) if _WRITES.search(text)} == _EMPTIES.get(named(path), set())
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    built = {ast.unparse(node) for node in attributes} & {"sa.insert", "sa.update", "sa.delete"}
    assert not built


@pytest.mark.parametrize("module", _WRITERS)
def test_a_writer_writes_its_own_tables(module: str) -> None:
    """Each table has one module that writes it, and this list names every one."""
    written = set()
    for text in texts(_STORE / module):
        written |= set(
            re.findall(r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(?:dbos\.|x(?=pulses))?([a-z_]+)", text)
        )
    if module == "workflows.py":  # whose closing names its tables by a list, which `texts` shows as an x
        assert "x" in written
        written = written - {"x"} | {table.name for table in SEALED}
    assert written == _WRITERS[module]


def test_every_table_has_one_writer() -> None:
    """Counters are shared by name: the number of an order is not the number of a server."""
    tables = set(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", _SCHEMA))
    owned = [table for written in _WRITERS.values() for table in written - {"counters"}]
    assert len(owned) == len(set(owned))
    assert tables - set(owned) - {"counters"} == {"schema_version"}
    names = {
        module: {
            name for text in texts(_STORE / module) for name in re.findall(r"WHERE counter = '(\w+)'", text)
        }
        for module in _WRITERS
    }
    assert names["workflows.py"] & names["durable/executors_table.py"] == set()
    all_of_them = {"orders", "greetings", "closings", "executors"}
    assert names["workflows.py"] | names["durable/executors_table.py"] == all_of_them


@pytest.mark.parametrize("path", [path for path in _SOURCES if named(path) != "settings.py"], ids=named)
def test_only_settings_reads_the_environment(path: Path) -> None:
    """Settings arrive as an argument everywhere else."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        # What WSGI says of a request is called environ, too, and is no environment.
        if isinstance(node, ast.Attribute) and ast.unparse(node) != "request.environ":
            names.add(node.attr)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
    assert names.isdisjoint({"environ", "environb", "getenv", "getenvb", "load_dotenv"})


@pytest.mark.parametrize("path", _MODULES, ids=named)
def test_a_module_is_short_and_says_what_it_is_for(path: Path) -> None:
    """In one sentence. What it may import stands in pyproject.toml, and `make check` holds it to that."""
    text = path.read_text(encoding="utf-8")
    first, *_ = (ast.get_docstring(ast.parse(text)) or "").splitlines()
    assert first.endswith(".")
    assert len(text.splitlines()) <= (600 if path.name == "workflows.py" else 300)


_IMPORT_AND_WATCH = """
import json, os, sys
seen = []
def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if path != os.devnull and (set(str(mode or "")) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR)):
            seen.append(f"open {path}")
    elif event.startswith(("socket.", "sqlite3.")) or event in {"os.mkdir", "os.remove", "os.rename"}:
        seen.append(event)
sys.addaudithook(watch)
import app, importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
import threading
print(json.dumps([seen, threading.active_count()]))
"""


def test_an_import_touches_nothing() -> None:
    """No file is written, no database opened, no socket made, no thread started."""
    watched = subprocess.run(
        [sys.executable, "-B", "-c", _IMPORT_AND_WATCH, *map(dotted, _MODULES)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(watched.stdout) == [[], 1]


def test_the_routes_are_those_of_the_design(tmp_path: Path) -> None:
    """No more and no fewer, as the application itself lists them."""
    listed = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", "routes"],
        cwd=ROOT,
        env={**os.environ, "DBOS_DATABASE_URL": f"sqlite:///{tmp_path}/store.sqlite3"},
        capture_output=True,
        text=True,
        check=True,
    )
    table = re.sub(r"<\w+:", "<", listed.stdout)
    routes = re.findall(r"^\S+ +([A-Z, ]+?) +(/\S*)", table, re.MULTILINE)
    assert {f"{methods} {rule}" for methods, rule in routes} - _NO_KEY == _ROUTES


# --- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("orders", "status", vocabulary.Status),
        ("orders", "reason", vocabulary.Reason),
        ("stock_movements", "kind", vocabulary.Movement),
        ("payments", "kind", vocabulary.Payment),
        ("payment_notices", "outcome", vocabulary.Outcome),
    ],
)
def test_schema_and_vocabulary_use_the_same_words(table: str, column: str, words: type[StrEnum]) -> None:
    """Each word that the program has, the table takes, and no other."""
    definition = re.search(rf"CREATE TABLE IF NOT EXISTS {table} \((.*?)\n\);", _SCHEMA, re.DOTALL)
    assert definition
    check = re.search(
        rf"^\s*{column}\s+TEXT[^\n]*CHECK \({column} IN \(([^)]*)\)\)", definition[1], re.MULTILINE
    )
    assert check
    assert set(re.findall(r"'(\w+)'", check[1])) == set(words)


def test_schema_and_vocabulary_use_the_same_numbers() -> None:
    """The longest key, the last tick, the full shelf, the product that is sold."""
    assert f"length(payment_id) BETWEEN 1 AND {vocabulary.KEY_MAX_LENGTH}" in _SCHEMA
    assert f"progress BETWEEN 0 AND {vocabulary.DISPATCH_TICKS}" in _SCHEMA
    assert f"(status = 'dispatched') = (progress = {vocabulary.DISPATCH_TICKS})" in _SCHEMA
    product = re.search(
        r"INSERT INTO products[^;]*VALUES \(\s*(\d+),.*?(\d+),\s*(\d+)\s*\) ON CONFLICT", _SCHEMA, re.DOTALL
    )
    assert product
    assert [int(number) for number in product.groups()] == [
        vocabulary.PRODUCT_ID,
        9999,
        vocabulary.SHELF_SIZE,
    ]
    opening = f"('restock', 'opening', {vocabulary.PRODUCT_ID}, {vocabulary.SHELF_SIZE}, 0)"
    assert opening in _SCHEMA


def test_the_index_of_live_orders_names_the_live_statuses() -> None:
    """In the schema and in the query that walks it."""
    live = "status IN ({})".format(", ".join(f"'{status}'" for status in vocabulary.LIVE))
    assert f"ON orders (order_id) WHERE {live}" in _SCHEMA
    assert any(live in text for text in texts(_STORE / "reads" / "orders.py"))


def test_every_status_has_a_number_on_the_wire() -> None:
    """The four of the contract, and a price is shown as it is charged."""
    assert {status.value: number for status, number in vocabulary.WIRE_STATUS.items()} == {
        "cancelled": -1, "pending": 0, "dispatched": 1, "paid": 2,
    }  # fmt: skip
    assert [money.price(cents) for cents in (0, 5, 9999, 123_456_789)] == [
        "$0.00",
        "$0.05",
        "$99.99",
        "$1,234,567.89",
    ]


# --- documents and what is vendored -----------------------------------------------------------


def test_the_operators_page_lists_every_setting() -> None:
    """Variable, default and meaning, in the order of `Settings`, and nothing else."""
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:STORE|DBOS)_\w+)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)

    def shown(default: object) -> str:
        text = f"{default:g}" if isinstance(default, float) else str(default).replace(f"{ROOT}/", "")
        return f"`{text}`" if text else ""

    assert [(variable, default.strip(), meaning) for variable, default, meaning in rows] == [
        (each.metadata["variable"], shown(each.default), each.metadata["meaning"])
        for each in fields(Settings)
    ]


def test_what_is_vendored_says_its_version_everywhere() -> None:
    """In its name, inside it, and where the page asks for it; and its licence lies beside it."""
    vendor = ROOT / "static" / "vendor"
    scripts = sorted(path.name for path in vendor.glob("*.js"))
    [htmx] = [name for name in scripts if name.startswith("htmx-")]
    inside = re.search(r'version="([\d.]+)"', (vendor / htmx).read_text(encoding="utf-8"))
    assert inside
    version = inside[1]
    assert scripts == [f"htmx-{version}.min.js", f"hx-ptag-{version}.min.js"]
    for bundle in ("shop.js", "projector.js"):
        sent = [name for name in BUNDLES[bundle] if name.startswith("vendor/")]
        assert sent == [f"vendor/{script}" for script in scripts]
    assert "Permission to use, copy, modify" in (vendor / "LICENSE-htmx.txt").read_text(encoding="utf-8")


def test_every_script_and_stylesheet_is_sent_in_a_bundle() -> None:
    """Under a name that is no file's: pages ask for bundles, and whoever works on the shop for sources."""
    static = ROOT / "static"
    sources = {str(path.relative_to(static)) for path in static.rglob("*") if path.suffix in {".css", ".js"}}
    assert {source for bundle in BUNDLES.values() for source in bundle} == sources
    assert not sources & set(BUNDLES)
    asked_for = "".join(path.read_text(encoding="utf-8") for path in _TEMPLATES)
    assert set(re.findall(r"static_url\('([^']+\.(?:css|js))'\)", asked_for)) == set(BUNDLES)


@pytest.mark.parametrize("path", _TEMPLATES, ids=named)
def test_a_template_has_no_code_or_style_inside(path: Path) -> None:
    """So that a strict content security policy can hold, and nothing is let through unescaped."""
    text = re.sub(r"\{#.*?#\}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert (
        re.findall(r"<style|\sstyle=|hx-on|\son\w+=|javascript:|\bjs:|hx-vals|\|\s*safe|autoescape", text)
        == []
    )
    assert [tag for tag in re.findall(r"<script[^>]*>", text) if " src=" not in tag] == []
    assert text.strip()


def test_the_scripts_of_ours_are_small() -> None:
    """Whatever JavaScript the shop adds to htmx is read in a minute, and it is these ten."""
    scripts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "static").glob("*.js")}
    assert set(scripts) == {
        "contact.js",
        "outage.js",
        "pressed_button.js",
        "servers.js",
        "countdown.js",
        "local_times.js",
        "timeline.js",
        "stage.js",
        "scenes.js",
        "fold.js",
    }
    for script in scripts.values():
        assert len(script.splitlines()) < 100


@pytest.mark.parametrize("path", _TEMPLATES, ids=named)
def test_a_template_begins_by_saying_what_it_is(path: Path) -> None:
    """A fragment, `_*.html`, says whose it is; a page is what a route renders."""
    assert path.read_text(encoding="utf-8").startswith("{# ")
    sources = "".join(source.read_text(encoding="utf-8") for source in (*_SOURCES, *_TEMPLATES))
    assert f'"{path.name}"' in sources, "nobody renders or includes it"


def test_what_tests_share_is_in_support() -> None:
    """No test imports another one: whoever changes it would change both."""
    for path in (ROOT / "tests").rglob("*.py"):
        found = re.findall(
            r"^from tests\.(?:\w+\.)?test_\w+ import", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert not found, path


def test_every_test_whose_duration_is_recorded_is_there() -> None:
    """One that has another name now would count as short."""
    for name in durations():
        path, _, function = name.partition("::")
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), name
