"""The databases of a shop for a command, beside a server or without one: no workflow runs here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dbos import error
from sqlalchemy.exc import DBAPIError

from store import schema
from store.database import Databases
from store.database_errors import DatabaseRefused
from store.durable import step_decorators
from store.settings import Settings, refuse


@contextmanager
def opened(settings: Settings) -> Iterator[Databases]:
    """The databases, up to date and ready for changes; one that cannot be used ends the command."""
    try:
        databases = schema.connect(settings)
        try:
            step_decorators.bind_to(settings.database_url, databases.store)
            yield databases
        finally:
            databases.close()
    except DatabaseRefused as refusal:
        refuse(str(refusal))
    except (DBAPIError, error.DBOSQueryTimeoutError) as trouble:
        said = trouble.orig if isinstance(trouble, DBAPIError) else trouble
        refuse(f"The databases cannot be read: {str(said).strip().splitlines()[0]}")
