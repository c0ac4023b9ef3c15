"""The presenter's tools: crash, restock, and what the last crash did.

The blueprint is registered only where somebody may use it, so that elsewhere its routes are not found and
no page mentions them.
"""

from __future__ import annotations

import os
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import cast
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, abort, current_app, g, jsonify, redirect, request, url_for
from flask_htmx import make_response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import TooManyRequests, Unauthorized
from werkzeug.wrappers import Response as AnyResponse

from store import commands
from store.durable import runtime
from store.durable.deadlines import DeadlineExceeded, call_with_deadline
from store.reads.crashes import Takeover
from store.reads.records import Executor
from store.serving import requests
from store.settings import Settings
from store.stage import crash_points, payment_window_hold, tools_status
from store.stage.access import COOKIE, SESSION_SECONDS, Access, Decision
from store.stage.crash_points import CRASH_POINTS
from store.vocabulary import Status
from store.web.every_request import fragment, htmx, page, wants_page
from store.web.shop import offer_presenter_tools, queries, the_shop

presenter = Blueprint("presenter", __name__)
_REMEMBER_SECONDS = 30 * 24 * 3600
SIGN_IN = frozenset({"presenter.sign_in", "presenter.try_to_sign_in", "presenter.sign_out"})
"""The views that everybody may ask for, where there are tools at all."""
_SIGNED_OUT = "You are signed out, so nothing was done: sign in, and press again."
_CHALLENGE = WWWAuthenticate("basic", {"realm": "The presenter's tools", "charset": "UTF-8"})


def prepare(app: Flask, access: Access) -> None:
    """Give `app` the tools, for those whom `access` lets in."""
    # Imported for their routes, which they add to ours.
    from store.stage import fault_page, run_again  # noqa: F401, PLC0415

    app.extensions["access"] = access
    app.register_blueprint(presenter)
    tools_status.prepare(app)
    offer_presenter_tools(app, lambda: running() if is_welcome() else None)
    rules = [rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("presenter.")]
    app.before_request(partial(_hide, {_first_part(rule) for rule in rules}))


def take_up(settings: Settings) -> None:
    """Take up what an earlier server was told, as one starts: the window that is held, and armed crashes."""
    payment_window_hold.take_up(settings)
    if crash_points.armed.is_set:
        crash_points.armed().install()
        crash_points.armed().look_out()


def is_welcome() -> bool:
    """Whether the sender of this request may use the tools: no other page mentions them."""
    return access().ask(request) is Decision.WELCOME


@dataclass(frozen=True)
class Running:
    """What the tools show: the server that answers, and how many crashes there were before it."""

    executor: Executor
    crashes: int
    can_pay_here: bool
    """Whether the presenter may confirm a payment, or a signed message has to."""
    alarm: tuple[str, ...]
    """What is wrong with the books."""
    armed: tuple[str, ...]
    """Where the next crash is to come, in words."""
    is_signed_in: bool
    """Whether this browser has a session, which it may end."""
    fault: str
    """Which fault is on, and for how long, in words; nothing if none is."""


def running() -> Running:
    """The server that answers this request."""
    found = tools_status.tools_status()
    can_pay_here, alarm = the_shop().settings.can_pay_here, the_shop().ledger.alarm()
    armed = tuple(point.words for name, point in CRASH_POINTS.items() if name in found.armed_points)
    is_signed_in = access().is_signed_in(request)
    return Running(found.executor, found.crashes, can_pay_here, alarm, armed, is_signed_in, found.fault)


def _hide(first_parts: Set[str]) -> None:
    """Where there are no tools, nothing is found, whatever the method: a 405 would tell of them."""
    if _first_part(request.path) in first_parts and access().is_closed_to(request):
        abort(404)


def _first_part(path: str) -> str:
    return path.split("/")[1] if "/" in path else path


@presenter.before_request
def refuse_others() -> AnyResponse | None:
    """Lead a browser without a session to where it signs in, and ask anything else for the password."""
    if request.endpoint in SIGN_IN:
        return None
    answer = access().ask(request)
    if answer is Decision.TOO_SOON:
        seconds = access().seconds_to_wait(request)
        raise TooManyRequests(
            f"A wrong password has just come from where you are: wait {seconds} s before the next try.",
            retry_after=seconds,
        )
    if answer is Decision.UNKNOWN:
        return _ask_to_sign_in()
    g.is_let_in = True
    return None


def _ask_to_sign_in() -> AnyResponse:
    """A browser gets no challenge: it would ask in a dialog, on the projector."""
    try:
        shown = urlsplit((htmx.current_url if htmx else request.referrer) or "").path
    except ValueError:  # what was sent is no address
        shown = ""
    if htmx and not (htmx.boosted or htmx.history_restore_request):
        where = url_for(".sign_in", next=shown)
        return cast(AnyResponse, make_response("", 401, redirect=where))  # htmx goes there, whatever it swaps
    is_browser = request.headers.get("User-Agent", "").startswith("Mozilla/")  # as all of them say
    if not wants_page() or (request.authorization and not is_browser):
        raise Unauthorized(
            "The presenter's tools need the password that the shop was started with.",
            www_authenticate=None if is_browser else _CHALLENGE,
        )
    if request.method in {"GET", "HEAD"}:
        return redirect(url_for(".sign_in", next=request.full_path.rstrip("?")), 303)
    return sign_in_page(401, shown, _SIGNED_OUT)


