"""The page on which a presenter signs in, and how they sign out.

A browser is never answered with a challenge of HTTP Basic: its dialog would be on the projector. It is led to
this page instead, and back from it to the page that it has asked for.
"""

from __future__ import annotations

import re

from flask import Flask, g, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from store.settings import Settings
from store.stage import failed_tries, presenter_bar
from store.stage.access import SESSION_COOKIE, SESSION_SECONDS, Access, Decision
from store.stage.presenter_bar import access, presenter, sign_in_page

_PATH_OF_OURS = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")
"""A browser takes two slashes, or a slash and a backslash, for the beginning of another host's address."""
_LONGEST_PATH = 500


def prepare(app: Flask, settings: Settings) -> None:
    """Give `app` the tools, and what decides who may use them, if anybody may."""
    if settings.offers_presenter_tools:
        presenter_bar.prepare(app, Access(settings, failed_tries.record()))


@presenter.get("/stage/sign_in")
def sign_in() -> AnyResponse:
    """Ask for the password; on to the page that was wanted where none is needed, or there is a session."""
    wanted = _path_of_ours(request.args.get("next", ""))
    if access().ask(request) is Decision.WELCOME:
        return redirect(wanted, 303)
    return sign_in_page(200, wanted)


@presenter.post("/stage/sign_in")
def try_to_sign_in() -> AnyResponse:
    """Begin a session, and go to the page that was wanted."""
    wanted = _path_of_ours(request.form.get("next", ""))
    decision = access().try_password(request, request.form.get("password", ""))
    if decision is Decision.WELCOME:
        g.is_let_in = True
        answer: AnyResponse = redirect(wanted, 303)
        answer.set_cookie(
            SESSION_COOKIE,
            access().new_session(),
            SESSION_SECONDS,
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )
        return answer
    seconds = access().seconds_to_wait(request)
    wait = f"wait {seconds} second{'' if seconds == 1 else 's'} before the next try."
    if decision is Decision.TOO_SOON:
        return sign_in_page(
            429, wanted, f"A wrong password has just come from where you are: {wait}", seconds
        )
    return sign_in_page(401, wanted, f"That is not the password: {wait}", seconds)


@presenter.post("/stage/sign_out")
def sign_out() -> AnyResponse:
    """End the session of this browser."""
    answer = redirect(url_for(".sign_in"), 303)
    answer.delete_cookie(SESSION_COOKIE, secure=request.is_secure, httponly=True, samesite="Strict")
    return answer


def _path_of_ours(path: str) -> str:
    """The same, if it leads to a page of this shop; otherwise the stage."""
    is_ours = len(path) <= _LONGEST_PATH and _PATH_OF_OURS.fullmatch(path)
    return path if is_ours else url_for("presenter.stage")
