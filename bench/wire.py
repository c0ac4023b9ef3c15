"""A connection of a shopper: HTTP as a browser speaks it, with as little processor time as may be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    size: int
    """Bytes on the wire, head and body."""


class Line:
    """One connection, kept while the shop keeps it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, headers: dict[str, str], body: str = "") -> Reply:
        """One request, sent again where a kept connection had been closed meanwhile."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        message = ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
        async with asyncio.timeout(ANSWER_SECONDS):
            is_kept = self._streams is not None
            try:
                return await self._exchange(message)
            except (OSError, EOFError):
                self.close()
                if not is_kept:
                    raise
            return await self._exchange(message)

    def close(self) -> None:
        """Let go of it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, message: bytes) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Reply(int(first.split(" ", 2)[1]), headers, body, len(head) + len(body))
