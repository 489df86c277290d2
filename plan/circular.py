"""Servers that have to answer before the machines are set up, and that lie on one of these machines.

By name that is told by `plan.warnings`; by address only the plan knows which machine has it. The bastion may be one: it
is reached first, and is often where an air gap's mirror or the time server is.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from config.errors import Problem, key
from config.model import Settings
from plan.topology import Topology


def check(settings: Settings, topology: Topology) -> Iterator[Problem]:
    """A problem for each address of such a server that a machine other than the bastion has."""
    machines = {str(host.address): host.name for host in topology.hosts if host.role != "bastion"}
    for balancer in topology.load_balancers:
        for cluster, address in balancer.virtual_addresses.items():
            machines[str(address)] = f"{balancer.hosts[0].name} (the virtual address of {cluster})"
    for path, host in _needed(settings):
        if host in machines:
            yield Problem(
                key(path),
                f"{host} is the address of {machines[host]}, a machine that this stack sets up: it needs the server before it could be one",
                f"name a server outside of this platform, or one on the bastion, {topology.bastion.address}",
            )


def _needed(settings: Settings) -> Iterator[tuple[str, str]]:
    """The path of each setting that names such a server, and the server's host."""
    media, proxy = settings.media, settings.proxy
    urls = {
        "media.artifacts": media.artifacts,
        "media.chartRepository": media.chart_repository,
        "media.registryMirror": media.registry_mirror,
        "proxy.http": proxy.http,
        "proxy.https": proxy.https,
    }
    for path, url in urls.items():
        if url:
            yield path, urlsplit(url).hostname or ""
    for number, address in enumerate(settings.dns.servers):
        yield f"dns.servers[{number}]", str(address)
    for number, server in enumerate(settings.time.servers):
        yield f"time.servers[{number}]", server
