"""How many connections each client has open, and how many it may have."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from store import client_addresses
from store.settings import Settings

_WARNING_SECONDS = 60
_log = logging.getLogger("store")


class ClientConnections:
    """How many connections each client has open. A client is an address, or a /64 of IPv6."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: Counter[str] = Counter()
        # Connections are opened by the thread that reads; nearly all are closed by it, but not all.
        self._lock = threading.Lock()
        self._warned_at = float("-inf")

    def admits(self, host: str) -> bool:
        """Whether that address may open another one. A proxy of ours always may: it is many clients."""
        limit = self._settings.connections_per_client
        client = self.client_at(host)
        if not limit or client is None or self._open[client] < limit:
            return True
        if time.monotonic() - self._warned_at > _WARNING_SECONDS:
            self._warned_at = time.monotonic()
            _log.warning("%s has %d connections: STORE_CONNECTIONS_PER_CLIENT allows no more", host, limit)
        return False

    def client_at(self, host: str) -> str | None:
        """Whom a connection counts for; None for a proxy of ours."""
        address = client_addresses.parse_address(host)
        return None if self._settings.is_trusted_proxy(address) else client_addresses.client_at(address)

    def add(self, client: str | None, change: int) -> None:
        """Count a connection that was opened (1) or closed (-1)."""
        if client is not None:
            with self._lock:
                self._open[client] += change
                if not self._open[client]:
                    del self._open[client]

    def of(self, client: str | None) -> int:
        """How many that client has; none for a proxy of ours."""
        return self._open[client] if client is not None else 0
