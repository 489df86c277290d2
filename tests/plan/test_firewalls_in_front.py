"""The contract's rules for a firewall in front, loaded by nft and iptables-restore into a namespace that routes: what the
kernel forwards is what the contract allows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from ipaddress import IPv4Address, IPv4Network

import pytest

from plan.contract import firewalls
from plan.contract.flow import Flow, flows
from plan.topology import Topology
from tests.plan.probe import Case, start
from tests.plan.stacks import plan

pytestmark = [
    pytest.mark.toolchain,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

STRANGER, OPERATOR, ELSEWHERE = IPv4Address("198.51.100.7"), IPv4Address("10.201.4.9"), IPv4Address("203.0.113.1")
PORTS = (22, 80, 111, 2049, 2379, 4789, 6443, 7999, 8000, 9090, 9345, 10250, 30080, 32767, 32768)
PAIR = {"count": 2, "virtualAddress": "192.168.75.10", "addresses": ["192.168.75.11", "192.168.75.9"]}
OWN = {"purpose": "ours", "to": "node", "from": ["10.201.0.0/16", "10.201.4.0/24"], "ports": [8000, "29990-40000"], "protocols": ["tcp", "udp"]}

# How each program is given its rules.
Commands = Callable[[Sequence[Flow]], list[tuple[list[str], str]]]


def by_nft(every: Sequence[Flow]) -> list[tuple[list[str], str]]:
    load = (["nft", "--file", "-"], firewalls.nftables(every))
    return [load, load]  # again, as after a change


def by_iptables(variant: str) -> Commands:
    restore, iptables = f"iptables{variant}-restore", f"iptables{variant}"

    def commands(every: Sequence[Flow]) -> list[tuple[list[str], str]]:
        load = ([restore, "--noflush"], firewalls.iptables(every))
        return [load, ([iptables, "--insert", "FORWARD", "--jump", "OPSTELLA"], ""), load]

    return commands


PROGRAMS = {"nft": by_nft, "iptables": by_iptables(""), "iptables-legacy": by_iptables("-legacy")}


@cache
def stack(architecture: str, profile: str) -> tuple[Topology, tuple[Flow, ...]]:
    several = {"clusters": {"prd": {"loadBalancer": PAIR}}} if architecture == "multicluster" else {}
    found = plan(
        architecture,
        network={"profile": profile, "rules": [OWN]}, firewall={"operatorNetworks": ["10.201.0.0/16", "10.201.4.0/24"]}, **several,
    )  # fmt: skip
    return found.topology, flows(found.contract)


def passes(every: Sequence[Flow], source: IPv4Address, destination: IPv4Address, protocol: str, port: int) -> bool:
    """Whether the contract lets a packet through; an echo always, and what goes to no machine too."""

    def among(address: IPv4Address, networks: Sequence[IPv4Network]) -> bool:
        return any(address in network for network in networks)

    to = [flow for flow in every if among(destination, flow.addresses)]
    return protocol == "icmp" or not to or any(
        flow.rule.opens(protocol, port) and (not flow.sources or among(source, flow.sources)) for flow in to
    )  # fmt: skip


@pytest.mark.parametrize(("architecture", "profile"), [("standalone", "opstella"), ("multicluster", "deckhouse")])
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_passes_is_the_contract(program: str, architecture: str, profile: str) -> None:
    needed = "nft" if program == "nft" else f"{program}-restore"
    if not shutil.which(needed, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
        pytest.skip(f"{needed} is not installed; lab/toolchain/setup does")
    machines, every = stack(architecture, profile)
    last = machines.clusters[-1]
    some = [machines.bastion, machines.gitlab, *last.load_balancers, last.nfs, last.masters[0], *last.workers[:2]]
    addresses = [*(h.address for h in some), *({last.entrance} - {h.address for h in some}), ELSEWHERE]
    others = [machines.clusters[0].workers[0].address, last.settings.pod_subnet[7], OPERATOR, STRANGER]
    sources = [*(a for a in addresses if a != ELSEWHERE), *(a for a in others if a not in addresses)]
    case = Case(
        machines=[{"addresses": [str(a) for a in addresses]}], outside=[str(s) for s in sources], ports=list(PORTS),
        front=PROGRAMS[program](every),
    )  # fmt: skip
    expected = {
        f"{source} > {destination}": sorted(
            [protocol, port]
            for protocol, port in [("icmp", 0), *((p, port) for p in ("tcp", "udp") for port in PORTS)]
            if passes(every, source, destination, protocol, port)
        )
        for source in sources
        for destination in addresses
        if source != destination
    }
    sizes = {len(found) for found in expected.values()}
    assert {1, 2 * len(PORTS) + 1} < sizes, "nothing is held back, or nothing passes: the comparison would prove nothing"
    assert start(case) == expected
