"""Annotated URLs, and what is reached without a proxy; a refused value is only repeated without its login."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from config.errors import Fault
from config.types import LABEL, host_name, shown


def _remote(value: str) -> bool:
    """Whether `value` is an http or https URL. Raises Fault where it has a login, or a host that is none."""
    try:
        parts = urlsplit(value)
        port_valid = parts.port is None or parts.port > 0
    except ValueError:
        return False
    if parts.username is not None or parts.password is not None:
        # It would stand in clear in the state and on every machine.
        raise Fault(
            f"{shown(value)} contains a login",
            "remove the login from the URL, and have the server admit the machines by their addresses",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_valid or re.search(r"[\s'\"\\]", value):
        return False
    host_name(parts.hostname)
    return True


def _url(value: str) -> str:
    fix = "write a URL that begins with http:// or https://, or file:/// and the path of a folder on the machines"
    local = re.fullmatch(r"file:///[^\s'\"\\/][^\s'\"\\]*", value)
    if not local and not _remote(value):
        raise Fault(f"{shown(value)} is not a URL", fix)
    return value.rstrip("/")


def _web_url(value: str, fix: str = "write a URL that begins with http:// or https://") -> str:
    if value.startswith("file:"):
        raise Fault(f"{shown(value)} is a local path", fix)
    if not _remote(value):
        raise Fault(f"{shown(value)} is not a URL of http or https", fix)
    return value.rstrip("/")


def _proxy_url(value: str) -> str:
    url = _web_url(value)
    parts = urlsplit(url)
    if parts.path or parts.query or parts.fragment or "$" in url:
        # Shells, systemd and apt read it from files of theirs, and each takes a proxy for a host and a port.
        raise Fault(f"{shown(value)} is more than a proxy's host and port", "write those alone, as http://proxy.example.com:3128")
    return url


def _mirror_url(value: str) -> str:
    # By http:// it is refused unless opstella:media.allowHttp accepts that (config/checks.py).
    return _web_url(value, "write a URL that begins with https://")


def _unproxied(value: str) -> str:
    """A name, a name's ending, an address or a network that programs reach without the proxy (no_proxy)."""
    name = re.sub(r"(?<=[^:]):\d{1,5}\Z", "", value.removeprefix("*.").removeprefix("."))  # Go and curl take a port
    try:
        ipaddress.ip_network(name, strict=False)
    except ValueError:
        if value != "*" and not all(LABEL.match(label) for label in name.lower().split(".")):
            raise Fault(
                f"{shown(value)} is not a name, an address or a network",
                "write each by itself, such as intranet.example.com, .example.com, 10.1.2.3 or 10.0.0.0/8",
            ) from None
    return value


Url = Annotated[str, AfterValidator(_url)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
ProxyUrl = Annotated[str, AfterValidator(_proxy_url)]
MirrorUrl = Annotated[str, AfterValidator(_mirror_url)]
Unproxied = Annotated[str, AfterValidator(_unproxied)]
