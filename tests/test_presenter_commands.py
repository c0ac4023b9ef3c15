"""The presenter's commands: a talk is begun by one, and reset and disarmed from a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

from tests.support.guestbook import Guestbook
from tests.support.refusal import refusal
from tests.support.server import Server
from tests.support.shop import Shop, SupervisedShop
from tests.support.shopper import Shopper, eventually
from tests.support.started import run
from tests.support.tables import Tables


def command(*words: str, **environ: object) -> str:
    """What one of them prints; it must end well."""
    others = {k: v for k, v in os.environ.items() if not k.startswith(("STORE_", "DBOS_", "FLASK_"))}
    ended = run("app.py", *words, environment={**others, **{name: str(v) for name, v in environ.items()}})
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    return str(ended.stdout)


def test_a_talk_is_a_clean_shop_of_its_own(talk: Server, tmp_path: Path) -> None:
    """In its own files, its tools behind a password, and the audience held to no number of unpaid orders."""
    audience = Shopper(talk.url)
    eventually(lambda: talk.output, lambda said: "Password" in said)
    assert f"Projector  {talk.url}/stage" in talk.output
    assert "presenter" not in audience.page("/").text.lower()
    assert audience.page("/stage").location == "/stage/sign_in?next=/stage"
    for number in range(52):  # more than one address may hold by default; a busy shop is asked again
        click = partial(audience.submit, "/buy", key=f"phone-{number}")
        eventually(click, lambda answer: answer.status == 303)
    tables = Tables(f"sqlite:///{tmp_path}/talk/talk.sqlite3")
    eventually(tables.orders, lambda orders: len(orders) == 52)
    folder = str(tmp_path / "talk")
    words = ("app.py", "talk", "--address", "127.0.0.1", "--folder", folder)
    assert "A talk is under way already" in refusal(*words)
    assert len(tables.orders()) == 52
    talk.stop()
    talk.restart(script=(*words, "--keep"))
    assert len(tables.orders()) == 52
    talk.stop()
    talk.restart(script=words)
    assert tables.orders() == {}


def test_an_address_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    """Or the QR code would lead nowhere."""
    for address in ("203.0.113.9", "not an address"):
        said = refusal("app.py", "talk", "--folder", str(tmp_path / "talk"), "--address", address)
        assert said.startswith("--address")
    assert not (tmp_path / "talk").exists()


def test_a_reset_from_the_terminal_empties_both_guestbooks(
    new_url: Callable[[], str], tmp_path: Path
) -> None:
    """While the shop runs, and honest about a guestbook that does not answer."""
    with Guestbook(tmp_path / "guestbook.sqlite3") as guestbook:
        shop = SupervisedShop(new_url(), STORE_GUESTBOOK_URL=guestbook.url)
        try:
            key = shop.shopper.page("/guestbook").key
            shop.shopper.submit("/guestbook", key=key, name="Ada")
            eventually(lambda: guestbook.get("/signatures").json["total"], lambda total: total == 1)
            shop.shopper.buy()
            said = command("reset", "--yes", DBOS_DATABASE_URL=shop.database_url)
            assert said.startswith("The shop has begun anew, in ")
            assert "guestbook" not in said
            assert guestbook.get("/signatures").json["total"] == 0
            assert shop.tables.orders() == {}
            shop.wait_for_deaths(1)
            gone = shop.shopper.poll(f"/greetings/{key}/progress")
            assert (gone.status, gone.alert) == (410, "The shop began anew.")
            assert "Go to the store" in gone.text
            guestbook.kill()
            said = command("reset", "--yes", DBOS_DATABASE_URL=shop.database_url)
            assert "The online guestbook keeps what it has. The guestbook cannot be reached." in said
        finally:
            shop.parent.close()


def test_a_reset_from_the_terminal_must_be_meant(open_shop: Callable[..., Shop]) -> None:
    """Without --yes, of a shop without tools, or of one that is not there, nothing is done."""
    shop = open_shop()
    shop.shopper.buy()
    here = {"DBOS_DATABASE_URL": shop.database_url}
    assert "nothing was done: say --yes" in refusal("app.py", "reset", **here)
    assert "tools are off" in refusal("app.py", "reset", "--yes", STORE_TRUSTED_PROXIES=1, **here)
    nowhere = {"DBOS_DATABASE_URL": "sqlite:////nowhere/store.sqlite3"}
    assert "There is no such shop yet" in refusal("app.py", "reset", "--yes", **nowhere)
    assert len(shop.tables.orders()) == 1
    assert shop.tables.rows("SELECT 1 FROM reset_requests") == []


def test_every_armed_crash_is_taken_back_while_the_shop_is_dead(open_shop: Callable[..., Shop]) -> None:
    """One that dies at each start can be opened again."""
    shop = open_shop()
    shop.shopper.submit("/stage/crashes/recovery", do="arm")
    shop.shopper.submit("/stage/every_sale", do="begin")
    with suppress(OSError, HTTPException):  # it dies over the click
        shop.shopper.submit("/buy", key="a-sale")
    shop.server.wait_for_death()
    said = command("disarm", DBOS_DATABASE_URL=shop.database_url)
    assert said.splitlines() == [
        "Disarmed: During the recovery from a crash.",
        "Disarmed: After the unit is reserved.",
    ]
    assert command("disarm", DBOS_DATABASE_URL=shop.database_url) == "Nothing is armed.\n"
    shop.server.restart()
    shop.shopper.buy()
    assert shop.shopper.is_open()
