"""The pages of the guestbook."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from store import commands
from store.reads.greetings import Greeting
from store.vocabulary import is_key, new_key
from store.web.every_request import fragment
from store.web.origin import client_of
from store.web.shop import queries, the_shop

guestbook = Blueprint("guestbook", __name__)


@guestbook.get("/guestbook")
def show() -> str:
    """Show the form, and both books."""
    books = the_shop().greetings.books()
    return render_template("guestbook.html", greeting=None, books=books, key=new_key())


@guestbook.get("/guestbook/books")
def books() -> Response:
    """Both books as they stand now."""
    return fragment("_books.html", books=the_shop().greetings.books())


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
        abort(400, str(fault))
    except commands.TooManyGreetings:
        abort(429, "You have too many greetings under way: wait until one of them has ended.")
    except commands.KeyTaken:
        abort(409, "That form has greeted by another name: go back to the guestbook for a new one.")
    return redirect(url_for(".greeting", key=key), 303)


@guestbook.get("/greetings/<key:key>")
def greeting(key: str) -> str:
    """Show how far one greeting has come, and both books."""
    return render_template("guestbook.html", **_shown(key))


@guestbook.get("/greetings/<key:key>/progress")
def progress(key: str) -> Response:
    """How far it has come by now."""
    return fragment("_greeting.html", **_shown(key))


def _shown(key: str) -> dict[str, Any]:
    found = _find(key)
    return {"greeting": found, "books": the_shop().greetings.books(beside=found), "key": key}


def _find(key: str) -> Greeting:
    found = the_shop().greetings.find(key)
    if found is None:
        abort(404, "There is no such greeting: if you followed a link, check that all of it was copied.")
    return found
