"""Two load balancers in a lab of three machines: what a client at their virtual address notices. Needs root.

There is no cluster behind them: a client opens a connection every tenth of a second, which HAProxy takes on its own.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.host import standard_input
from config.load import from_stack_file
from plan import haproxy, hosts, keepalived
from plan.hosts import Values
from plan.plan import Plan, build
from plan.topology import Host

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]
NAME = f"f{os.getpid() % 100000}"
VIRTUAL = "192.168.72.10"
BEARABLE_SECONDS = 5.0
STACK = {
    "opstella:architecture": "custom",
    "opstella:domain": "two.example.com",
    "opstella:ssh": {"user": "ops", "privateKey": "file:key"},
    "opstella:clusters": {
        "one": {
            "subnet": "192.168.72.0/24",
            "loadBalancer": {"count": 2, "virtualAddress": VIRTUAL, "addresses": ["192.168.72.12", "192.168.72.9"]},
            "masters": {"count": 1},
            "workers": {"count": 1, "cpu": 64, "memoryGb": 256},
        }
    },
}

# One line a connection: when it was begun, in seconds of a clock of its own, and whether it was taken.
_PROBE = f"""
import socket, sys, threading, time
def once():
    began = time.monotonic()
    try:
        socket.create_connection(("{VIRTUAL}", 80), timeout=1).close()
        taken = True
    except OSError:
        taken = False
    print(f"{{began}} {{int(taken)}}", flush=True)
while True:
    threading.Thread(target=once, daemon=True).start()
    time.sleep(0.1)
