"""A machine whose network cable is pulled, and put back: nothing is done twice, and it joins again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import make_url

from tests.support.networks import INSIDE, ITS, OURS, cable_pulled, network_of_its_own, reachable_inside
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.shop import Shop
from tests.support.shopper import Shopper, eventually, key

pytestmark = pytest.mark.timeout(300)  # a machine starts, is cut off, and joins again

_SETTINGS = {"STORE_LEASE_SECONDS": 2, "STORE_DISPATCH_TICK_SECONDS": 1}
_OF_THERE = "SELECT how_ended, adopted_by FROM executors WHERE machine = 'there' ORDER BY number"


@dataclass(frozen=True)
class Two:
    """One machine here, and one with a network of its own."""

    here: Shop
    there: Server


@pytest.fixture
def two(postgres: Postgres) -> Iterator[Two]:
    """Both on one Postgres; the one with a network of its own reaches it over that."""
    url = make_url(postgres.new_prepared_url())
    here = Shop(url.render_as_string(hide_password=False), STORE_MACHINE="here", **_SETTINGS)
    with network_of_its_own(), reachable_inside(f"{url.query['host']}/.s.PGSQL.5432") as port:
        over_the_cable = url.set(host=OURS, port=port, query={}).render_as_string(hide_password=False)
        there = Server(
            over_the_cable,
            {"STORE_MACHINE": "there", "STORE_HOST": ITS, "STORE_HANG_SECONDS": 0, **_SETTINGS},
            script=INSIDE,
            afresh=True,
        )
        try:
            here.server.start()
            there.start()
            yield Two(here, there)
        finally:
            here.server.close()
            there.close()


def test_a_machine_that_was_cut_off_does_no_harm_and_joins_again(two: Two) -> None:
    """Its orders go on elsewhere; once it hears of that, it ends, and begins anew."""
    visitor, tables = Shopper(two.there.url), two.here.tables
    sold = [visitor.buy(key()) for _ in range(3)]
    for payment_id in sold:
        visitor.confirm(payment_id)
    with cable_pulled():
        [(how_ended, _)] = eventually(lambda: tables.rows(_OF_THERE), lambda rows: rows[0].adopted_by)
        assert how_ended == "lost"
        assert set(tables.orders().values()) == {"paid"}, "in the middle of their dispatch"
        for payment_id in sold:
            two.here.shopper.wait_for(payment_id, "Dispatched")
    eventually(lambda: two.there.output, lambda said: "died (it counted as lost)" in said, timeout_seconds=60)
    eventually(lambda: tables.rows(_OF_THERE), lambda rows: rows[-1].how_ended is None)
    again = visitor.buy(key())
    visitor.confirm(again)
    visitor.wait_for(again, "Dispatched")
    assert not tables.faults()
    eventually(lambda: two.here.shopper.get("/ledger.json").json["balanced"], bool)
    charges = "SELECT payment_id FROM payments WHERE kind = 'charge'"
    assert sorted(row.payment_id for row in tables.rows(charges)) == sorted([*sold, again])
