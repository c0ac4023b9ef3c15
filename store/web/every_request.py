"""What every request shares: errors in two sizes, headers, limits, health."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, cast

import sqlalchemy as sa
from dbos import error as dbos_error
from flask import Flask, Response, abort, jsonify, render_template, request
from flask_htmx import HTMX, make_response
from jinja2 import StrictUndefined, TemplateError
from markupsafe import Markup
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from store import vocabulary
from store.durable import deadlines, runtime
from store.durable.deadlines import DeadlineExceeded
from store.web import compression, formats, origin, static_files
from store.web.shop import Shop, install, queries, the_shop
from store.web.startup import may_begin_something

MAX_BODY_BYTES = 64 * 1024
RETRY_AFTER_SECONDS = 2
BEGAN_ANEW = "The shop began anew."
OF_BEFORE = (
    "There is nothing at this address: either it is of before the shop began anew, and is forgotten, or not"
    " all of the link was copied."
)
_A_YEAR_SECONDS = 365 * 24 * 3600

_STRICT = {
    # No inline script or style, no eval, nothing from elsewhere, no page of ours inside another's.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    # An order's address is its shopper's alone.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""What a browser is told with every answer; htmx is configured in base.html to live under it."""

htmx = HTMX()
_log = logging.getLogger("store")


class Key(BaseConverter):
    """A path part that may be a key or a payment id; any other is not found."""

    regex = rf"[A-Za-z0-9_-]{{1,{vocabulary.KEY_MAX_LENGTH}}}"


def prepare(app: Flask, shop: Shop) -> None:
    """Give `app` the shop, and what every request to it shares."""
    install(app, shop)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.converters["key"] = Key
    app.jinja_env.undefined = StrictUndefined  # a name that is not there is a mistake of ours
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(vocabulary=vocabulary)
    formats.prepare(app)
    static_files.prepare(app)
    htmx.init_app(app)

    app.before_request(_set_deadline)
    origin.prepare(app, shop.settings)
    app.before_request(_refuse_large_bodies)
    app.before_request(_refuse_to_begin)
    app.after_request(_finish)
    app.register_error_handler(HTTPException, _explain)
    # The third is what DBOS raises where a listing of its own was cancelled, by whomever.
    for database_trouble in (
        DBAPIError,
        sa.exc.TimeoutError,
        dbos_error.DBOSQueryTimeoutError,
        DeadlineExceeded,
    ):
        app.register_error_handler(database_trouble, _catch_breath)
    app.register_error_handler(Exception, _own_up)
    app.add_url_rule("/health", "health", view_func=show_health)


def compile_pages(app: Flask) -> None:
    """Compile templates and routes now: the first requests would wait for that."""
    app.url_map.update()
    for template in app.jinja_env.list_templates(extensions=("html", "svg")):
        # Whoever renders it is told. Of what an editor leaves there, nothing is ever rendered.
        with suppress(TemplateError, UnicodeError, OSError):
            app.jinja_env.get_template(template)
    with app.app_context():
        static_files.make_bundles()


@dataclass(frozen=True)
class Retry:
    """How a page of an error asks again."""

    address: str
    form: dict[str, str] | None
    """What was sent, to be sent again by the button; None to look again by itself."""


def page(template: str, *, with_tools: bool = True, **context: Any) -> str:
    """A whole page, with what its frame shows."""
    tools = the_shop().presenter_tools() if with_tools else None
    # A page that htmx brings takes the keyboard along to its content; a page load begins at its top.
    return render_template(template, tools=tools, takes_focus=bool(htmx), **context)


@dataclass(frozen=True)
class Fragment:
    """A piece of a page, as htmx is sent it or a page includes it."""

    html: Markup
    tag: str
    """Of its content. A poller that shows it says so, and needs nothing."""


def render(template: str, **context: Any) -> Fragment:
    """A fragment, to be sent or kept."""
    html = render_template(template, **context)
    return Fragment(Markup(html), _digest(html))  # noqa: S704


def send(piece: Fragment) -> Response:
    """A fragment, or 304 where the poller already shows it, by htmx's ptag."""
    is_shown = request.headers.get("HX-PTag") == piece.tag
    response = Response(status=304) if is_shown else Response(piece.html)
    response.headers["HX-PTag"] = piece.tag
    return response


def _digest(content: str) -> str:
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def fragment(template: str, *, same_while: object = None, **context: Any) -> Response:
    """Render a fragment and send it.

    With `same_while`, it counts as the same for as long as the text of that is, and a poller that shows it
    costs no rendering. All that the fragment shows must be in it, but for what the page itself moves.
    """
    if same_while is None:
        return send(render(template, **context))
    tag = _digest(f"{template} {same_while!r}")
    is_shown = request.headers.get("HX-PTag") == tag
    return send(Fragment(Markup("" if is_shown else render_template(template, **context)), tag))  # noqa: S704


def show_health() -> tuple[Response, int]:
    """Whether orders can be taken and moved: 200 if so, else 503; each part by name."""
    found = the_shop().health.report()
    report = {"status": "ok" if found.is_well else "unavailable", **asdict(found)}
    return jsonify(report), 200 if found.is_well else 503


