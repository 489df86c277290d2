"""Where settings point to outside of the stack, as networks and ports for a packet filter."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, collapse_addresses
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def networks_of(hosts: Iterable[str]) -> tuple[IPv4Network, ...]:
    """The addresses as networks; none, which is anyone, as soon as one is a name, whose address may change."""
    try:
        return tuple(collapse_addresses(IPv4Network(IPv4Address(host)) for host in hosts))
    except AddressValueError:
        return ()


def of_url(url: str) -> tuple[tuple[IPv4Network, ...], int]:
    """Networks and port of a URL with the scheme http or https."""
    parts = urlsplit(url)
    return networks_of([parts.hostname or ""]), parts.port or _PORTS[parts.scheme]
