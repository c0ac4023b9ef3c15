"""The pages of the guestbook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, abort, redirect, request, url_for
from flask_htmx import make_response
from werkzeug.wrappers import Response as AnyResponse

from store import commands
from store.reads.greetings import Greeting
from store.vocabulary import is_key, new_key
from store.web.every_request import abort_not_there, fragment, page, wants_page
from store.web.origin import client_of
from store.web.shop import queries, the_shop
from store.web.waterfall import Waterfall

guestbook = Blueprint("guestbook", __name__)


@dataclass(frozen=True)
class Form:
    """The form to sign, as it is first, or as it was sent and refused."""

    key: str
    name: str = ""
    trouble: str = ""
    """Why it was refused, one sentence."""


@guestbook.get("/guestbook")
def show() -> str:
    """Show the form, and both books."""
    return _form(Form(new_key()))


@guestbook.get("/guestbook/books")
def both() -> Response:
    """Both books as they stand now."""
    return fragment("_guestbooks.html", greeting=None, guestbooks=the_shop().greetings.guestbooks())


@guestbook.post("/guestbook")
def sign() -> AnyResponse:
    """Start the greeting that the form's key names, or come back to the one that it has started."""
    name, key = request.form.get("name", ""), request.form.get("key", "")
    if not is_key(key):
        abort(400, "That form has no usable key: go back to the guestbook for a new one.")
    queries().require_database()
    try:
        commands.greet(key, name, client_of(request), wait=False)
    except commands.BadName as fault:
        return _refuse(400, Form(key, name, str(fault)))
    except commands.TooManyGreetings:
        fault_of_many = "You have too many greetings under way: wait until one of them has ended."
        return _refuse(429, Form(key, name, fault_of_many))
    except commands.KeyTaken:
        # With the key of another greeting it would be refused again.
        return _refuse(409, Form(new_key(), name, "That form has greeted by another name: sign once more."))
    return redirect(url_for(".greeting", key=key), 303)


@guestbook.get("/greetings/<key:key>")
def greeting(key: str) -> str:
    """Show how far one greeting has come, and both books."""
    return page("guestbook.html", form=None, **_shown(key))


@guestbook.get("/greetings/<key:key>/progress")
def progress(key: str) -> Response:
    """How far it has come by now."""
    return fragment("_greeting.html", **_shown(key))


def _form(form: Form) -> str:
    return page("guestbook.html", form=form, greeting=None, guestbooks=the_shop().greetings.guestbooks())


def _refuse(status: int, form: Form) -> AnyResponse:
    """The form as it was sent, with the reason beside its field. The address bar keeps the page."""
    if not wants_page():
        abort(status, form.trouble)
    refused: Response = make_response(_form(form), status, push_url=False)
    return refused


def _shown(key: str) -> dict[str, Any]:
    found = _find(key)
    return {
        "greeting": found,
        "timeline": Waterfall.of(found.timeline),
        "guestbooks": the_shop().greetings.guestbooks(beside=found),
        "key": key,
    }


def _find(key: str) -> Greeting:
    found = the_shop().greetings.find(key)
    if found is None:
        abort_not_there("There is no such greeting: if you followed a link, check that all of it was copied.")
    return found
