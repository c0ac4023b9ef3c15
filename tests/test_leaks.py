"""What nobody is told: whose order it is, anywhere but on its own pages; and how the shop is made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from store.settings import is_sqlite
from tests.support.shop import Shop
from tests.support.shopper import key

_FOR_EVERYBODY = (
    "/", "/recent", "/orders", "/order/1", "/order/2", "/product", "/ledger", "/ledger/lines", "/ledger.json",
    "/proof", "/health", "/presenter/tools", "/no-such-page",
)  # fmt: skip


@pytest.mark.sampled(1)
def test_a_payment_id_is_only_its_owners(open_shop: Callable[..., Shop]) -> None:
    """Not on a page of everybody's, in a list, or in the log: not after a crash, late money or a refusal."""
    shop = open_shop(STORE_PAYMENT_WINDOW_SECONDS=15, STORE_UNPAID_PER_CLIENT=3)
    paid, declined, expired, refused = (key() for _ in range(4))
    for each in (paid, declined, expired, refused):
        shop.shopper.buy(each)
    shop.server.kill()
    shop.server.restart()
    shop.shopper.confirm(paid)
    shop.shopper.cancel(declined)
    shop.shopper.wait_for(paid, "Dispatched")
    shop.shopper.wait_for(expired, "The payment window closed")
    shop.shopper.confirm(expired)
    shop.shopper.confirm(refused)
    shop.shopper.post(f"/payment_webhook/{paid}/soon")
    shop.shopper.post(f"/checkout/{paid}.dispatch")
    for path in _FOR_EVERYBODY:
        for answer in (shop.shopper.page(path), shop.shopper.get(path)):
            told = [each for each in (paid, declined, expired, refused) if each in answer.text]
            assert not told, path
    shop.server.stop()
    assert not [each for each in (paid, declined, expired, refused) if each in shop.server.output]


def test_what_dbos_keeps_is_data(open_shop: Callable[..., Shop]) -> None:
    """JSON in every column that is read back, because reading a pickle can run what is in it."""
    shop = open_shop()
    payment_id = shop.shopper.buy(key())
    shop.shopper.confirm(payment_id)
    shop.shopper.wait_for(payment_id, "Dispatched")
    url = shop.database_url
    if is_sqlite(url):
        schema, url = "", url.replace("store.sqlite3", "store-checkpoints.sqlite3")
    else:
        schema, url = "dbos.", url.replace("postgresql://", "postgresql+psycopg://")
    status = f"(SELECT workflow_uuid, serialization FROM {schema}workflow_status)"  # noqa: S608 - ours
    columns = {
        "workflow_status": ("inputs", "output", "error"),
        "workflow_input": ("inputs",),
        "workflow_output": ("output", "error"),
        "operation_outputs": ("output", "error"),
        "workflow_events": ("value",),
        "notifications": ("message",),
    }
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    seen = Counter[str]()
    with engine.connect() as connection:
        for table, names in columns.items():
            # What a workflow was given and returned stands apart from what says how it is written.
            is_apart = table in {"workflow_input", "workflow_output"}
            source = f"{schema}{table}" + (
                f" JOIN {status} AS status USING (workflow_uuid)" if is_apart else ""
            )
            for name in names:
                kept = f"SELECT {name}, serialization FROM {source} WHERE {name} IS NOT NULL"  # noqa: S608 - ours
                for value, serialization in connection.execute(sa.text(kept)):
                    assert serialization == "portable_json", (table, name)
                    json.loads(value)
                    seen[table] += 1
    assert all(seen[table] for table in columns if table != "workflow_status"), seen
