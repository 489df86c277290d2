"""Two load balancers before two clusters, in a lab of five machines: what clients at the virtual addresses notice.

Of each cluster there is one worker, with a server that says the cluster's name in place of the ingress. A client at
each address opens a connection every tenth of a second, and wants to read that cluster's name. Needs root.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml

from components.host import standard_input
from config.load import from_stack_file
from plan import haproxy, hosts, keepalived
from plan.hosts import Values
from plan.plan import Plan, build
from plan.topology import Host, LoadBalancerHosts

pytestmark = [pytest.mark.lab, pytest.mark.quiet]

ROOT = Path(__file__).resolve().parents[2]
NAME = f"f{os.getpid() % 100000}"
ADDRESSES = {"one": "192.168.72.10", "two": "192.168.72.8"}
"""Cluster to its virtual address, at the load balancers of the first."""
BEARABLE_SECONDS = 5.0
PAIR = {"count": 2, "virtualAddress": ADDRESSES["one"], "addresses": ["192.168.72.12", "192.168.72.9"]}
BEHIND = {"sharedWith": "one", "virtualAddress": ADDRESSES["two"]}


def stack(one: Mapping[str, object] = PAIR, two: Mapping[str, object] = BEHIND) -> dict[str, object]:
    """A stack file whose clusters have these load balancers."""
    nodes = {"masters": {"count": 1}, "workers": {"count": 1, "cpu": 64, "memoryGb": 256}}
    return {
        "opstella:architecture": "custom",
        "opstella:domain": "two.example.com",
        "opstella:ssh": {"user": "ops", "privateKey": "file:key"},
        "opstella:clusters": {
            "one": {"subnet": "192.168.72.0/24", "loadBalancer": dict(one), **nodes},
            "two": {"subnet": "192.168.73.0/24", "loadBalancer": dict(two), **nodes},
        },
    }


# Says its name to whoever connects.
_SERVER = f"""
import socket, sys
listening = socket.create_server(("", {haproxy.INGRESS_HTTP}), backlog=64)
while True:
    connection, _ = listening.accept()
    try:
        connection.sendall(sys.argv[1].encode())
    except OSError:
        pass
    connection.close()
"""
# One line a connection: the address, when it was begun, in seconds of a clock of its own, and what was read.
_PROBE = """
import socket, sys, threading, time
def once(address):
    began = time.monotonic()
    try:
        with socket.create_connection((address, 80), timeout=1) as connection:
            connection.settimeout(1)
            said = connection.recv(64).decode() or "-"
    except OSError:
        said = "-"
    sys.stdout.write(f"{address} {began} {said}\\n")  # at once, line end and all: others write too
    sys.stdout.flush()
while True:
    for address in sys.argv[1:]:
        threading.Thread(target=once, args=(address,), daemon=True).start()
    time.sleep(0.1)
