"""Checkpoints that are labelled as pickles: reading a pickle runs code, and this shop writes none."""

from __future__ import annotations

import base64
import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import dbos
import pytest
import sqlalchemy as sa
from dbos import DBOSPortableJSONSerializer
from dbos._serialization import (
    DBOSDefaultSerializer,
    DefaultSerializer,
    deserialize_args,
    deserialize_exception,
    deserialize_value,
)

from store.durable import private_names
from store.settings import Settings, is_sqlite
from tests.support.shop import Shop
from tests.support.shopper import eventually, key


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.mark), "w")


def pickled(mark: Path) -> str:
    """A trap, written as DBOS writes pickles."""
    return base64.b64encode(pickle.dumps(Trap(mark))).decode()


_STATEMENTS = {
    "step": (
        (
            "UPDATE {}operation_outputs SET output = :text, serialization = 'py_pickle'"
            " WHERE function_name = 'reserve' AND workflow_uuid = :id"
        ),
    ),
    "input": (
        "UPDATE {}workflow_input SET inputs = :text WHERE workflow_uuid = :id",
        "UPDATE {}workflow_status SET serialization = 'py_pickle' WHERE workflow_uuid = :id",
    ),
}


def rewrite(shop: Shop, part: str, text: str, payment_id: str) -> None:
    """Put a pickle into the checkpoints of an order, in a shop that is closed."""
    url = Settings.from_env({"DBOS_DATABASE_URL": shop.database_url}).system_database_url
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in _STATEMENTS[part]:
            change = sa.text(statement.format("" if is_sqlite(url) else "dbos."))
            assert connection.execute(change, {"text": text, "id": payment_id}).rowcount == 1


@pytest.mark.parametrize("part", _STATEMENTS)
def test_a_pickle_is_refused_and_the_shop_goes_on(
    open_shop: Callable[..., Shop], tmp_path: Path, part: str
) -> None:
    """At recovery and on the order's page: nothing in it runs, the log says which, others can shop."""
    shop, mark = open_shop(), tmp_path / "unpickled"
    other, payment_id = shop.shopper.buy(key()), shop.shopper.buy(key())
    shop.server.kill()
    rewrite(shop, part, pickled(mark), payment_id)
    shop.server.restart()
    eventually(lambda: mark.exists() or payment_id[:4] in shop.server.output, bool)
    assert shop.shopper.page(f"/orders/{payment_id}/timeline").status == 200
    assert not mark.exists(), "the pickle was run"
    assert re.search(rf"{payment_id[:4]}….*labelled py_pickle", shop.server.output)
    assert shop.shopper.get("/health").status == 200
    for one in (other, shop.shopper.buy(key())):
        shop.shopper.confirm(one)
        shop.shopper.wait_for(one, "Dispatched")


def test_dbos_unpickles_nowhere_else() -> None:
    """If a new version does, or renames what is replaced, this is where it shows."""
    assert type(DBOSDefaultSerializer) is DefaultSerializer
    unpickling = {
        f"{path.name}: {line.strip()}"
        for path in Path(inspect.getfile(dbos)).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\bpickle\.(loads?|Unpickler)\b|from pickle|import (dill|cloudpickle|marshal)", line)
    }
    assert unpickling == {"_serialization.py: return pickle.loads(pickled_data)"}


@pytest.mark.parametrize("read", [deserialize_value, deserialize_args, deserialize_exception])
def test_every_way_to_read_a_checkpoint_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, read: Callable[..., object]
) -> None:
    """Values, inputs and errors."""
    mark = tmp_path / "unpickled"
    # So that it is put back after the test.
    monkeypatch.setattr(DefaultSerializer, "deserialize", DefaultSerializer.deserialize)
    private_names.refuse_pickles()
    with pytest.raises(private_names.PickleRefused, match="py_pickle"):
        read(pickled(mark), "py_pickle", DBOSPortableJSONSerializer())
    assert not mark.exists()
