"""Rendered files judged by the software that reads them: haproxy, nft and the kernel behind it, chronyd."""

from __future__ import annotations

import os
import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given

from plan import chrony, haproxy, network
from plan.contract import firewalls
from plan.contract.flow import flows
from plan.plan import Plan
from plan.topology import Host
from tests.plan.probe import start
from tests.plan.stacks import examples, plan, stacks
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
    rulesets = {network.ruleset(h, stack.settings, stack.topology) for h in stack.topology.hosts}
    for ruleset in rulesets:
        accepted(["unshare", "--net", "nft", "--check", "--file", "-"], ruleset)


@needs("nft")
@as_root
@pytest.mark.parametrize("profile", ["opstella", "tectonic", "deckhouse", "rke2-cilium"])
@pytest.mark.parametrize("strict", [False, True], ids=["as-written", "strict"])
def test_nft_accepts_every_profile(profile: str, strict: bool) -> None:
    own = {"purpose": "ours", "to": "node", "from": ["10.0.0.0/8", "10.9.0.0/16"], "ports": [9100, "29990-40000"]}
    stack = plan("multicluster", network={"profile": profile, "strict": strict, "rules": [own]})
    rulesets = {network.ruleset(h, stack.settings, stack.topology) for h in stack.topology.hosts}
    in_front = firewalls.nftables(flows(stack.settings, stack.topology))
    for ruleset in (*rulesets, in_front):
        accepted(["unshare", "--net", "nft", "--check", "--file", "-"], ruleset)


@needs("nft")
@as_root
def test_nft_refuses_what_the_plan_avoids() -> None:
    """Overlapping networks in one set, which operators may write."""
    stack = plan(firewall={"operatorNetworks": ["10.0.0.0/8"]})
    text = network.ruleset(stack.topology.bastion, stack.settings, stack.topology)
    with pytest.raises(AssertionError, match="conflicting intervals"):
        accepted(
            ["unshare", "--net", "nft", "--check", "--file", "-"], text.replace("10.0.0.0/8", "10.0.0.0/8, 10.1.0.0/16")
        )


@needs("chronyd")
def test_chronyd_accepts_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "chrony.conf"
    file.write_text(chrony.configuration(plan().settings.time))
    accepted(["/usr/sbin/chronyd", "-p", "-f", str(file)])


STACK = plan(
    "custom",
    clusters={
        "one": {"subnet": "192.168.72.0/24", "masters": {"count": 3}, "workers": {"count": 2, "cpu": 16, "memoryGb": 32}},
        "two": {"subnet": "192.168.73.0/24", "masters": {"count": 1}, "workers": {"count": 1, "cpu": 16, "memoryGb": 32}},
    },
    firewall={"operatorNetworks": ["10.200.0.0/16", "10.200.7.0/24"]},
)
HOSTS = {h.name: h for h in STACK.topology.hosts if h.cluster in (None, "one") and not h.name.endswith(("-2", "-3"))}


@needs("nft")
@as_root
@pytest.mark.parametrize("name", HOSTS)
def test_the_kernel_lets_in_what_the_plan_allows_and_nothing_else(name: str) -> None:
    """Every port of the plan and some more, by TCP and UDP, from every machine, a pod, an operator and a stranger."""
    host: Host = HOSTS[name]
    others = [h.address for h in STACK.topology.hosts if h is not host]
    pod = STACK.settings.clusters["one"].pod_subnet[7]
    sources = [*others, pod, IPv4Network("10.200.0.0/16")[9], STRANGER]
    found = network.openings(host, STACK.settings, STACK.topology)
    through = start(
        {
            "address": str(host.address),
            "ruleset": network.ruleset(host, STACK.settings, STACK.topology),
            "sources": [str(s) for s in sources],
            "ports": PORTS,
        }
    )
    allowed = {
        str(source): sorted(
            [protocol, port]
            for protocol in ("tcp", "udp")
            for port in PORTS
            if network.allows(found, IPv4Network(source), protocol, port)
        )
        for source in sources
    }
    assert any(allowed.values()), "nothing is allowed: the comparison would prove nothing"
    assert through == allowed
