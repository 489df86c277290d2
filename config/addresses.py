"""Every address that the settings name, wherever it is: alone, as a network, as host:port, or as the host of a URL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from config.errors import Problem, key
from config.model import Settings

_NETWORKS_THEMSELVES = re.compile(r"clusters\.[^.]+\.(subnet|podSubnet|serviceSubnet)")
# What may mean pods: who is let in, where machines may connect to, what needs no proxy. The values of charts are theirs.
_MAY_BE_PODS = re.compile(r"network\.(rules|egress)\b.*|proxy\.noProxy\b.*|tools\.[^.]+\.values\b.*")


def named(settings: Settings) -> Iterator[tuple[str, IPv4Network]]:
    """The path of each value that is or contains an IPv4 address or network, and that network; secrets are not read.

    A single address is a network of the prefix length 32. Clusters that are left out (`enabled: false`) are too.
    """
    for path, network in _walk("", settings):
        cluster = re.match(r"clusters\.([^.\[]+)", path)
        if cluster is None or cluster[1] in settings.enabled_clusters:
            yield path, network


def check_inside(settings: Settings) -> Iterator[Problem]:
    """A problem for each address that belongs to the pods or Services of a cluster.

    Nodes send what is addressed to such a network to a pod or nowhere: Calico does not masquerade it, kube-proxy has no
    Service there. So nothing outside of the cluster is reached at such an address.
    """
    inner = [
        (key("clusters", name, field), network)
        for name, cluster in settings.enabled_clusters.items()
        for field, network in (("podSubnet", cluster.pod_subnet), ("serviceSubnet", cluster.service_subnet))
    ]
    for path, network in named(settings):
        if _NETWORKS_THEMSELVES.fullmatch(path) or _MAY_BE_PODS.fullmatch(path):
            continue
        shown = network.network_address if network.prefixlen == 32 else network
        around: dict[IPv4Network, list[str]] = {}
        for where, wide in inner:
            if network.subnet_of(wide):
                around.setdefault(wide, []).append(where)
        for wide, keys in around.items():
            yield Problem(
                key(path),
                f"{shown} is inside {wide}, which is {' and '.join(keys)}: nodes and pods do not reach anything else there",
                f"write an address outside of {wide}, or give the cluster another network in {keys[0]} (before it is "
                "created: the network of a running cluster cannot be changed)",
            )


def check_own(settings: Settings) -> Iterator[Problem]:
    """A problem for each name server and proxy at an address that is each machine's own: pods ask them, too, and a pod's
    own address is not its node's."""
    asked = [*((f"dns.servers[{n}]", str(a)) for n, a in enumerate(settings.dns.servers))]
    asked += [(f"proxy.{name}", urlsplit(url).hostname or "") for name in ("http", "https") if (url := getattr(settings.proxy, name))]
    for path, host in asked:
        network = _in_text(host)
        if host == "localhost" or (network is not None and (network.is_loopback or network.is_unspecified or network.is_multicast)):
            yield Problem(
                key(path),
                f"{host} is not the address of another machine: pods, and all machines, would ask themselves",
                "write the server's own address, such as 192.168.72.2"
                + (" (behind systemd-resolved, `resolvectl status` shows it)" if path.startswith("dns") else ""),
            )


def _walk(path: str, value: Any) -> Iterator[tuple[str, IPv4Network]]:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _walk(_below(path, field.alias or to_camel(name)), getattr(value, name))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _walk(_below(path, str(name)), inner)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for number, inner in enumerate(value):
            yield from _walk(f"{path}[{number}]", inner)
    elif (network := _network(value)) is not None:
        yield path, network


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _network(value: Any) -> IPv4Network | None:
    if isinstance(value, IPv4Network):
        return value
    if isinstance(value, IPv4Address):
        return IPv4Network(value)
    return _in_text(value) if isinstance(value, str) else None


def _in_text(text: str) -> IPv4Network | None:
    """The address in `text`: 10.0.0.1, 10.0.0.1:25, or a URL whose host it is; None where there is none."""
    try:
        host = urlsplit(text if "://" in text else f"//{text}").hostname or ""
        return IPv4Network(IPv4Address(host))
    except (AddressValueError, ValueError):
        return None
