"""The least that Flask on waitress can answer: what a poll of the store is held against."""

from __future__ import annotations

import sys

from flask import Flask
from waitress.server import create_server

from store.settings import Settings


def build() -> Flask:
    """One page, of two letters."""
    app = Flask("bare")

    @app.get("/")
    def ok() -> str:
        return "ok"

    return app


def serve(app: Flask, settings: Settings) -> None:
    """Serve an app on a free port of loopback, and say where."""
    server = create_server(app, host="127.0.0.1", port=0, threads=settings.threads)
    sys.stdout.write(f"It is open at http://127.0.0.1:{server.effective_port} now.\n")
    sys.stdout.flush()
    server.run()


if __name__ == "__main__":
    serve(build(), Settings.from_env())
