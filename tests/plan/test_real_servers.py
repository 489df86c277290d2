"""Rendered files judged by the software that reads them: haproxy, nft and the kernel behind it, chronyd."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plan import chrony, haproxy, network, nftables
from plan.contract import firewalls
from plan.contract.flow import flows
from plan.contract.rule import Rule
from plan.plan import Plan
from plan.topology import Host
from tests.plan.probe import Machine, start
from tests.plan.stacks import contracts, examples, plan, stacks
from tests.plan.test_network import PORTS, STRANGER

pytestmark = pytest.mark.toolchain


def needs(program: str) -> pytest.MarkDecorator:
    there = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return pytest.mark.skipif(there is None, reason=f"{program} is not installed; lab/toolchain/setup does")


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def accepted(command: list[str], text: str | None = None) -> None:
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{run.stdout}{run.stderr}\n{text}"


@needs("haproxy")
@examples(8)
@given(stacks())
def test_haproxy_accepts_its_configuration(tmp_path_factory: pytest.TempPathFactory, stack: Plan) -> None:
    file = tmp_path_factory.mktemp("haproxy") / "haproxy.cfg"
    for balancer in stack.topology.load_balancers:
        file.write_text(haproxy.configuration(balancer))
        accepted(["/usr/sbin/haproxy", "-c", "-f", str(file)])


@needs("haproxy")
def test_haproxy_refuses_a_broken_configuration(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(haproxy.configuration(plan().topology.load_balancers[0]).replace("balance leastconn", "balance least"))
    with pytest.raises(AssertionError, match="balance"):
        accepted(["/usr/sbin/haproxy", "-c", "-f", str(file)])


@needs("nft")
@as_root
@examples(10)
@given(stacks(most_workers=30))
def test_nft_accepts_every_ruleset(stack: Plan) -> None:
    rulesets = {nftables.ruleset(h, stack.contract) for h in stack.topology.hosts}
    for ruleset in rulesets:
        accepted(["unshare", "--net", "nft", "--check", "--file", "-"], ruleset)


@needs("nft")
@as_root
@pytest.mark.parametrize("profile", ["opstella", "tectonic", "deckhouse", "rke2-cilium"])
@pytest.mark.parametrize("strict", [False, True], ids=["as-written", "strict"])
def test_nft_accepts_every_profile(profile: str, strict: bool) -> None:
    own = {"purpose": "ours", "to": "node", "from": ["10.0.0.0/8", "10.9.0.0/16"], "ports": [9100, "29990-40000"]}
    stack = plan("multicluster", network={"profile": profile, "strict": strict, "rules": [own]})
    rulesets = {nftables.ruleset(h, stack.contract) for h in stack.topology.hosts}
    in_front = firewalls.nftables(flows(stack.contract))
    for ruleset in (*rulesets, in_front):
        accepted(["unshare", "--net", "nft", "--check", "--file", "-"], ruleset)


@needs("nft")
@as_root
def test_nft_refuses_what_the_plan_avoids() -> None:
    """Overlapping networks in one set, which operators may write."""
    stack = plan(firewall={"operatorNetworks": ["10.0.0.0/8"]})
    text = nftables.ruleset(stack.topology.bastion, stack.contract)
    with pytest.raises(AssertionError, match="conflicting intervals"):
        accepted(
            ["unshare", "--net", "nft", "--check", "--file", "-"], text.replace("10.0.0.0/8", "10.0.0.0/8, 10.1.0.0/16")
        )


@needs("chronyd")
def test_chronyd_accepts_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "chrony.conf"
    file.write_text(chrony.configuration(plan().settings.time))
    accepted(["/usr/sbin/chronyd", "-p", "-f", str(file)])


ECHO: list[str | int] = ["icmp", 0]
STRANGER_6 = IPv6Address("fd00:198:51::7")
_ANYTHING = Rule(source="all", target="outside", protocols=("tcp", "udp"), ports=(), ranges=((1, 65535),), purpose="anything")
FREE = (network.Opening(rule=_ANYTHING, networks=()),)
"""What a machine may open whose egress is not enforced."""


def allowed(found: Iterable[network.Opening], other: IPv4Address, ports: Iterable[int]) -> list[list[str | int]]:
    """By the plan, and an echo."""
    every = tuple(found)
    pairs = [(protocol, port) for protocol in ("tcp", "udp") for port in ports]
    return [ECHO, *([p, port] for p, port in pairs if network.allows(every, IPv4Network(other), p, port))]


def probed(stack: Plan, hosts: Sequence[Host], peers: Iterable[IPv4Address], ports: Iterable[int]) -> None:
    """What gets through to `hosts` from their `peers` and from a stranger with IPv6, and back to them, is what the plan
    allows."""
    others, knocked = tuple(dict.fromkeys(peers)), sorted(set(ports))
    addresses_6 = {host: IPv6Address(f"fd00:198:51:1::{number:x}") for number, host in enumerate(hosts, 1)}
    machines: list[Machine] = [
        {
            "addresses": [str(host.address), str(addresses_6[host])],
            "ruleset": nftables.ruleset(host, stack.contract),
        }
        for host in hosts
    ]
    through = start(
        {"machines": machines, "outside": [*map(str, others), str(STRANGER_6)], "ports": knocked, "outward": True}
    )
    expected = {}
    for host in hosts:
        own, inward, outward = [o for o in others if o != host.address], network.openings(host, stack.contract), FREE
        if stack.settings.network.egress.enforce:
            outward = network.exits(host, stack.contract)
        expected |= {f"{other} > {host.address}": allowed(inward, other, knocked) for other in own}
        expected |= {f"{host.address} > {other} outside": allowed(outward, other, knocked) for other in own}
        # Of networks the plan knows only IPv4's: IPv6 is for what anyone may. An echo says that neighbours find one another.
        there, back = f"{STRANGER_6} > {addresses_6[host]}", f"{addresses_6[host]} > {STRANGER_6} outside"
        for pair, found in ((there, inward), (back, outward)):
            expected[pair] = allowed([o for o in found if not o.networks], STRANGER, knocked)
        # The kernel has one ICMPv6 socket for all namespaces, which refusals of other connections may have filled.
        expected[back].remove(ECHO)
        through[back] = [answer for answer in through[back] if answer != ECHO]
    assert any(found != [ECHO] for found in expected.values()), "nothing is allowed: the comparison would prove nothing"
    assert through == expected


def somebody(stack: Plan) -> list[IPv4Address]:
    """A pod of each cluster, an operator, a stranger."""
    operators = [networks[-2] for networks in stack.settings.firewall.operator_networks if networks.num_addresses > 2]
    return [*(cluster.settings.pod_subnet[7] for cluster in stack.topology.clusters), *operators, STRANGER]


@needs("nft")
@as_root
@pytest.mark.parametrize("enforce", [False, True], ids=["inward", "both-ways"])
def test_the_kernel_lets_through_what_the_plan_allows_and_nothing_else(enforce: bool) -> None:
    """Every port of the plan and some more, by TCP and UDP, from and to every machine and somebody else."""
    stack = plan(
        "custom",
        clusters={
            "one": {"subnet": "192.168.72.0/24", "masters": {"count": 3}, "workers": {"count": 2, "cpu": 16, "memoryGb": 32}},
            "two": {"subnet": "192.168.73.0/24", "masters": {"count": 1}, "workers": {"count": 1, "cpu": 16, "memoryGb": 32}},
        },
        firewall={"operatorNetworks": ["10.200.0.0/16", "10.200.7.0/24"]},
        network={"egress": {"enforce": enforce}},
    )
    hosts = [h for h in stack.topology.hosts if h.cluster in (None, "one") and not h.name.endswith(("-2", "-3"))]
    probed(stack, hosts, [*(h.address for h in stack.topology.hosts), *somebody(stack)], PORTS)


def edges(openings: Iterable[network.Opening]) -> set[int]:
    """The ports at both ends of every range, and those beside them."""
    ends = {end for o in openings for low, high in o.rule.intervals for end in (low - 1, low, high, high + 1)}
    return {port for port in ends if 0 < port < 65536}


@st.composite
def encounters(draw: st.DrawFn) -> tuple[Plan, list[Host], list[IPv4Address], list[int]]:
    """A host of each role of any stack, some who speak to them, and ports of which most mean something."""
    stack = draw(contracts())
    roles: dict[str, list[Host]] = {}
    for host in stack.topology.hosts:
        roles.setdefault(host.role, []).append(host)
    hosts = [draw(st.sampled_from(group)) for group in roles.values()]
    others = [draw(st.sampled_from(group)).address for group in roles.values()]
    others += draw(st.lists(st.sampled_from([h.address for h in stack.topology.hosts]), max_size=4))
    both = [(*network.openings(host, stack.contract), *network.exits(host, stack.contract)) for host in hosts]
    meant = sorted(set().union(*map(edges, both)))
    ports = draw(st.lists(st.sampled_from(meant), min_size=min(30, len(meant)), max_size=40, unique=True))
    return stack, hosts, [*others, *somebody(stack)], [*ports, draw(st.integers(1, 65535))]


@needs("nft")
@as_root
@examples(10)
@given(encounters())
def test_the_kernel_agrees_about_any_stack(encounter: tuple[Plan, list[Host], list[IPv4Address], list[int]]) -> None:
    """Under any profile, strict or not, with rules of the user's own."""
    probed(*encounter)
