"""Addresses of clients: how they are read, and which of them count as one client."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, with or without a port, IPv4 written as IPv6 as IPv4; None if it is none."""
    try:
        if text.startswith("[") or text.count(":") == 1:
            text = urlsplit(f"//{text}").hostname or ""
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def client_at(address: IPv4Address | IPv6Address | None) -> str:
    """The client at an address; of IPv6 the network, because one client has a whole /64."""
    if isinstance(address, IPv6Address):
        return address.exploded[:19]
    return str(address)
