"""The shop, but it never syncs: `synchronous = OFF`, which SIGKILL forgives and a power cut does not.

python -m tests.power.careless server
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from store import database

if __name__ == "__main__":
    careful = database._writer  # noqa: SLF001 - a planted fault

    def careless(url: str, pool_size: int) -> sa.Engine:
        """The same engine, without its promise."""
        engine = careful(url, pool_size)

        @sa.event.listens_for(engine, "connect")
        def forget(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA synchronous = OFF")

        return engine

    database._writer = careless  # noqa: SLF001

    import app

    app.main()
