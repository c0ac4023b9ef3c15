"""A shop that will not open, and says why."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from store.config import REFUSED, ROOT


def is_one_sentence(text: str) -> bool:
    """One line, and one full stop, at its end."""
    return re.fullmatch(r"(?:[^.!?\n]|[.!?](?=\S))+\.", text) is not None


def refusal(*script: str, **environ: object) -> str:
    """The one sentence with which `python app.py` refuses to start; it must end with exit code 2."""
    others = {k: v for k, v in os.environ.items() if not k.startswith(("STORE_", "DBOS_", "FLASK_"))}
    given = {"STORE_PORT": "0", **{name: str(value) for name, value in environ.items()}}
    shop = subprocess.run(
        [sys.executable, *(script or ("app.py",))],
        cwd=ROOT,
        env={**others, **given},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (shop.returncode, shop.stdout) == (REFUSED, ""), shop.stderr[-2000:]
    prefix, _, sentence = shop.stderr.strip().partition(": ")
    assert prefix == "widget store"
    assert is_one_sentence(sentence), sentence
    return sentence