def sign_in_page(status: int, wanted: str, trouble: str = "", retry_after: int = 0) -> AnyResponse:
    """The page that asks for the password, and why it does again; `wanted` is the path that comes next."""
    hours = SESSION_SECONDS // 3600
    html = page("sign_in.html", with_tools=False, wanted=wanted, trouble=trouble, hours=hours)
    answer: AnyResponse = make_response(html, status, push_url=False)
    if retry_after:
        answer.headers["Retry-After"] = str(retry_after)
    return answer


@presenter.after_request
def remember_browser(response: Response) -> Response:
    """Recognise a browser that was let in, though others try passwords from its address later."""
    is_let_in = response.status_code < 400 and g.get("is_let_in", False)
    cookie = access().cookie_for(request) if is_let_in else None
    if cookie is not None:
        response.set_cookie(
            COOKIE, cookie, _REMEMBER_SECONDS, secure=request.is_secure, httponly=True, samesite="Lax"
        )
    return response


@presenter.after_request
def show_what_was_done(response: Response) -> Response:
    """After a click of the presenter, and after no other: a shopper changes nothing that the tools show."""
    if request.method == "POST":
        tools_status.forget()
    return response


@presenter.get("/presenter")
def arrive() -> AnyResponse:
    """To the store: for those who may use them, the tools are on the pages of the shop."""
    return redirect(url_for("storefront.store"), 303)


@presenter.get("/presenter/tools")
def tools() -> Response:
    """The tools, with the server that is up now and what the last crash did."""
    return fragment("_presenter.html", tools=running())


@presenter.get("/presenter/server")
def server() -> dict[str, object]:
    """The server that answers; and of the one it was asked `after`, if it has ended and who has its work."""
    after = request.args.get("after", type=int)
    return {
        "number": runtime.executor_number(),
        "process": os.getpid(),
        "has_ended": after is not None and queries().has_ended(after),
        "successor": None if after is None else _successor(after),
    }


def _successor(number: int) -> dict[str, object] | None:
    """Who has taken over from that server, whether it had crashed, and the story of that once it is known."""
    adopter = queries().adopter_of(number)
    if adopter is None:
        return None
    takeover = queries().takeover_from(number)
    story = "" if takeover is None else _story(adopter, takeover)
    return {"number": adopter, "crashed": takeover is not None, "story": story}


def _story(number: int, takeover: Takeover) -> str:
    """What a server went on with after a crash, in a sentence; nothing while not all of it is taken up."""
    if takeover.crash.back_at is None:
        return ""
    dark_ms = takeover.crash.dark_ms
    after = "" if dark_ms is None else f" after {dark_ms} ms"
    return f"Server {number} took over{after}; {_what_went_on(takeover)}."


def _what_went_on(takeover: Takeover) -> str:
    greetings = f"{takeover.greetings} greeting{'' if takeover.greetings == 1 else 's'}"
    if not takeover.orders:
        return f"{greetings} went on" if takeover.greetings else "nothing was under way"
    first, *others = takeover.orders
    if first.status is Status.PAID:
        what = f"order {first.order_id} went on at tick {first.progress + 1}"
    else:
        what = f"order {first.order_id} is {'being settled' if first.has_notice else 'held as before'}"
    more = len(others) + takeover.greetings
    return f"{what}, and {more} more" if more else what


@presenter.post("/restock")
def restock() -> AnyResponse:
    """Fill the shelf; back to the store for a browser, the units added for a program."""
    queries().require_database()
    units = commands.restock()
    if "text/html" in request.headers.get("Accept", ""):
        return redirect(url_for("storefront.store"), 303)
    return jsonify(units_added=units)


@presenter.post("/crash_application")
def crash_application() -> AnyResponse:
    """Die at once, in the middle of everything: nothing is flushed, no workflow is told.

    A form says which server it was meant for. A browser sends a form that was not answered
    again, by itself or on a reload, and one press of the button is one crash. Of several servers another
    one may get it: then the parent, which has started both, kills the one that was meant; one on another
    machine finds what is wanted of it in the database.
    """
    number, is_for_all = request.form.get("executor", type=int), bool(request.form.get("all"))
    if is_meant_for_this_server():
        if is_for_all:
            _kill_all()
        os._exit(1)
    if number and (token := queries().token_of(number)):
        if is_for_all:
            _kill_all()
        elif queries().executor(number).machine == the_shop().settings.machine_name:
            requests.ask_to_kill_server(token)
        else:
            call_with_deadline(lambda: crash_points.arm_for_server(number))
    if htmx:
        return cast(AnyResponse, make_response("", 204, push_url=False))
    return redirect(url_for("storefront.store"), 303)


def _kill_all() -> None:
    # A database that is away must not keep those here from dying; then those elsewhere are not reached.
    with suppress(DBAPIError, SQLAlchemyTimeout, DeadlineExceeded):
        call_with_deadline(lambda: crash_points.arm_for_other_machines(the_shop().settings.machine_name), 1.0)
    requests.ask_to_kill_all()


def is_meant_for_this_server() -> bool:
    """Whether a form says so, or says of none: a browser sends one again that a crash has left unanswered."""
    return request.form.get("executor", "") in {"", str(runtime.executor_number())}


def access() -> Access:
    """What decides who may use the tools."""
    return cast(Access, current_app.extensions["access"])
