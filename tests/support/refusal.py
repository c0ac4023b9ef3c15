"""How the shop says no: over HTTP, and when it will not open at all. In one sentence, always."""

from __future__ import annotations

import html
import os
import re

from store.settings import REFUSED, ROOT
from tests.support.shopper import HTML, Answer, Shopper
from tests.support.started import run

PROGRAM = {"Accept": "*/*"}
_SECRETS = ("Traceback", 'File "', "sqlalchemy", "sqlite", "psycopg", "SELECT ", "INSERT ", str(ROOT))


def is_one_sentence(text: str) -> bool:
    """One line, and one full stop, at its end."""
    return re.fullmatch(r"(?:[^.!?\n]|[.!?](?=\S))+\.", text) is not None


def secrets_told(answer: Answer) -> list[str]:
    """Words about how the shop is made, which are nobody's business."""
    return [secret for secret in _SECRETS if secret in answer.text]


def refuses(answer: Answer, status: int) -> bool:
    """Whether it says no with this status, in one sentence, as a page or as JSON, and tells no secret."""
    assert answer.status == status, answer
    assert not secrets_told(answer), answer
    if answer.headers["Content-Type"] == "application/json":
        assert set(answer.json) == {"error"}
        sentence = answer.json["error"]
    else:
        assert answer.text.startswith("<!doctype html>"), answer
        sentence = html.unescape(answer.alert)
    assert is_one_sentence(sentence), sentence
    return True


def is_calm_refusal(answer: Answer) -> bool:
    """A page for people that says what is going on and when to come back, and nothing more."""
    return (
        answer.status == 503
        and "catching its breath" in answer.text
        and answer.headers["Retry-After"] == "2"
        and not any(word in answer.text for word in ("Traceback", "sqlite", "psycopg", "SELECT", "INSERT"))
    )


def refuses_both(shopper: Shopper, method: str, path: str, status: int) -> bool:
    """Whether a browser is refused with a page and a program with JSON."""
    page, program = (shopper.request(method, path, headers=headers) for headers in (HTML, PROGRAM))
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert program.headers["Content-Type"] == "application/json"
    return refuses(page, status) and refuses(program, status)


def refusal(*script: str, **environ: object) -> str:
    """The one sentence with which `python app.py` refuses to start; it must end with exit code 2."""
    others = {k: v for k, v in os.environ.items() if not k.startswith(("STORE_", "DBOS_", "FLASK_"))}
    given = {
        "STORE_PORT": "0",
        "STORE_GUESTBOOK_URL": "http://127.0.0.1:9",
        **{name: str(value) for name, value in environ.items()},
    }
    shop = run(*(script or ("app.py",)), environment={**others, **given})
    assert (shop.returncode, shop.stdout) == (REFUSED, ""), shop.stderr[-2000:]
    prefix, _, sentence = shop.stderr.strip().partition(": ")
    assert prefix == "widget store"
    assert is_one_sentence(sentence), sentence
    return sentence
