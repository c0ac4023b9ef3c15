"""The listening socket of a server, or of the parent that hands it down to one server after another."""

from __future__ import annotations

import socket

from store.settings import BadSetting

_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        BadSetting: nobody can.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        is_every_address = family == socket.AF_INET6 and address[0] == "::"
        return socket.create_server(
            address[:2],
            family=family,
            backlog=_BACKLOG,
            dualstack_ipv6=is_every_address and socket.has_dualstack_ipv6(),  # IPv4 too
        )
    except OSError as error:
        raise BadSetting(
            f"STORE_HOST {host} and STORE_PORT {port} cannot be listened on ({error.strerror}): "
            "stop what is using them, or choose others."
        ) from error


def address_of(host: str, listener: socket.socket) -> str:
    """The URL at which `listener`, bound to `host`, is reached."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"