# --- before and after -----------------------------------------------------------------


def _set_deadline() -> None:
    if request.blueprint == "api":
        deadlines.begin(deadlines.JSON_SECONDS, deadlines.JSON_EVENT_SECONDS)
    else:
        deadlines.begin(deadlines.PAGE_SECONDS, deadlines.PAGE_EVENT_SECONDS)


def _refuse_to_begin() -> None:
    # Others may be taking up its work by now, and would not know of what it begins.
    if may_begin_something() and not runtime.may_begin():
        raise deadlines.DeadlineExceeded("no sign of life could be given for too long")


def _refuse_large_bodies() -> None:
    # Flask looks at the limit when a body is read, and some routes read none.
    if (request.content_length or 0) > MAX_BODY_BYTES:
        abort(413)


def _finish(response: Response) -> Response:
    if request.method == "POST":
        queries().forget_board()
    if request.endpoint == "static" and response.status_code < 400:
        return response  # it has what it needs
    # Orders move; and going back must fetch the store anew, with a new key.
    response.headers["Cache-Control"] = "no-store"
    # A page that is told of another one than before asks what became of that.
    response.headers["Store-Server"] = str(runtime.executor_number())
    compression.compress(response)
    if response.status_code == 304:  # the client has the fragment, and what it was sent with
        response.headers.pop("Content-Type", None)
        return response
    response.headers.update(_STRICT)
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = f"max-age={_A_YEAR_SECONDS}"
    return response


# --- errors ---------------------------------------------------------------------------

_SENTENCES = {
    400: "That request was not understood: go back to the store and try again.",
    401: "This needs a password.",
    403: "That is not allowed.",
    404: "There is nothing at this address: the store is the place to start.",
    405: "This address does not answer to that method.",
    408: "The request took too long to arrive: send it again.",
    413: f"That was more than the {MAX_BODY_BYTES // 1024} KB that this shop reads: send less.",
    414: "That address is too long.",
    415: "The shop does not read that kind of content.",
    429: "That was too often: wait a moment.",
    431: "The headers of that request are too large.",
    500: "Something went wrong on our side, but your order, if you have one, is safe: reload to see it.",
    503: "The shop is catching its breath; nothing is lost, and trying again makes no second order.",
}


def _explain(error: HTTPException) -> Response:
    """An HTTP error as a page, or as JSON where no page was asked for."""
    code = error.code or 500
    if error.response is not None:
        return cast(Response, error.response)
    # A description of ours is a sentence for the reader; Werkzeug's own is not.
    ours = error.description if error.description != type(error).description else None
    response = _say(code, ours or _SENTENCES.get(code, _SENTENCES[400 if code < 500 else 500]))
    for name, value in error.get_headers():
        if name in {"Allow", "Retry-After", "WWW-Authenticate"}:
            response.headers[name] = value
    return response


def _catch_breath(error: Exception) -> Response:
    """The database is down, full or too slow: say so, and when to come back."""
    _log.warning("no answer from the database: %s", str(error).splitlines()[0])
    response = _say(503, _SENTENCES[503])
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _own_up(error: Exception) -> Response:
    """A mistake of ours: the log has the traceback, the shopper does not."""
    _log.error("a request failed", exc_info=error)
    return _say(500, _SENTENCES[500])


def _say(code: int, sentence: str) -> Response:
    if wants_page():
        if _wants_whole_page():
            # They read the database, which may be what is wrong.
            html = page("error.html", with_tools=False, code=code, sentence=sentence, retry=_retry(code))
        else:
            html = render_template("_gone.html" if code == 410 else "_error.html", sentence=sentence)
        # The address bar keeps the page that can be reloaded, not the one that failed.
        response = cast(Response, make_response(html, push_url=False))
    else:
        response = jsonify(error=sentence)
    response.status_code = code
    return response


def _retry(code: int) -> Retry | None:
    if code != 503 or request.method not in {"GET", "POST"}:
        return None
    if request.method == "GET":
        return Retry(request.full_path, None)
    return Retry(request.path, request.form.to_dict())


def abort_not_there(sentence: str) -> NoReturn:
    """404 with that sentence; but 410 for a page that is open, which stops to look then.

    What an open page looks for was there when it was opened, so the shop has begun anew since. Of an address
    that somebody opens, that cannot be told: no reset keeps the ids that it forgets.
    """
    if htmx and not _wants_whole_page():
        abort(410, BEGAN_ANEW)
    abort(404, OF_BEFORE if queries().has_begun_anew() else sentence)


def _wants_whole_page() -> bool:
    return request.headers.get("HX-Request-Type") == "full" or bool(htmx.boosted) or not htmx


def wants_page() -> bool:
    """Browsers name text/html in Accept; API clients send */* or nothing.

    htmx, where it goes back in the history, sends a header of its own instead.
    """
    if request.blueprint == "api":
        return False
    return "text/html" in request.headers.get("Accept", "") or htmx.history_restore_request
