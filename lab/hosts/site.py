"""`Site`: what the lab has to build, read from the plan's JSON. Pure: touches no machine.

The lab knows no host of its own. `python -m plan --config-file FILE` prints the hosts, the
subnets and the DNS records; this module checks them and gives each a place in the lab.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

SERVICES_ADDRESS = IPv4Address("198.18.0.1")
"""Where media, charts, Debian packages (HTTP), time and names are served, in the operator's
namespace. 198.18.0.0/15 is reserved for tests (RFC 2544), so no plan uses it."""
SERVICES_PORT = 8000

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class SiteError(Exception):
    """The plan cannot be built as a lab; the message says which part and what to do."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """One machine of the plan. Sizes are whole cores and GB; the lab does not enforce them."""

    name: str
    role: str
    cluster: str
    interface: IPv4Interface
    index: int
    """Position in the plan; names the host's link (`v<index>`) in the operator's namespace."""
    cpu: int = 0
    memory_gb: int = 0
    disk_gb: int = 0

    @property
    def address(self) -> IPv4Address:
        return self.interface.ip

    @property
    def link(self) -> str:
        return f"v{self.index}"


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """One of the plan's subnets: a bridge in the operator's namespace, which is its router."""

    network: IPv4Network
    index: int

    @property
    def gateway(self) -> IPv4Interface:
        return IPv4Interface((self.network.network_address + 1, self.network.prefixlen))

    @property
    def bridge(self) -> str:
        return f"br{self.index}"


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything that `up` builds."""

    stack: str
    domain: str
    hosts: tuple[Host, ...]
    subnets: tuple[Subnet, ...]
    records: tuple[tuple[str, IPv4Address], ...] = field(default=())
    """DNS name and address; a name that begins with `*.` answers for everything below it."""

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        raise SiteError(f"no host {name!r} in this lab; its hosts are {', '.join(h.name for h in self.hosts)}")

    def subnet_of(self, host: Host) -> Subnet:
        for subnet in self.subnets:
            if host.address in subnet.network:
                return subnet
        raise SiteError(f"host {host.name}: {host.address} lies in none of the plan's subnets")

    @property
    def bastion(self) -> Host:
        for host in self.hosts:
            if host.role == "bastion":
                return host
        raise SiteError("the plan has no host with the role bastion; the lab reaches its hosts through it")

    @property
    def services(self) -> str:
        """Base URL of the lab's HTTP server."""
        return f"http://{SERVICES_ADDRESS}:{SERVICES_PORT}"

    @classmethod
    def from_plan(cls, plan: Mapping[str, Any]) -> Site:
        """Reads the plan's JSON object; raises `SiteError` with every fault it finds."""
        faults: list[str] = []
        for key in ("stack", "domain", "hosts", "subnets"):
            if key not in plan:
                faults.append(f"the key {key!r} is missing")
        if faults:
            raise SiteError("the plan's JSON is not what the lab expects: " + "; ".join(faults))
        subnets = tuple(
            Subnet(network=IPv4Network(text), index=i) for i, text in enumerate(dict.fromkeys(plan["subnets"]))
        )
        for i, one in enumerate(subnets):
            for other in subnets[i + 1 :]:
                if one.network.overlaps(other.network):
                    faults.append(f"subnets {one.network} and {other.network} overlap")
            if SERVICES_ADDRESS in one.network:
                faults.append(f"subnet {one.network} holds {SERVICES_ADDRESS}, which the lab's services need")
        hosts = []
        names: dict[str, str] = {}
        taken: dict[IPv4Address, str] = {s.gateway.ip: f"the gateway of {s.network}" for s in subnets}
        for index, row in enumerate(plan["hosts"]):
            host = Host(
                name=row["name"],
                role=row["role"],
                cluster=row.get("cluster") or "",
                interface=IPv4Interface(f"{row['address']}/{row['prefix_length']}"),
                index=index,
                cpu=row.get("cpu", 0),
                memory_gb=row.get("memory_gb", 0),
                disk_gb=row.get("disk_gb", 0),
            )
            if not _NAME.fullmatch(host.name):
                faults.append(f"host name {host.name!r} is not a DNS label")
            if host.name in names or host.name in ("lab", "services"):
                faults.append(f"host name {host.name!r} stands twice, or is the lab's own")
            names[host.name] = host.name
            if host.address in taken:
                faults.append(f"host {host.name}: {host.address} is taken by {taken[host.address]}")
            taken[host.address] = host.name
            if not any(host.address in s.network for s in subnets):
                faults.append(f"host {host.name}: {host.address} lies in none of the plan's subnets")
            hosts.append(host)
        if not hosts:
            faults.append("it has no hosts")
        records = tuple((row["name"].lower().rstrip("."), IPv4Address(row["address"])) for row in plan.get("dns", ()))
        if faults:
            raise SiteError("the plan cannot be built as a lab: " + "; ".join(faults))
        return cls(
            stack=plan["stack"], domain=plan["domain"], hosts=tuple(hosts), subnets=subnets, records=records
        )


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the lab calls things on this machine; two labs with different names do not meet.

    `OPSTELLA_LAB_NAME` (default `opstella`) begins every namespace, cgroup and lock;
    `OPSTELLA_LAB` (default `/var/lib/<name>-lab`) holds every file.
    """

    name: str
    folder: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Names:
        name = environment.get("OPSTELLA_LAB_NAME") or "opstella"
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,19}", name):
            raise SiteError(f"OPSTELLA_LAB_NAME={name!r}: take up to 20 lower-case letters, digits and hyphens")
        folder = environment.get("OPSTELLA_LAB") or f"/var/lib/{name}-lab"
        if not folder.startswith("/") or folder.rstrip("/").count("/") < 2 or ".." in folder.split("/"):
            raise SiteError(f"OPSTELLA_LAB={folder!r}: take an absolute path at least two levels deep; it is emptied by `down`")
        return cls(name=name, folder=folder.rstrip("/"))

    @property
    def operator(self) -> str:
        """Namespace of the operator: router of the subnets, place of everything that drives the stack."""
        return f"{self.name}-lab"

    def namespace(self, host: str) -> str:
        return f"{self.name}-{host}"

    @property
    def cgroup(self) -> str:
        return f"{self.name}-lab"

    @property
    def lock(self) -> str:
        return f"/run/lock/{self.name}-lab.lock"

    @property
    def owner(self) -> str:
        """File that says whose lab is up under this name: JSON with folder, checkout, stack."""
        return f"/run/{self.name}-lab.json"


def dnsmasq_configuration(site: Site) -> str:
    """The name server's configuration: the plan's records, `NXDOMAIN` for everything else."""
    lines = [
        "no-resolv",
        "no-hosts",
        "no-daemon",
        "bind-interfaces",
        f"listen-address={SERVICES_ADDRESS}",
        "user=root",
        "pid-file=",
        "cache-size=0",
        "# every other name: NXDOMAIN; nothing is forwarded",
        "address=/#/",
    ]
    for name, address in site.records:
        if name.startswith("*."):
            lines.append(f"address=/{name[2:]}/{address}")
        else:
            lines.append(f"host-record={name},{address}")
    return "\n".join(lines) + "\n"


def chrony_configuration() -> str:
    """The time server's configuration: it serves this machine's clock and never sets it (`-x`)."""
    return (
        "\n".join(
            [
                "local stratum 8",
                "allow all",
                f"bindaddress {SERVICES_ADDRESS}",
                "cmdport 0",
                "bindcmdaddress /",
                "pidfile /run/chronyd-lab.pid",
            ]
        )
        + "\n"
    )


def lacks_route_out(routes: list[dict[str, Any]], site: Site) -> list[str]:
    """Checks the operator namespace's routes (`ip -j route show table all`).

    Returns the faults: any default route, and any route to a network that is none of the plan's.
    """
    known = [s.network for s in site.subnets] + [IPv4Network(f"{SERVICES_ADDRESS}/32"), IPv4Network("127.0.0.0/8")]
    faults = []
    for route in routes:
        destination = route["dst"]
        if destination == "default":
            faults.append(f"a default route: {route}")
            continue
        if ":" in destination:
            continue
        network = IPv4Network(destination)
        if not any(network.subnet_of(k) for k in known):
            faults.append(f"a route to {destination} by {route.get('dev')}")
    return faults
