"""What an answer weighs: bytes, headers, and a connection that is kept. The limits are what was reached."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from store.web import static_files
from store.web.own_orders import COOKIE
from tests.support.shop import Shop
from tests.support.shopper import HTML, eventually, key
from tests.support.wire import Raw, Wire

_UNCHANGED_BYTES = 180
_FILE_HEAD_BYTES = 310
_PAGE_BYTES = 3500


@pytest.fixture
def wire(shop: Shop) -> Iterator[Wire]:
    """A connection that stays open."""
    with Wire(shop.server.url) as wire:
        yield wire


@pytest.mark.parametrize("part", ["payment", "progress of an order", "newest orders", "shelf"])
def test_an_unchanged_poll_is_small_and_keeps_its_connection(shop: Shop, wire: Wire, part: str) -> None:
    """It says that nothing changed, and who says so; the next poll needs no new connection."""
    payment_id = shop.shopper.buy()
    path = {
        "payment": f"/pay/{payment_id}/status",
        "progress of an order": f"/orders/{payment_id}/progress",
        "newest orders": "/recent",
        "shelf": f"/shelf?key={key()}",
    }[part]

    def poll_twice() -> Raw:
        tag = wire.get(path, **HTML).headers["Hx-Ptag"]
        return wire.get(path, HX_PTag=tag, **HTML)

    # Somebody else's order may move between the two.
    unchanged = eventually(poll_twice, lambda answer: answer.status == 304)
    assert unchanged.body == b""
    assert set(unchanged.headers) == {"Cache-Control", "Date", "Hx-Ptag", "Store-Server", "Vary"}
    assert unchanged.size <= _UNCHANGED_BYTES
    assert wire.get(path, **HTML).status == 200


@pytest.mark.parametrize("name", [*static_files.BUNDLES, "favicon.svg", "widget.svg", "touch_icon.png"])
def test_a_file_has_few_headers_and_is_compressed_for_whoever_takes_it(wire: Wire, name: str) -> None:
    """Both are the same file; what is a picture in pixels is small already."""
    plain, packed = wire.get(f"/static/{name}"), wire.get(f"/static/{name}", Accept_Encoding="gzip, br")
    assert plain.status == packed.status == 200
    assert "Content-Encoding" not in plain.headers
    for answer in (plain, packed):
        assert len(answer.headers) <= 9
        assert len(answer.head) <= _FILE_HEAD_BYTES
    if name.endswith(".png"):
        assert packed.body == plain.body
    else:
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
        assert packed.headers["Etag"] != plain.headers["Etag"]
        assert gzip.decompress(packed.body) == plain.body
        assert len(packed.body) < len(plain.body)


def test_a_file_of_another_version_is_not_kept(wire: Wire) -> None:
    """While two versions of the shop are up, a page of one may ask the other for its files."""
    [address] = set(re.findall(r"/static/shop\.css\?v=\w+", wire.get("/", **HTML).body.decode()))
    assert "immutable" in wire.get(address).headers["Cache-Control"]
    for other in ("/static/shop.css?v=000000000000", "/static/shop.css", "/static/css/base.css"):
        answer = wire.get(other)
        assert answer.headers["Cache-Control"] == "no-cache"
        again = wire.get(other, If_None_Match=answer.headers["Etag"])
        assert (again.status, again.body) == (304, b"")
        assert wire.get(other, If_None_Match='"another"').status == 200


@pytest.mark.parametrize("path", ["/", "/ledger", "/guestbook", "/no-such-page", "/orders"])
def test_a_page_is_compressed_for_whoever_takes_it(shop: Shop, wire: Wire, path: str) -> None:
    """Long ones are; what they say is the same but for what changes with each visit."""
    for _ in range(12 if path == "/orders" else 1):
        shop.shopper.buy()
    accept = {} if path == "/orders" else HTML
    if path == "/guestbook":  # which says something else until it has tried to reach the online one
        eventually(lambda: wire.get(path, **accept).body, lambda body: b"cannot be reached" in body)
    plain = wire.get(path, **accept)
    packed = wire.get(path, Accept_Encoding="gzip", **accept)
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert packed.size <= _PAGE_BYTES

    def lasting(body: bytes) -> str:
        return re.sub(r"(?<=[=\"])[\w-]{22}(?=\")|\d+", "", body.decode())

    assert lasting(gzip.decompress(packed.body)) == lasting(plain.body)
    assert "Content-Encoding" not in wire.get(path, Accept_Encoding="gzip;q=0, br", **accept).headers


def test_what_is_short_or_beside_a_secret_is_not_compressed(shop: Shop, wire: Wire) -> None:
    """A page may list the orders that a browser remembers, at an address that somebody else chose."""
    short = wire.get(f"/shelf?key={key()}", Accept_Encoding="gzip", **HTML)
    assert "Content-Encoding" not in short.headers
    payment_id = shop.shopper.buy()
    for cookie, is_compressed in ((f"{COOKIE}={payment_id}", False), ("other=1", True)):
        page = wire.get(f"/pay/{payment_id}", Accept_Encoding="gzip", Cookie=cookie, **HTML)
        assert ("Content-Encoding" in page.headers) == is_compressed


# --- bundles ------------------------------------------------------------------------------------


@pytest.mark.quick
def test_a_changed_source_shows_on_reload_where_one_works_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `flask run --debug`, without a restart; a shop that is open keeps what it has read."""
    for name in static_files.BUNDLES["shop.css"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("/* nothing */ p { margin: 0 }", encoding="utf-8")
    monkeypatch.setattr(static_files, "_FOLDER", str(tmp_path))
    static_files._make.cache_clear()
    app = Flask("app")
    static_files.prepare(app)
    source = tmp_path / static_files.BUNDLES["shop.css"][0]
    for is_debugged in (False, True):
        app.debug = is_debugged
        with app.test_request_context():
            before, sent = static_files.static_url("shop.css"), static_files.serve("shop.css").get_data()
            assert b"nothing" not in sent
            source.write_text(f"p {{ margin: {int(is_debugged) + 1}px }}", encoding="utf-8")
            os.utime(source, ns=(1, int(is_debugged) + 2))
            assert (static_files.static_url("shop.css") != before) == is_debugged
            assert (static_files.serve("shop.css").get_data() != sent) == is_debugged
    static_files._make.cache_clear()


@pytest.mark.quick
def test_a_script_in_a_bundle_is_strict_and_keeps_its_names_to_itself() -> None:
    """Each of ours is a function of its own, however it ends."""
    app = Flask("app")
    with app.test_request_context():
        for bundle, sources in static_files.BUNDLES.items():
            ours = [name for name in sources if name.endswith(".js") and ".min." not in name]
            sent = static_files.serve(bundle).get_data(as_text=True)
            assert sent.count('(()=>{"use strict";') == len(ours)
            assert not re.search(r"^\s*//", sent, re.MULTILINE)
