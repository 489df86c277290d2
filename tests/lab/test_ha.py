"""One highly available cluster end to end: three servers behind two load balancers that share a virtual address.

It is what four clusters add to standalone, on the fewest machines that have it. All 36 hosts of multicluster are the demo's
(`make demo STACK=multicluster`); how long clients wait when a machine is lost is what `make chaos` measures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lab.hosts.site import SERVICES_ADDRESS, SERVICES_PORT
from plan.tools.catalogue import NAMES
from tests.lab.standalone import ROOT, Done, Lab, eventually, run, steps

pytestmark = pytest.mark.lab

VIRTUAL = "192.168.72.10"
FIRST = "master-1"
TOOL, NEW_TOOL = "cert-manager", "trust-manager"
WRITES = 50
STACK = {
    "opstella:architecture": "custom",
    "opstella:domain": "devops.example.com",
    "opstella:ssh": {"user": "ops", "privateKey": "file:~/.ssh/id_ed25519"},
    "opstella:clusters": {
        "ha": {
            "subnet": "192.168.72.0/24",
            "loadBalancer": {"count": 2, "virtualAddress": VIRTUAL, "addresses": ["192.168.72.8", "192.168.72.9"]},
            "masters": {"count": 3},
            "workers": {"count": 2},
        }
    },
    # Machines let in no more than the platform needs, and open no more: it is deployed, loses its first server and takes an
    # empty machine in its place all the same.
    "opstella:network": {
        "strict": True,
        "egress": {
            "enforce": True,
            "rules": [{"purpose": "Debian packages", "to": [f"{SERVICES_ADDRESS}/32"], "ports": [SERVICES_PORT]}],
        },
    },
    "opstella:tools": {name: {"enabled": False} for name in NAMES if name != TOOL},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Ten hosts, deployed by one `pulumi up`."""
    lab = Lab.of_this_process("h", "ha")
    file = tmp_path_factory.mktemp("settings") / "Pulumi.ha.yaml"
    file.write_text(yaml.safe_dump({"config": STACK}))
    lab("up", "--config-file", str(file))
    try:
        lab.up("--suppress-outputs", seconds=1500)
        yield lab
    finally:
        lab.end()


@dataclass(frozen=True)
class Client:
    """kubectl in the operator's place, as administrator, by the kubeconfig that the stack gives."""

    lab: Lab
    kubectl: str
    kubeconfig: Path

    def __call__(self, *arguments: str, check: bool = True, stdin: str = "") -> Done:
        command = [self.kubectl, "--kubeconfig", str(self.kubeconfig), "--request-timeout=5s", *arguments]
        return self.lab("run", "--", *command, check=check, stdin=stdin)

    def write(self, *names: str) -> bool:
        """Whether a ConfigMap of each name was acknowledged."""
        items = [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"written": "by-the-test"}}}
            for name in names
        ]
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        return self("apply", "--filename=-", stdin=document, check=False).returncode == 0


LIST = ("get", "configmaps", "--selector=written=by-the-test", "--output=name")
CLUSTER = ("get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}")


@pytest.fixture(scope="module")
def client(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Client:
    kubeconfig = tmp_path_factory.mktemp("client") / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(lab.outputs()["kubeconfigs"]["ha"])
    assert f"https://{VIRTUAL}:6443" in kubeconfig.read_text()
    built = run([str(ROOT / "lab/toolchain/build"), "kubectl"], lab.environment).stdout.strip()
    return Client(lab, f"{built}/kubectl", kubeconfig)


def verified(lab: Lab) -> None:
    """Every check passes; the one of etcd counts three votes."""
    said = lab("verify", check=False)
    assert said.returncode == 0, said.stdout
    assert "ha: etcd: 3 voting members, healthy; master-" in said.stdout
    assert f"ha: nodes through the load balancer: 5 of 5 Ready, asked at https://{VIRTUAL}:6443" in said.stdout


def test_bare_hosts_become_a_cluster_of_three_servers(lab: Lab) -> None:
    verified(lab)


def test_the_first_server_is_lost_and_an_empty_machine_takes_its_place(lab: Lab, client: Client) -> None:
    """The one by which the cluster was made, and on which its kubeconfig was read."""
    cluster = client(*CLUSTER).stdout
    names = [f"before-{number}" for number in range(WRITES)]
    assert client.write(*names)
    # Without its cable first: it answers nothing, as a machine without power.
    lab("cut", FIRST)
    lab("stop", FIRST)
    eventually("a write at the virtual address is acknowledged", lambda: client.write("during"), 30)
    written = {f"configmap/{name}" for name in (*names, "during")}
    assert set(client(*LIST).stdout.split()) == written

    # A new tool needs that host for nothing. (A tool that has pods there waits until Kubernetes has moved them.)
    with lab.settings({"opstella:tools": {NEW_TOOL: {"enabled": True}}}):
        said = lab.up(check=False)
    assert said.returncode == 0, said.stdout[-4000:]
    assert steps(said.stdout)[f"ha-tools-{NEW_TOOL}"] == "created"

    # Nothing of it is left: another disk, another host key.
    client("delete", "node", FIRST)
    lab("wipe", FIRST)
    eventually("etcd goes on with two members, and the check says so", lambda: missing(lab), 90)
    lab.up("--replace", f"**::host-{FIRST}-hostkey")
    # It has joined, and made no cluster of its own.
    assert lab.console(FIRST, "cat /etc/opstella/rke2-joined") == f"https://{VIRTUAL}:9345\n"
    assert lab.kubectl(*CLUSTER, server=FIRST).stdout == cluster
    assert set(lab.kubectl(*LIST, server=FIRST).stdout.split()) == written
    verified(lab)
    said = lab.pulumi("preview", "--expect-no-changes", "--non-interactive", check=False)
    assert said.returncode == 0, said.stdout[-4000:]


def missing(lab: Lab) -> bool:
    said = lab("verify", "--", "--only", "etcd", check=False)
    address = next(host["address"] for host in lab.hosts if host["name"] == FIRST)
    return said.returncode == 1 and f"{FIRST}: Host key verification failed.; by master-2, master-3: {FIRST} ({address}) is no member" in said.stdout
