"""The benchmark: its smallest form runs to its end and has figures, and what an order costs has a limit."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import fill, load, orders
from bench.figures import SMALLEST, Bench, median_ratio, percentile
from bench.processor import Used
from bench.servers import STORE, UNITS, Database, place
from store.settings import REFUSED
from tests.support.refusal import is_one_sentence
from tests.support.shop import Shop
from tests.support.shopper import eventually
from tests.support.started import run

_TRANSACTIONS, _STATEMENTS = 58, 90
"""Of one whole order on Postgres at most, beside those of pages: what was reached, and a little."""
_ORDERS = 12


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return run("-m", "bench", *words, environment=dict(os.environ), timeout=110)


def measured(file: Path, *words: str) -> dict[str, Any]:
    """What its smallest form has found."""
    ran = bench("--smallest", "--json", str(file), *words)
    assert ran.returncode == 0, ran.stderr
    assert "The store, measured (smallest)" in ran.stdout
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return told


def test_the_smallest_form_compares_orders_with_the_yardstick(tmp_path: Path) -> None:
    """It has figures, each greater than nought, and says what it leaves out."""
    told = measured(tmp_path / "figures.json", "--only", "orders", "--database", "sqlite")
    assert all(each["value"] > 0 for each in told["figures"]), told["figures"]
    [whole] = [
        each
        for each in told["figures"]
        if (each["case"], each["what"]) == ("store on SQLite, 1 shopper", "whole orders")
    ]
    assert whole["to"] == "plain"
    assert whole["ratio"] > 0
    assert any("on SQLite" in sentence for sentence in told["left_out"])
    assert told["machine"]["postgres"] == "not used"


def test_the_smallest_form_measures_polls_and_visits(tmp_path: Path) -> None:
    """Against a bare answer in the same run; who comes again fetches the page alone."""
    told = measured(tmp_path / "figures.json", "--only", "polls,visits", "--database", "sqlite")
    assert all(each["value"] > 0 for each in told["figures"]), told["figures"]
    figures = {(each["group"], each["case"], each["what"]): each["value"] for each in told["figures"]}
    assert figures["polls", "the shelf", "bytes of a poll, unchanged"] < 200
    assert figures["visits", "a second visit to /", "requests"] == 1
    assert figures["visits", "a first visit to /", "requests"] > 1


def test_a_rush_sells_what_is_on_the_shelf(tmp_path: Path) -> None:
    """And nothing more, with an answer for everybody."""
    told = measured(tmp_path / "figures.json", "--only", "rush", "--database", "sqlite")
    figures = {each["what"]: each["value"] for each in told["figures"]}
    assert figures["units sold"] == 2
    assert figures["Buy Now, worst"] > figures["Buy Now, p50"]
    assert told["left_out"] == []


@pytest.mark.timeout(240)  # it starts a Postgres of its own, twice
def test_a_whole_order_costs_few_transactions() -> None:
    """On Postgres, as its own log has them; an order is ten ticks, and each tick is a step."""
    with place(("Postgres",)) as here:
        database = here.new_database("Postgres")
        with here.serving(STORE, database) as server:
            load.buy(server, shoppers=1, count=3)
            contender = orders.Contender("store", server, database)
            scale = replace(SMALLEST, counted=_ORDERS, idle_seconds=5)
            cost = orders.cost_of_an_order(Bench(scale, here, ("Postgres",)), contender)
    transactions, statements, *_ = cost
    assert 30 < transactions <= _TRANSACTIONS
    assert transactions < statements <= _STATEMENTS


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--only", "orders,nothing"], "nothing"),
        (["--quick", "--smallest"], "--quick"),
        (["--database", "oracle"], "oracle"),
        (["--json", "/no/such/folder/file"], "/no/such/folder/file"),
        (["--rounds", "7"], "--rounds"),
    ],
)
def test_what_it_cannot_do_it_refuses_in_one_sentence(words: list[str], names: str) -> None:
    """Before it starts anything."""
    refused = bench(*words)
    assert refused.returncode == REFUSED
    assert refused.stdout == ""
    sentence = refused.stderr.strip()
    assert is_one_sentence(sentence), sentence
    assert names in sentence


@pytest.mark.quick
def test_what_is_made_of_the_figures() -> None:
    """Percentiles, ratios by round, and processor time without what idleness takes."""
    assert [percentile([3.0, 1.0, 2.0], percent) for percent in (0, 50, 99)] == [1.0, 2.0, 3.0]
    assert median_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == 3.0
    assert median_ratio([2.0], [0.0]) is None
    assert Used(3.0, 2.0, 10.0).beyond(Used(0.5, 0.0, 5.0)) == Used(2.0, 2.0, 10.0)


def test_a_shop_that_was_filled_is_as_if_it_had_sold(tmp_path: Path) -> None:
    """Its orders and their checkpoints are those of one that was bought, and it goes on selling."""
    url = f"sqlite:///{tmp_path}/shop/store.sqlite3"
    shop = Shop(url)
    shop.server.start()
    payment_id = shop.shopper.hold()
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    ended = "SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'"
    eventually(lambda: shop.checkpoints.rows(ended), lambda rows: rows == [(2,)])
    shop.server.stop()
    shop.tables.stock(UNITS)
    fill.fill(Database("SQLite", url), payment_id, 25)
    assert not shop.tables.faults()
    assert len(shop.tables.orders()) == 25
    assert shop.checkpoints.rows(ended) == [(50,)]
    steps = "SELECT count(*) FROM operation_outputs GROUP BY workflow_uuid HAVING count(*) > 1"
    assert len({rows for (rows,) in shop.checkpoints.rows(steps)}) == 2, "of checkouts, and of dispatches"
    shop.server.restart()
    # That the shelf was filled by hand, the books do say; and nothing else.
    [fault] = shop.shopper.get("/ledger.json").json["faults"]
    assert str(UNITS) in fault["says"]
    shop.shopper.confirm(shop.shopper.hold())
    assert not shop.tables.faults()
    shop.server.close()
