"""Static files: what a page needs in few small answers, which a browser keeps.

The sources in `static/` stay apart, one for each concern. A bundle sends several of them as one file. It is
made when it is first asked for, in a few milliseconds, and is kept in memory: there is no build step, and
nothing is written to the checkout. Werkzeug answers from it. Libraries that serve static files, such as
WhiteNoise, serve what lies on a disk.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import os
import posixpath
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import rcssmin
import rjsmin
from flask import Flask, Response, abort, current_app, request
from werkzeug.security import safe_join

from store.settings import ROOT

BUNDLES = {
    # Every page of the shop.
    "shop.css": (
        "css/base.css",
        "css/buttons_and_bars.css",
        "css/store.css",
        "css/ledger.css",
        "css/guestbook.css",
        "css/order.css",
        "css/pictures.css",
        "css/stage.css",  # here, because htmx drops the head of a page that it brings
        "css/preferences.css",
        "css/print.css",
    ),
    "shop.js": (
        "vendor/htmx-4.0.1.min.js",
        "vendor/hx-ptag-4.0.1.min.js",
        "contact.js",
        "outage.js",
        "pressed_button.js",
        "countdown.js",
        "local_times.js",
        "timeline.js",
    ),
    # Besides, where the presenter's tools are.
    "presenter.js": (
        "servers.js",
        "stage.js",
        "fold.js",
    ),
    # The projector's page, in place of those of the shop.
    "projector.css": (
        "css/base.css",
        "css/buttons_and_bars.css",
        "css/pictures.css",
        "css/stage.css",
        "css/projector.css",
        "css/storm.css",
        "css/preferences.css",
    ),
    "projector.js": (
        "vendor/htmx-4.0.1.min.js",
        "vendor/hx-ptag-4.0.1.min.js",
        "contact.js",
        "outage.js",
        "servers.js",
        "stage.js",
        "scenes.js",
    ),
}
"""What is sent as one file, and the sources that are in it, in this order. A new source is a line here."""

_FOLDER = str(ROOT / "static")
_FOREVER = f"public, max-age={365 * 24 * 3600}, immutable"
_COMPRESSIBLE = frozenset({".css", ".js", ".svg", ".txt"})


@dataclass(frozen=True)
class _File:
    """A file as it is sent."""

    body: bytes
    gzipped: bytes | None
    """The same, compressed; None for what is compressed already."""
    version: str
    """Of its content: another content is another version."""


def prepare(app: Flask) -> None:
    """Have `app` serve its static files from here, under the addresses that Flask gives them."""
    app.view_functions["static"] = serve
    app.jinja_env.globals["static_url"] = static_url


def make_bundles() -> None:
    """Make every bundle now, and not at the first request for it."""
    for name in BUNDLES:
        _file(name)


def static_url(filename: str, *, external: bool = False) -> str:
    """Where a file or a bundle is, with its version in the address so that it may be kept for ever."""
    root = request.url_root.rstrip("/") if external else request.script_root
    return f"{root}/static/{filename}?v={_file(filename).version}"


def serve(filename: str) -> Response:
    """A file or a bundle, compressed for clients that take that."""
    try:
        file = _file(filename)
    except FileNotFoundError:
        abort(404)
    response = Response(file.body, mimetype=mimetypes.guess_type(filename)[0])
    response.set_etag(file.version)
    # A page of another version of the shop may ask a server of this one, while both are up.
    response.headers["Cache-Control"] = _FOREVER if request.args.get("v") == file.version else "no-cache"
    # The policy of a page is the page's own: of a file, nobody is to think that it is something else.
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if file.gzipped is not None:
        response.vary.add("Accept-Encoding")
        if request.accept_encodings["gzip"]:
            response.set_data(file.gzipped)
            response.content_encoding = "gzip"
            response.set_etag(f"{file.version}-gzip")
    response.make_conditional(request)
    return response


def _file(filename: str) -> _File:
    """The file or bundle of this name, made once.

    Raises:
        FileNotFoundError: there is none.
    """
    if posixpath.normpath(filename) != filename:
        raise FileNotFoundError(filename)  # or each of its many names would be kept
    # Whoever works on the shop sees a change when they reload the page.
    return _make(filename, _changed_at_ns(filename) if current_app.debug else ())


def _changed_at_ns(filename: str) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns for path in _sources(filename))


@lru_cache(maxsize=128)
def _make(filename: str, _changed_at_ns: tuple[int, ...]) -> _File:
    paths = _sources(filename)
    body = b"".join(map(_minify, paths)) if filename in BUNDLES else paths[0].read_bytes()
    gzipped = gzip.compress(body, mtime=0) if paths[0].suffix in _COMPRESSIBLE else None
    return _File(body, gzipped, hashlib.blake2b(body, digest_size=6).hexdigest())


def _sources(filename: str) -> list[Path]:
    """What a file or a bundle is made of."""
    found = [safe_join(_FOLDER, name) for name in BUNDLES.get(filename, (filename,))]
    # Of a name that no file can have, as of one with a null in it, this says no.
    if not all(path and os.path.isfile(path) for path in found):  # noqa: PTH113
        raise FileNotFoundError(filename)
    return [Path(path) for path in found if path]


def _minify(path: Path) -> bytes:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return f"{rcssmin.cssmin(text)}\n".encode()
    if path.name.endswith(".min.js"):
        return f"{text.strip()}\n;".encode()
    # A function of its own, so that "use strict" at its top is about it alone, and it can return early.
    return f"(()=>{{{rjsmin.jsmin(text).strip()}\n}})();\n".encode()
