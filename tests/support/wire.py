"""What goes over the wire: a connection that is kept, and answers as they come, byte for byte."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Raw:
    """One answer as it came."""

    head: bytes
    """With the empty line that ends it."""
    body: bytes

    @property
    def status(self) -> int:
        """The number in its first line."""
        return int(self.head.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        """By name, as the server writes them."""
        lines = self.head.decode("latin-1").strip().split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines)

    @property
    def size(self) -> int:
        """Bytes, head and body."""
        return len(self.head) + len(self.body)


class Wire:
    """One connection to a shop, for one request after the other. EOFError if the shop closes it."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._host = where.netloc
        self._socket = socket.create_connection((where.hostname or "", where.port or 80), TIMEOUT_SECONDS)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._socket.close()

    def get(self, path: str, **headers: str) -> Raw:
        """GET with these headers and no others; _ in a name stands for -."""
        lines = [f"GET {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self._file.readline()
            if not line:
                raise EOFError("the shop has closed the connection")
            head += line
        answer = Raw(head, b"")
        return Raw(head, self._file.read(int(answer.headers.get("Content-Length", 0))))
