"""Copies of a shop's databases, taken and put back while it is closed, as a restored backup is."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from store.settings import Settings, is_sqlite


class Copy:
    """All rows of one database of a shop, as they were when this was made."""

    def __init__(self, database_url: str, *, of_checkpoints: bool) -> None:
        settings = Settings.from_env({"DBOS_DATABASE_URL": database_url})
        url = settings.system_database_url if of_checkpoints else settings.database_url
        self._schema = None if is_sqlite(url) else "dbos" if of_checkpoints else "public"
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        with self._engine.connect() as connection:
            self._rows = {
                table: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
                for table in self._tables()
            }

    def put_back(self) -> None:
        """Have the database as it was; what came since is gone."""
        with self._engine.connect() as connection:
            # The order of the tables does not matter then.
            connection.execute(
                sa.text(
                    "SET session_replication_role = replica" if self._schema else "PRAGMA foreign_keys = OFF"
                )
            )
            for table in self._tables():
                connection.execute(sa.delete(table))
                rows = self._rows_of(table)
                if rows:
                    connection.execute(sa.insert(table), rows)
            connection.commit()

    def _tables(self) -> list[sa.Table]:
        metadata = sa.MetaData(schema=self._schema)
        metadata.reflect(self._engine)
        return [table for table in metadata.tables.values() if not table.name.startswith("sqlite_")]

    def _rows_of(self, table: sa.Table) -> list[dict[str, Any]]:
        return next((rows for known, rows in self._rows.items() if known.name == table.name), [])
