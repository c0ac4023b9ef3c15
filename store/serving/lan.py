"""The addresses of this machine at which others in its networks reach it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

import ifaddr


@dataclass(frozen=True)
class Place:
    """One address, and the network that it is in, as the system calls that."""

    address: str
    network: str


def places_of_this_machine() -> list[Place]:
    """Those of IPv4, as phones are to type them; none where the machine is in no network."""
    found = [
        Place(str(ip.ip), adapter.nice_name)
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if ip.is_IPv4
    ]
    return [place for place in found if _is_reachable(place.address)]


def _is_reachable(address: str) -> bool:
    """Not by this machine alone, and not one that was made up because nobody gave it any."""
    parsed = ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified)