"""


class Probe:
    """A steady client at the virtual address, from the operator's place, while the context lasts."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, bool]] = []

    def __enter__(self) -> Probe:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", f"{NAME}-lab", sys.executable, "-c", _PROBE], stdout=subprocess.PIPE, text=True
        )
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(1.5)
        self._process.terminate()
        for line in self._process.communicate()[0].splitlines():
            began, taken = line.split()
            self.seen.append((float(began), taken == "1"))
        self.seen.sort()

    @property
    def failed(self) -> int:
        return [taken for _, taken in self.seen].count(False)

    @property
    def gap(self) -> float:
        """Seconds between two connections that were taken, the longest."""
        good = [began for began, taken in self.seen if taken]
        assert good, "no connection was taken at all"
        return max(later - earlier for earlier, later in itertools.pairwise(good))


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "lab"
        self.file = folder / "Pulumi.two.yaml"
        self.file.write_text(yaml.safe_dump({"config": STACK}))
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

    def holders(self, plan: Plan) -> list[str]:
        balancers = plan.topology.clusters[0].load_balancers
        return [b.name for b in balancers if self.console(b, f"ip -o addr show to {VIRTUAL}/32")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.fail("the lab needs root: sudo -E make test-lab")
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab("up", "--bare", "--config-file", str(lab.file), "--only", "haproxy-1,haproxy-2")
    yield lab
    lab("down")


@pytest.fixture(scope="module")
def plan(lab: Lab) -> Plan:
    return build(from_stack_file(lab.folder / lab.file.name), "opstella/two")


@pytest.fixture(scope="module")
def balancers(lab: Lab, plan: Plan) -> tuple[Host, ...]:
    """Both set up, by the phases and values of a deployment."""
    cluster = plan.topology.clusters[0]
    for host in cluster.load_balancers:
        base = hosts.prepare(host, plan.settings, plan.topology, plan.stack)
        for phase, values in (
            ("prepare", {**base, "ca_bundle": "", "rollback_seconds": 600}),
            ("haproxy", {"config": haproxy.configuration(cluster)}),
            ("keepalived", keepalived.values(cluster, host)),
        ):
            done = lab.send(host, phase, values)  # type: ignore[arg-type]
            assert done.returncode == 0, done.stderr
    return cluster.load_balancers


def set_up(lab: Lab, plan: Plan, host: Host, **changes: str) -> subprocess.CompletedProcess[str]:
    return lab.send(host, "keepalived", {**keepalived.values(plan.topology.clusters[0], host), **changes})


def other(balancers: tuple[Host, ...], name: str) -> Host:
    return next(b for b in balancers if b.name != name)


def test_one_of_them_holds_the_address_and_a_second_run_changes_nothing(
    lab: Lab, plan: Plan, balancers: tuple[Host, ...]
) -> None:
    assert len(lab.holders(plan)) == 1
    with Probe() as probe:
        for host in balancers:
            done = set_up(lab, plan, host)
            assert done.returncode == 0 and ": changed:" not in done.stderr, done.stderr
    assert probe.failed == 0


def test_a_refused_configuration_leaves_the_running_one(lab: Lab, plan: Plan, balancers: tuple[Host, ...]) -> None:
    before = lab.console(balancers[0], "cat /etc/keepalived/keepalived.conf")
    done = set_up(lab, plan, balancers[0], config="vrrp_instance x {\n    no_such_word\n}\n")
    assert done.returncode == 1
    assert "keepalived refuses its configuration" in done.stderr
    assert lab.console(balancers[0], "cat /etc/keepalived/keepalived.conf") == before


def test_a_changed_configuration_costs_no_connection(lab: Lab, plan: Plan, balancers: tuple[Host, ...]) -> None:
    (holder,) = lab.holders(plan)
    with Probe() as probe:
        for host in balancers:
            text = keepalived.configuration(plan.topology.clusters[0], host)
            done = set_up(lab, plan, host, config=text.replace("garp_master_refresh 60", "garp_master_refresh 50"))
            assert done.returncode == 0 and "changed: keepalived reloaded" in done.stderr, done.stderr
        time.sleep(3)
    assert lab.holders(plan) == [holder]
    assert probe.failed == 0
    for host in balancers:
        assert set_up(lab, plan, host).returncode == 0


def test_a_lost_machine_is_replaced_and_its_return_is_not_noticed(
    lab: Lab, plan: Plan, balancers: tuple[Host, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (holder,) = lab.holders(plan)
    with Probe() as lost:
        lab("stop", holder)
        time.sleep(6)
    assert 0 < lost.failed and lost.gap <= BEARABLE_SECONDS
    with Probe() as back:
        lab("start", holder)
        time.sleep(8)
    assert lab.holders(plan) == [other(balancers, holder).name]
    assert back.failed == 0
    with capsys.disabled():
        print(f"\n  a load balancer's machine off: {lost.failed} connections lost, gap {lost.gap:.1f} s; on again: none")


@pytest.mark.parametrize("fault", ["systemctl stop haproxy", "systemctl kill --signal=STOP haproxy"], ids=["gone", "hung"])
def test_a_machine_whose_haproxy_does_not_serve_gives_the_address_up(
    lab: Lab, plan: Plan, balancers: tuple[Host, ...], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (holder,) = lab.holders(plan)
    host = next(b for b in balancers if b.name == holder)
    try:
        with Probe() as probe:
            lab.console(host, fault)
            time.sleep(6)
        assert lab.holders(plan) == [other(balancers, holder).name]
        # A process that hangs still takes connections in the kernel's queue: there a client notices less.
        assert probe.gap <= BEARABLE_SECONDS
    finally:
        with Probe() as back:
            lab.console(host, "systemctl kill --signal=CONT haproxy; systemctl start haproxy")
            time.sleep(5)
    assert back.failed == 0
    with capsys.disabled():
        print(f"\n  {fault}: {probe.failed} connections lost, gap {probe.gap:.1f} s; running again: none")


def test_keepalived_that_died_takes_no_second_holder_with_it(lab: Lab, plan: Plan, balancers: tuple[Host, ...]) -> None:
    """Killed, it leaves the address behind; started again at once, it gives it back or goes on with it."""
    (holder,) = lab.holders(plan)
    lab.console(next(b for b in balancers if b.name == holder), "systemctl kill --signal=KILL keepalived")
    time.sleep(8)
    assert len(lab.holders(plan)) == 1


def test_nobody_else_can_claim_the_address(lab: Lab, plan: Plan, balancers: tuple[Host, ...]) -> None:
    """The bastion, in the same subnet, announces itself with the highest priority."""
    (holder,) = lab.holders(plan)
    address = next(b.address for b in balancers if b.name == holder)
    forged = f"""
import socket, struct, time
virtual = socket.inet_aton("{VIRTUAL}")
body = struct.pack("!BBBBHH", 0x31, {keepalived.router_id(plan.topology.clusters[0].entrance)}, 254, 1, 50, 0) + virtual
pseudo = socket.inet_aton("{plan.topology.bastion.address}") + socket.inet_aton("{address}") + struct.pack("!BBH", 0, 112, len(body))
words = struct.unpack(f"!{{(len(pseudo) + len(body)) // 2}}H", pseudo + body)
total = sum(words)
total = (total & 0xFFFF) + (total >> 16)
total = (total & 0xFFFF) + (total >> 16)
body = body[:6] + struct.pack("!H", ~total & 0xFFFF) + body[8:]
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
out.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
for _ in range(20):
    out.sendto(body, ("{address}", 0))
    time.sleep(0.2)
"""
    with Probe() as probe:
        subprocess.run(["ip", "netns", "exec", f"{NAME}-bastion", sys.executable, "-c", forged], check=True, timeout=60)
    assert lab.holders(plan) == [holder]
    assert probe.failed == 0


def test_an_address_that_another_machine_has_is_refused(lab: Lab, plan: Plan, balancers: tuple[Host, ...]) -> None:
    for host in balancers:
        done = lab.send(host, "keepalived-remove", keepalived.values(plan.topology.clusters[0], host), "keepalived")
        assert done.returncode == 0, done.stderr
    assert lab.holders(plan) == []
    bastion = plan.topology.bastion
    lab.console(bastion, f"ip addr add {VIRTUAL}/32 dev $(ip -o addr show to {bastion.address}/32 | cut -d ' ' -f 2)")
    done = set_up(lab, plan, balancers[0])
    assert done.returncode == 1
    assert f"the virtual address {VIRTUAL} is taken by another machine" in done.stderr
    assert lab.holders(plan) == []
