"""Which tests `make test` runs, which `make torture`, and in what order. Both together run every case.

`make test` is for everybody who changes something, so it leaves out most of what takes long:

- of a module that runs on both databases, one of them;
- of a test that is `sampled`, all but a few of its cases;
- of the tests of a module that take longer than `_LONG_SECONDS`, all but those that are `first_of_all`, or
  all but the shortest where none is.

How long each took is in `durations.json`, which `python -m tests.support.selection` writes from the results
of a run. A test that is not there yet is not long. Whoever names a module or a test gets the long ones, too.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

_DATABASES = ("sqlite", "postgres")
_DURATIONS = Path(__file__).parents[1] / "durations.json"
_RECORDED_SECONDS = 1.0
_LONG_SECONDS = 3.0
"""Of all the cases together that `make test` would run, on two cores: about two starts of a server."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `make torture` says."""
    parser.addoption(
        "--torture",
        action="store_true",
        help="only what `make test` leaves out, and what has a longer form, in that form",
    )
    parser.addoption("--long", action="store_true", help="with the tests that take long; so is what is named")


def pytest_configure(config: pytest.Config) -> None:
    """Take the long ones of what was named, too. The other processes get the options of the first."""
    if not hasattr(config, "workerinput") and config.args_source is config.ArgsSource.ARGS:
        config.option.long = True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Leave out what is not asked for, of all that was collected: before `-k` takes away what is compared.

    After those that shuffle them, what takes longest is put first, or one process would end alone.
    """
    is_torture = config.getoption("--torture")
    left_out = _left_to_torture(items, with_long_ones=config.getoption("--long") and not is_torture)
    if is_torture:
        left_out = {id(item) for item in items if id(item) not in left_out and not _has_longer_form(item)}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
    items[:] = [item for item in items if id(item) not in left_out]
    yield
    items.sort(key=lambda item: (_allowed_seconds(item), durations().get(_name_of(item), 0.0)), reverse=True)


@cache
def durations() -> dict[str, float]:
    """Seconds that a test took, all its cases in `make test` together, by its name."""
    recorded = json.loads(_DURATIONS.read_text(encoding="utf-8"))
    return {str(name): float(took) for name, took in recorded.items()}


def _name_of(item: pytest.Item) -> str:
    """The test's, without its case."""
    return item.nodeid.partition("[")[0]


def _module_of(name: str) -> str:
    """The path of the module that a test is in."""
    return name.partition("::")[0]


def _left_to_torture(items: Iterable[pytest.Item], *, with_long_ones: bool) -> set[int]:
    left_out: set[int] = set()
    for rule in (_on_the_other_database, _not_sampled, *(() if with_long_ones else (_long,))):
        left_out |= {id(item) for item in rule([item for item in items if id(item) not in left_out])}
    return left_out


def _allowed_seconds(item: pytest.Item) -> float:
    timeout = item.get_closest_marker("timeout")
    return float(timeout.args[0]) if timeout else 0.0


def _has_longer_form(item: pytest.Item) -> bool:
    return "often" in getattr(item, "fixturenames", ())


def _on_the_other_database(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """What runs on both, where it is not its module's turn: half of the modules have each, always the same.

    But what is quick, or says that it is about `each_database`, runs on both.
    """
    databases: dict[str, dict[str, list[pytest.Item]]] = {}
    for item in items:
        database = item.callspec.params.get("new_url") if hasattr(item, "callspec") else None
        if database and not item.get_closest_marker("quick") and not item.get_closest_marker("each_database"):
            databases.setdefault(_name_of(item), {}).setdefault(database, []).append(item)
    for name, cases in databases.items():
        if len(cases) == len(_DATABASES):
            turn = zlib.crc32(_module_of(name).encode()) % len(_DATABASES)
            yield from cases[_DATABASES[1 - turn]]


def _not_sampled(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """All but so many of the cases of a test as its marker says, spread evenly over them."""
    cases_of: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases_of.setdefault(_name_of(item), []).append(item)
    for unordered in cases_of.values():
        # They may be shuffled already, and the sample is to be the same each time.
        cases = sorted(unordered, key=lambda item: item.nodeid)
        marker = cases[0].get_closest_marker("sampled")
        count = marker.args[0] if marker else len(cases)
        kept = {round((index + 0.5) * len(cases) / count - 0.5) for index in range(count)}
        yield from (case for index, case in enumerate(cases) if index not in kept)


def _long(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """What takes long, but for the one or few of its module that stand for the others."""
    long_ones: defaultdict[str, dict[str, list[pytest.Item]]] = defaultdict(dict)
    for item in items:
        name = _name_of(item)
        if durations().get(name, 0.0) > _LONG_SECONDS and not item.get_closest_marker("quick"):
            long_ones[_module_of(name)].setdefault(name, []).append(item)
    for tests in long_ones.values():
        kept = {name for name, cases in tests.items() if cases[0].get_closest_marker("first_of_all")}
        kept = kept or {min(tests, key=durations().__getitem__)}
        yield from (case for name, cases in tests.items() if name not in kept for case in cases)


def record(results: Path) -> None:
    """Write down how long each test took, from the JUnit XML of a whole run of `make test ARGS=--long`.

    By hand, and never between the two runs of one check: what one leaves out, the other has to run.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    for case in ElementTree.parse(results).iter("testcase"):  # noqa: S314 - it is our own file
        path = case.attrib["classname"].replace(".", "/")
        seconds[f"{path}.py::{case.attrib['name'].partition('[')[0]}"] += float(case.attrib["time"])
    worth_it = {name: round(took, 1) for name, took in sorted(seconds.items()) if took >= _RECORDED_SECONDS}
    _DURATIONS.write_text(json.dumps(worth_it, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