"""


class Probe:
    """A steady client at each address, from the operator's place, while the context lasts."""

    def __init__(self, addresses: Mapping[str, str] = ADDRESSES) -> None:
        self.addresses = addresses
        self.seen: dict[str, list[tuple[float, str]]] = {cluster: [] for cluster in addresses}

    def __enter__(self) -> Probe:
        command = ["ip", "netns", "exec", f"{NAME}-lab", sys.executable, "-c", _PROBE, *self.addresses.values()]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(1.5)
        self._process.terminate()
        clusters = {address: cluster for cluster, address in self.addresses.items()}
        for line in self._process.communicate()[0].splitlines():
            address, began, said = line.split()
            self.seen[clusters[address]].append((float(began), said))
        for cluster, seen in self.seen.items():
            seen.sort()
            assert {said for _, said in seen} <= {cluster, "-"}, f"another cluster's server answered for {cluster}"
            assert any(said == cluster for _, said in seen), f"nothing of {cluster} was reached at all"

    def lost(self, cluster: str) -> int:
        return [said for _, said in self.seen[cluster]].count("-")

    def gap(self, cluster: str) -> float:
        """Seconds between two connections that reached `cluster`, the longest."""
        good = [began for began, said in self.seen[cluster] if said == cluster]
        return max(later - earlier for earlier, later in itertools.pairwise(good))

    @property
    def nothing_lost(self) -> bool:
        return not any(self.lost(cluster) for cluster in self.addresses)

    def __str__(self) -> str:
        return ", ".join(f"{c}: {self.lost(c)} connections lost, gap {self.gap(c):.1f} s" for c in self.addresses)


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "lab"
        self.file = folder / "Pulumi.two.yaml"
        self.file.write_text(yaml.safe_dump({"config": stack()}))
        self.environment = {**os.environ, "OPSTELLA_LAB_NAME": NAME, "OPSTELLA_LAB": str(self.folder)}

    def __call__(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [ROOT / "lab/lab", *arguments], env=self.environment, input=stdin, capture_output=True, text=True,
            timeout=600, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"lab/lab {' '.join(arguments)}: {done.stderr}"
        return done

    def send(self, host: Host, phase: str, values: Values, script: str = "") -> subprocess.CompletedProcess[str]:
        command = f"sudo -n timeout 200 bash -s -- {phase}"
        return self("ssh", host.name, command, stdin=standard_input(script or phase, values), check=False)

    def console(self, host: Host, script: str) -> str:
        return self("exec", host.name, "bash", "-c", script).stdout

    def holders(self, balancer: LoadBalancerHosts, cluster: str) -> list[str]:
        """The machines that have the cluster's virtual address."""
        shown = f"ip -o addr show to {ADDRESSES[cluster]}/32"
        return [host.name for host in balancer.hosts if self.console(host, shown)]

    def holder(self, balancer: LoadBalancerHosts, cluster: str) -> Host:
        (name,) = self.holders(balancer, cluster)
        return next(host for host in balancer.hosts if host.name == name)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.fail("the lab needs root: sudo -E make test-lab")
    lab = Lab(tmp_path_factory.mktemp("lab"))
    machines = "one-haproxy-1,one-haproxy-2,one-worker-1,two-worker-1"
    lab("up", "--bare", "--config-file", str(lab.file), "--only", machines)
    with contextlib.ExitStack() as servers:
        for cluster in ADDRESSES:
            command = ["ip", "netns", "exec", f"{NAME}-{cluster}-worker-1", sys.executable, "-c", _SERVER, cluster]
            servers.callback(subprocess.Popen(command).kill)
        yield lab
    lab("down")


def planned(lab: Lab, **balancers: Mapping[str, object]) -> Plan:
    file = lab.folder / "Pulumi.changed.yaml"
    file.write_text(yaml.safe_dump({"config": stack(**balancers)}))
    return build(from_stack_file(file), "opstella/two")


@pytest.fixture(scope="module")
def plan(lab: Lab) -> Plan:
    return planned(lab)


@pytest.fixture(scope="module")
def balancer(lab: Lab, plan: Plan) -> LoadBalancerHosts:
    """Both machines set up, by the phases and values of a deployment."""
    (balancer,) = plan.topology.load_balancers
    for host in balancer.hosts:
        base = hosts.prepare(host, plan.contract, plan.stack)
        done = lab.send(host, "prepare", {**base, "ca_bundle": "", "rollback_seconds": 3600})
        assert done.returncode == 0, done.stderr
        configured(lab, balancer, host)
    return balancer


def configured(lab: Lab, balancer: LoadBalancerHosts, host: Host, to: Host | None = None) -> str:
    """Both of its phases sent to `host`, or to that machine of the lab which is in its place; what they said."""
    said = ""
    for phase, values in (
        ("haproxy", {"config": haproxy.configuration(balancer)}),
        ("keepalived", keepalived.values(balancer, host)),
    ):
        done = lab.send(to or host, phase, values)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        said += done.stderr
    return said


def set_up(lab: Lab, balancer: LoadBalancerHosts, host: Host, **changes: str) -> subprocess.CompletedProcess[str]:
    return lab.send(host, "keepalived", {**keepalived.values(balancer, host), **changes})


def other(balancer: LoadBalancerHosts, host: Host) -> Host:
    return next(b for b in balancer.hosts if b != host)


def test_one_of_them_holds_each_address_and_a_second_run_changes_nothing(lab: Lab, balancer: LoadBalancerHosts) -> None:
    assert all(len(lab.holders(balancer, cluster)) == 1 for cluster in ADDRESSES)
    with Probe() as probe:
        for host in balancer.hosts:
            assert ": changed:" not in configured(lab, balancer, host)
    assert probe.nothing_lost


def test_a_refused_configuration_leaves_the_running_one(lab: Lab, balancer: LoadBalancerHosts) -> None:
    host = balancer.hosts[0]
    before = lab.console(host, "cat /etc/keepalived/keepalived.conf")
    done = set_up(lab, balancer, host, config="vrrp_instance x {\n    no_such_word\n}\n")
    assert done.returncode == 1
    assert "keepalived refuses its configuration" in done.stderr
    assert lab.console(host, "cat /etc/keepalived/keepalived.conf") == before


def test_a_changed_configuration_costs_no_connection(lab: Lab, balancer: LoadBalancerHosts) -> None:
    holders = {cluster: lab.holder(balancer, cluster) for cluster in ADDRESSES}
    with Probe() as probe:
        for host in balancer.hosts:
            text = keepalived.configuration(balancer, host)
            done = set_up(lab, balancer, host, config=text.replace("garp_master_refresh 60", "garp_master_refresh 50"))
            assert done.returncode == 0 and "changed: keepalived reloaded" in done.stderr, done.stderr
        time.sleep(3)
    assert {cluster: lab.holder(balancer, cluster) for cluster in ADDRESSES} == holders
    assert probe.nothing_lost
    for host in balancer.hosts:
        assert set_up(lab, balancer, host).returncode == 0


def test_a_cluster_that_leaves_and_comes_costs_the_other_no_connection(lab: Lab, balancer: LoadBalancerHosts) -> None:
    (without, _) = planned(lab, two={}).topology.load_balancers
    assert without.hosts == balancer.hosts
    holder = lab.holder(balancer, "one")
    with Probe({"one": ADDRESSES["one"]}) as probe:
        for host in without.hosts:
            assert "changed: keepalived reloaded" in configured(lab, without, host)
        assert lab.holders(balancer, "two") == []
        for host in balancer.hosts:
            assert "changed: keepalived reloaded" in configured(lab, balancer, host)
        assert len(lab.holders(balancer, "two")) == 1
        assert lab.holder(balancer, "one") == holder
    assert probe.nothing_lost
    with Probe() as both:
        time.sleep(1)
    assert both.nothing_lost


def test_a_lost_machine_is_replaced_and_its_return_is_not_noticed(
    lab: Lab, balancer: LoadBalancerHosts, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both addresses pass to the other machine, wherever they were, and each leads to its own cluster as before."""
    holder = lab.holder(balancer, "one")
    had = [cluster for cluster in ADDRESSES if lab.holder(balancer, cluster) == holder]
    with Probe() as lost:
        lab("stop", holder.name)
        time.sleep(6)
    for cluster in had:
        assert 0 < lost.lost(cluster)
    assert all(lost.gap(cluster) <= BEARABLE_SECONDS for cluster in ADDRESSES)
    with Probe() as back:
        lab("start", holder.name)
        time.sleep(8)
    assert all(lab.holder(balancer, cluster) == other(balancer, holder) for cluster in ADDRESSES)
    assert back.nothing_lost
    with capsys.disabled():
        print(f"\n  a load balancer's machine off: {lost}; on again: none")


@pytest.mark.parametrize("fault", ["systemctl stop haproxy", "systemctl kill --signal=STOP haproxy"], ids=["gone", "hung"])
def test_a_machine_whose_haproxy_does_not_serve_gives_the_addresses_up(
    lab: Lab, balancer: LoadBalancerHosts, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host = lab.holder(balancer, "one")
    try:
        with Probe() as probe:
            lab.console(host, fault)
            time.sleep(6)
        assert all(lab.holder(balancer, cluster) == other(balancer, host) for cluster in ADDRESSES)
        assert all(probe.gap(cluster) <= BEARABLE_SECONDS for cluster in ADDRESSES)
    finally:
        with Probe() as back:
            lab.console(host, "systemctl kill --signal=CONT haproxy; systemctl start haproxy")
            time.sleep(5)
    assert back.nothing_lost
    with capsys.disabled():
        print(f"\n  {fault}: {probe}; running again: none")


def test_keepalived_that_died_takes_no_second_holder_with_it(lab: Lab, balancer: LoadBalancerHosts) -> None:
    """Killed, it leaves the addresses behind; started again at once, it gives them back or goes on with them."""
    lab.console(lab.holder(balancer, "one"), "systemctl kill --signal=KILL keepalived")
    time.sleep(8)
    assert all(len(lab.holders(balancer, cluster)) == 1 for cluster in ADDRESSES)


@pytest.mark.parametrize("cluster", ADDRESSES)
def test_nobody_else_can_claim_an_address(lab: Lab, plan: Plan, balancer: LoadBalancerHosts, cluster: str) -> None:
    """The bastion, in the same subnet, announces itself with the highest priority."""
    holder = lab.holder(balancer, cluster)
    virtual = ADDRESSES[cluster]
    forged = f"""
import socket, struct, time
virtual = socket.inet_aton("{virtual}")
body = struct.pack("!BBBBHH", 0x31, {keepalived.router_id(IPv4Address(virtual))}, 254, 1, 50, 0) + virtual
pseudo = socket.inet_aton("{plan.topology.bastion.address}") + socket.inet_aton("{holder.address}") + struct.pack("!BBH", 0, 112, len(body))
words = struct.unpack(f"!{{(len(pseudo) + len(body)) // 2}}H", pseudo + body)
total = sum(words)
total = (total & 0xFFFF) + (total >> 16)
total = (total & 0xFFFF) + (total >> 16)
body = body[:6] + struct.pack("!H", ~total & 0xFFFF) + body[8:]
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
out.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
for _ in range(20):
    out.sendto(body, ("{holder.address}", 0))
    time.sleep(0.2)
"""
    with Probe() as probe:
        subprocess.run(["ip", "netns", "exec", f"{NAME}-bastion", sys.executable, "-c", forged], check=True, timeout=60)
    assert lab.holder(balancer, cluster) == holder
    assert probe.nothing_lost


def removed(lab: Lab, balancer: LoadBalancerHosts) -> None:
    for host in balancer.hosts:
        done = lab.send(host, "keepalived-remove", keepalived.values(balancer, host), "keepalived")
        assert done.returncode == 0, done.stderr
    assert [lab.holders(balancer, cluster) for cluster in ADDRESSES] == [[], []]


def test_a_single_machine_holds_what_it_is_told_and_no_longer(lab: Lab, balancer: LoadBalancerHosts) -> None:
    """Its own cluster is reached at its own address, or at a virtual one; the other cluster's way is the same in both."""
    removed(lab, balancer)
    first, own = balancer.hosts[0], str(balancer.hosts[0].address)
    (without,) = planned(lab, one={"address": own}).topology.load_balancers
    (virtual,) = planned(lab, one={"address": own, "virtualAddress": ADDRESSES["one"]}).topology.load_balancers
    configured(lab, without, without.hosts[0], first)
    assert [lab.holders(balancer, cluster) for cluster in ADDRESSES] == [[], [first.name]]
    # A machine that takes an address alone does not tell who had asked for it at another one.
    subprocess.run(["ip", "-n", f"{NAME}-lab", "neigh", "flush", "all"], check=True)
    with Probe({"one": own, "two": ADDRESSES["two"]}) as probe:
        for changed, held in ((virtual, [[first.name], [first.name]]), (without, [[], [first.name]])):
            assert "changed: keepalived reloaded" in configured(lab, changed, changed.hosts[0], first)
            assert [lab.holders(balancer, cluster) for cluster in ADDRESSES] == held
    assert probe.nothing_lost


def test_an_address_that_another_machine_has_is_refused(lab: Lab, plan: Plan, balancer: LoadBalancerHosts) -> None:
    removed(lab, balancer)
    (without, _) = planned(lab, two={}).topology.load_balancers
    configured(lab, without, without.hosts[0])
    bastion, taken = plan.topology.bastion, ADDRESSES["two"]
    lab.console(bastion, f"ip addr add {taken}/32 dev $(ip -o addr show to {bastion.address}/32 | cut -d ' ' -f 2)")
    done = set_up(lab, balancer, balancer.hosts[0])
    assert done.returncode == 1
    assert f"the virtual address {taken} is taken by another machine" in done.stderr
    # Refused before anything was changed: the machine goes on with what it had.
    assert [lab.holders(balancer, cluster) for cluster in ADDRESSES] == [[balancer.hosts[0].name], []]
