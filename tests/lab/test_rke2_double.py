"""The double of RKE2: its Go tests, and servers and agents of it on hosts of their own.

The hosts are systemd containers on one bridge in network namespaces that begin with `rke2t-`; they
have nothing to do with the lab that the product is deployed into. The tests build on each other in
the order of the file: one server and two agents, then three servers, then the loss of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from plan import cilium
from tests.plan.stacks import plan

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "rke2t-"
TOKEN = "token-of-the-test"
VERSION = (ROOT / "lab/rke2/VERSION").read_text().strip()
ADDRESSES = {"s1": 11, "s2": 12, "s3": 13, "a1": 21, "a2": 22}
DATA = "/var/lib/rancher/rke2"


@pytest.mark.toolchain
def test_go() -> None:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/local/go/bin", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    for command in (["go", "vet", "./..."], ["go", "test", "./..."]):
        done = subprocess.run(command, cwd=ROOT / "lab/rke2", env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert not subprocess.run(["gofmt", "-l", "."], cwd=ROOT / "lab/rke2", env=environment, capture_output=True, text=True, check=True).stdout


def sh(*command: str, check: bool = True, stdin: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def until(what: str, seconds: float, true: Callable[[], bool]) -> None:
    """Waits for a condition; fails with its name when the time is up."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.5)


@dataclass
class Machine:
    """A systemd container in a network namespace of its own."""

    name: str
    folder: Path

    @property
    def namespace(self) -> str:
        return PREFIX + self.name

    @property
    def address(self) -> str:
        return f"192.168.72.{ADDRESSES[self.name]}"

    @property
    def root(self) -> Path:
        return self.folder / self.name / "root"

    def pids(self) -> list[int]:
        return [int(p) for p in sh("ip", "netns", "pids", self.namespace, check=False).stdout.split()]

    def leader(self) -> int | None:
        for pid in self.pids():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if re.search(r"^NSpid:.*\s1$", status, re.MULTILINE) and status.startswith("Name:\tsystemd\n"):
                    return pid
        return None

    def run(self, script: str, check: bool = True, stdin: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return sh("nsenter", "-t", str(self.leader()), "-a", "--", "sh", "-c", script, check=check, stdin=stdin, timeout=timeout)

    def start(self, image: Path, media: Path) -> None:
        for part in ("upper", "work", "root"):
            (self.folder / self.name / part).mkdir(parents=True)
        home = self.folder / self.name
        options = f"lowerdir={image},upperdir={home}/upper,workdir={home}/work"
        sh("mount", "-t", "overlay", "overlay", "-o", options, str(self.root))
        (self.root / "etc/hostname").write_text(self.name + "\n")
        (self.root / "etc/machine-id").write_text(os.urandom(16).hex() + "\n")
        sh("ip", "netns", "add", self.namespace)
        sh("ip", "-n", PREFIX + "net", "link", "add", f"v{self.name}", "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        sh("ip", "-n", PREFIX + "net", "link", "set", f"v{self.name}", "master", "br0", "up")
        for line in ("link set lo up", f"addr add {self.address}/24 dev eth0", "link set eth0 up", "route add default via 192.168.72.1"):
            sh("ip", "-n", self.namespace, *line.split())
        with open(home / "console.log", "wb") as log:
            subprocess.Popen(
                ["systemd-nspawn", "-q", "-D", self.root, f"--machine={self.namespace}", "--boot", "--register=no", "--keep-unit",
                 f"--network-namespace-path=/run/netns/{self.namespace}", "--capability=CAP_NET_ADMIN", "--console=pipe",
                 f"--bind-ro={media}:/media"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until(f"{self.name} to boot", 180, lambda: self.leader() is not None and "running" in self.run("systemctl is-system-running", check=False).stdout)

    def kill(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        until(f"{self.name} to be gone", 60, lambda: not self.pids())

    def install(self, kind: str, config: dict[str, object]) -> None:
        """Does what the installation guide says for an air-gapped host."""
        self.run("mkdir -p /etc/rancher/rke2 && cat >/etc/rancher/rke2/config.yaml", stdin=yaml.safe_dump(config))
        self.run(f"mkdir -p {DATA}/agent/images && cp /media/rke2-images-*.zst {DATA}/agent/images/")
        self.run(f"INSTALL_RKE2_ARTIFACT_PATH=/media INSTALL_RKE2_TYPE={kind} sh /media/install.sh")

    def kubectl(self, arguments: str, check: bool = True, stdin: str | None = None) -> str:
        return self.run(f"{DATA}/bin/kubectl --kubeconfig /etc/rancher/rke2/rke2.yaml {arguments}", check=check, stdin=stdin).stdout

    def nodes(self) -> dict[str, dict]:
        return {n["metadata"]["name"]: n for n in json.loads(self.kubectl("get nodes -o json"))["items"]}


def is_ready(node: dict) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, Machine]]:
    assert os.geteuid() == 0, "these tests start containers: run them as root"
    built = sh(str(ROOT / "lab/toolchain/build"), "image", "media", timeout=1500).stdout.split()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/var/tmp"))
    all_machines = {name: Machine(name, folder) for name in ADDRESSES}
    net = PREFIX + "net"
    try:
        sh("ip", "netns", "add", net)
        for line in ("link set lo up", "link add br0 type bridge", "link set br0 up", "addr add 192.168.72.1/24 dev br0"):
            sh("ip", "-n", net, *line.split())
        for machine in all_machines.values():
            machine.start(Path(built[0]) / "rootfs", Path(built[1]))
        yield all_machines
    finally:
        for machine in all_machines.values():
            with contextlib.suppress(AssertionError):
                machine.kill()
            sh("umount", "-l", str(machine.root), check=False)
            sh("ip", "netns", "del", machine.namespace, check=False)
        sh("ip", "netns", "del", net, check=False)
        shutil.rmtree(folder)


def server_config(machine: Machine, **more: object) -> dict[str, object]:
    return {
        "token": TOKEN, "node-name": machine.name, "node-ip": machine.address, "cni": "calico", "ingress-controller": "none",
        "tls-san": ["api.example.test"], "write-kubeconfig-mode": "0600", "cluster-cidr": "172.16.72.0/22",
        "service-cidr": "172.16.76.0/22", "kube-controller-manager-arg": ["node-cidr-mask-size=26"], **more,
    }  # fmt: skip


def agent_config(machine: Machine, server: Machine, **more: object) -> dict[str, object]:
    return {"server": f"https://{server.address}:9345", "token": TOKEN, "node-name": machine.name, **more}


def refused(machine: Machine, command: str = "agent") -> str:
    """Runs rke2 in the foreground and returns what it said before it gave up."""
    done = machine.run(f"timeout 30 rke2 {command}", check=False)
    assert done.returncode == 1, f"expected a refusal, got {done.returncode}: {done.stderr}"
    return done.stderr


@pytest.mark.lab
def test_settings_are_refused_before_anything_is_touched(machines: dict[str, Machine]) -> None:
    s1 = machines["s1"]
    for change, message in (
        ({"tls-sans": ["x"]}, r"config.yaml:\d+: flag provided but not defined: -tls-sans"),
        ({"token": ["a", "b"]}, "takes a string, not a list"),
        ({"profile": "cis"}, "missing required: user: unknown user etcd"),
        ({"node-label": ["node-role.kubernetes.io/worker=true"]}, "the kubelet does not start with it"),
    ):
        s1.install("server", server_config(s1, **change))
        assert re.search(message, refused(s1, "server"))
    s1.install("server", server_config(s1))
    s1.run(f"mv {DATA}/agent/images/rke2-images-calico.linux-amd64.tar.zst /root/")
    assert "no images for calico" in refused(s1, "server")
    assert s1.run(f"ls {DATA}/server/db/etcd", check=False).returncode != 0


@pytest.mark.lab
def test_one_server_and_two_agents(machines: dict[str, Machine]) -> None:
    s1, a1, a2 = machines["s1"], machines["a1"], machines["a2"]
    s1.install("server", server_config(s1, **{"node-taint": ["dedicated=control:NoSchedule"]}))
    s1.run("systemctl enable --now rke2-server")
    nodes = s1.nodes()
    assert is_ready(nodes["s1"]), "the unit was active before the node was Ready"
    assert f"rke2 version {VERSION} " in s1.run("rke2 --version").stdout

    for machine in (a1, a2):
        machine.install("agent", agent_config(machine, s1, **{"node-label": ["opstella.io/pool=apps"]}))
        machine.run("systemctl enable --now rke2-agent")
    nodes = s1.nodes()
    assert set(nodes) == {"s1", "a1", "a2"}
    assert all(is_ready(n) for n in nodes.values())
    for name, node in nodes.items():
        assert {"type": "InternalIP", "address": machines[name].address} in node["status"]["addresses"]
        assert node["status"]["nodeInfo"]["kubeletVersion"] == VERSION
    assert nodes["s1"]["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] == "true"
    assert nodes["a1"]["metadata"]["labels"]["opstella.io/pool"] == "apps"
    assert "node-role.kubernetes.io/control-plane" not in nodes["a1"]["metadata"]["labels"]
    assert [t["key"] for t in nodes["s1"]["spec"]["taints"]] == ["dedicated"]
    assert TOKEN not in json.dumps(nodes)


@pytest.mark.lab
def test_files_modes_and_ports(machines: dict[str, Machine]) -> None:
    s1, a1 = machines["s1"], machines["a1"]
    for path in ("/etc/rancher/rke2/rke2.yaml", f"{DATA}/server/token", f"{DATA}/server/tls/server-ca.key", "/etc/rancher/node/password"):
        assert s1.run(f"stat -L -c %a {path}").stdout.strip() == "600", path
    assert s1.run(f"stat -L -c %a {DATA}/server").stdout.strip() == "700"
    assert re.fullmatch(rf"K10[0-9a-f]{{64}}::server:{TOKEN}\n", s1.run(f"cat {DATA}/server/node-token").stdout)
    assert "server: https://127.0.0.1:6443" in s1.run("cat /etc/rancher/rke2/rke2.yaml").stdout
    listening = s1.run("ss -Hltn | awk '{print $4}'").stdout.split()
    for port, address in ((2379, s1.address), (2380, s1.address), (6443, "*"), (9345, "*"), (10250, "*"), (2381, "127.0.0.1"), (10257, "127.0.0.1")):
        assert {f"{address}:{port}", f"0.0.0.0:{port}"} & set(listening), f"nothing on {address}:{port}: {listening}"
    certificate = s1.run("echo | openssl s_client -connect 127.0.0.1:6443 2>/dev/null | openssl x509 -noout -ext subjectAltName").stdout
    for name in ("DNS:api.example.test", f"IP Address:{s1.address}", "IP Address:172.16.76.1", "DNS:kubernetes.default.svc.cluster.local"):
        assert name in certificate
    assert a1.run(f"curl -sk https://{s1.address}:9345/ping").stdout == "pong"
    # No anonymous access, as in RKE2.
    assert a1.run(f"curl -sk -o /dev/null -w '%{{http_code}}' https://{s1.address}:6443/healthz").stdout == "401"
    # Secrets are encrypted in etcd.
    s1.kubectl("create secret generic canary --from-literal=value=canary-in-clear")
    assert s1.run(f"grep -rc canary-in-clear {DATA}/server/db/etcd/member | grep -v ':0'", check=False).stdout == ""


@pytest.mark.lab
def test_who_may_not_join(machines: dict[str, Machine]) -> None:
    s1, s2 = machines["s1"], machines["s2"]
    s2.install("agent", agent_config(s2, s1, token="wrong"))
    assert "401 Unauthorized" in refused(s2)
    other_ca = s1.run(f"cat {DATA}/server/node-token").stdout.strip()
    other_ca = "K10" + "0" * 64 + other_ca[67:]
    s2.install("agent", agent_config(s2, s1, token=other_ca))
    assert "token CA hash does not match" in refused(s2)
    s2.install("agent", agent_config(s2, s1, **{"node-name": "a1"}))
    assert "node password rejected: a node named a1 has joined with another password" in refused(s2)
    s2.install("agent", {"node-name": "s2"})
    text = refused(s2)
    assert "--server is required" in text and "--token is required" in text
    s2.install("server", {**server_config(s2), "server": f"https://{s1.address}:9345", "cluster-cidr": "10.42.0.0/16"})
    assert "critical configuration value mismatch between servers: cluster-cidr" in refused(s2, "server")
    assert set(s1.nodes()) == {"s1", "a1", "a2"}


@pytest.mark.lab
def test_a_deleted_node_gives_its_name_back(machines: dict[str, Machine]) -> None:
    s1, a2 = machines["s1"], machines["a2"]
    a2.run("systemctl stop rke2-agent && rm /etc/rancher/node/password")
    assert "node password rejected" in refused(a2)
    s1.kubectl("delete node a2")
    until("the password of a2 to be forgotten", 30, lambda: "a2.node-password" not in s1.kubectl("-n kube-system get secrets -o name"))
    a2.run("systemctl start rke2-agent")
    assert is_ready(s1.nodes()["a2"])


@pytest.mark.lab
def test_manifests_and_volumes(machines: dict[str, Machine]) -> None:
    s1 = machines["s1"]
    folder = f"{DATA}/server/manifests"
    chart = {"apiVersion": "helm.cattle.io/v1", "kind": "HelmChartConfig", "metadata": {"name": "rke2-calico", "namespace": "kube-system"}, "spec": {"valuesContent": "installation: {}\n"}}
    s1.run(f"cat >{folder}/calico.yaml", stdin=yaml.safe_dump(chart))
    until("the HelmChartConfig", 60, lambda: s1.kubectl("-n kube-system get helmchartconfig rke2-calico -o name", check=False) != "")
    s1.run(f"cat >{folder}/skipped.yaml; touch {folder}/skipped.yaml.skip", stdin=yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "skipped"}}))

    objects = [
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "nfs"}, "provisioner": "nfs.csi.k8s.io", "parameters": {"server": "192.168.72.13", "share": "/srv/nfs"}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {"storageClassName": "nfs", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
    ]  # fmt: skip
    s1.run(f"cat >{folder}/volume.yaml", stdin=yaml.safe_dump_all(objects))
    until("the claim", 60, lambda: s1.kubectl("get pvc data -o name", check=False) != "")
    time.sleep(5)
    assert s1.kubectl("get pvc data -o jsonpath={.status.phase}") == "Pending", "bound although csi-driver-nfs is not deployed"
    s1.kubectl("-n kube-system create deployment csi-nfs-controller --image=registry.example/nfsplugin")
    until("the claim to be bound", 60, lambda: s1.kubectl("get pvc data -o jsonpath={.status.phase}") == "Bound")
    assert s1.kubectl("get pv -o jsonpath={.items[0].spec.csi.volumeAttributes.share}") == "/srv/nfs"
    s1.kubectl("delete pvc data")
    until("the volume to be gone", 60, lambda: s1.kubectl("get pv -o name") == "")
    assert s1.kubectl("get configmap skipped", check=False) == ""


@pytest.mark.lab
def test_snapshots(machines: dict[str, Machine]) -> None:
    s1 = machines["s1"]
    for _ in range(3):
        s1.run("rke2 etcd-snapshot save --name before-upgrade")
        time.sleep(1.1)
    names = [line.split()[0] for line in s1.run("rke2 etcd-snapshot ls").stdout.splitlines()[1:]]
    assert len(names) == 3 and all(re.fullmatch(r"before-upgrade-s1-\d+", n) for n in names)
    assert int(s1.run(f"stat -c %s {DATA}/server/db/snapshots/{names[0]}").stdout) > 100_000
    s1.run("rke2 etcd-snapshot prune --name before-upgrade --snapshot-retention 2")
    s1.run(f"rke2 etcd-snapshot delete {names[2]}")
    assert [f["name"] for f in json.loads(s1.run("rke2 etcd-snapshot ls -o json").stdout)] == [names[1]]
    assert s1.run(f"rke2 etcd-snapshot delete {names[2]}", check=False).returncode != 0


@pytest.mark.lab
def test_restart_keeps_the_state_and_stop_leaves_no_process(machines: dict[str, Machine]) -> None:
    s1 = machines["s1"]
    s1.kubectl("create configmap kept --from-literal=a=b")
    token = s1.run(f"cat {DATA}/server/node-token").stdout
    certificate = s1.run(f"cat {DATA}/server/tls/serving-kube-apiserver.crt").stdout
    began = time.monotonic()
    s1.run("systemctl stop rke2-server")
    assert time.monotonic() - began < 12
    assert s1.run(f"ls -l /proc/[0-9]*/exe 2>/dev/null | grep {DATA}/data", check=False).stdout == ""
    s1.run("systemctl start rke2-server")
    assert s1.kubectl("get configmap kept -o jsonpath={.data.a}") == "b"
    assert s1.run(f"cat {DATA}/server/node-token").stdout == token
    assert s1.run(f"cat {DATA}/server/tls/serving-kube-apiserver.crt").stdout == certificate
    # A child that dies comes back, and one whose parent is killed does not outlive it.
    scheduler = s1.run("pidof kube-scheduler").stdout
    s1.run(f"kill -9 {scheduler}")
    until("the scheduler to be back", 20, lambda: s1.run("pidof kube-scheduler", check=False).stdout not in ("", scheduler))
    before = set(s1.run("pidof etcd kube-apiserver kwok").stdout.split())
    killed = s1.run("systemctl show -P MainPID rke2-server").stdout
    s1.run(f"kill -9 {killed}")

    def is_back() -> bool:
        # For a moment after the kill systemd still calls the old process active.
        state = dict(line.split("=") for line in s1.run("systemctl show -p MainPID -p ActiveState rke2-server").stdout.split())
        return state["ActiveState"] == "active" and state["MainPID"] != killed.strip()

    until("the service to be back", 60, is_back)
    assert not before & set(s1.run("pidof etcd kube-apiserver kwok").stdout.split())
    assert s1.kubectl("get configmap kept -o jsonpath={.data.a}") == "b"


@pytest.mark.lab
def test_three_servers(machines: dict[str, Machine]) -> None:
    s1 = machines["s1"]
    joining = [machines["s2"], machines["s3"]]
    for machine in joining:
        machine.install("server", {**server_config(machine), "server": f"https://{s1.address}:9345"})
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda m: m.run("systemctl enable --now rke2-server", timeout=180), joining))
    nodes = s1.nodes()
    assert all(is_ready(nodes[n]) and nodes[n]["metadata"]["labels"]["node-role.kubernetes.io/etcd"] == "true" for n in ("s1", "s2", "s3"))
    tls = f"{DATA}/server/tls/etcd"
    ask = f"curl -s --cacert {tls}/server-ca.crt --cert {tls}/client.crt --key {tls}/client.key -d '{{}}' https://127.0.0.1:2379/v3/cluster/member/list"
    members = json.loads(joining[1].run(ask).stdout)["members"]
    assert len(members) == 3 and not any(m.get("isLearner") for m in members)
    assert len({m.run(f"cat {DATA}/server/node-token").stdout for m in (s1, *joining)}) == 1
    assert joining[0].kubectl("get configmap kept -o jsonpath={.data.a}") == "b"
    # Agents learn of all three.
    until("the endpoints of the API", 60, lambda: len(s1.kubectl("get endpointslice kubernetes -o jsonpath={.endpoints[*].addresses[0]}").split()) == 3)
    time.sleep(20)


@pytest.mark.lab
def test_the_loss_of_a_server(machines: dict[str, Machine]) -> None:
    s1, s2, a1 = machines["s1"], machines["s2"], machines["a1"]
    s1.kill()
    until("the others to accept writes", 60, lambda: s2.kubectl("create configmap after-the-loss -o name", check=False) != "" or s2.kubectl("get configmap after-the-loss -o name", check=False) != "")
    # The agents were told s1's address only; they go on through the others.
    until("s1 to turn NotReady", 120, lambda: not is_ready(s2.nodes()["s1"]))
    assert all(is_ready(s2.nodes()[n]) for n in ("s2", "s3", "a1", "a2"))
    key = f"{DATA}/agent/double-workloads"
    through_the_agent = f"curl -sf --cacert {DATA}/agent/server-ca.crt --cert {key}.crt --key {key}.key https://127.0.0.1:6443/api/v1/nodes"
    assert {n["metadata"]["name"] for n in json.loads(a1.run(through_the_agent).stdout)["items"]} == set(machines)
    # Also a restart does not need the server that the agent once joined through.
    a1.run("systemctl restart rke2-agent")
    assert "does not answer" in a1.run("journalctl -u rke2-agent -o cat").stdout
    # A deleted server leaves the etcd cluster.
    s2.kubectl("delete node s1")
    tls = f"{DATA}/server/tls/etcd"
    ask = f"curl -s --cacert {tls}/server-ca.crt --cert {tls}/client.crt --key {tls}/client.key -d '{{}}' https://127.0.0.1:2379/v3/cluster/member/list"
    until("s1 to leave etcd", 60, lambda: len(json.loads(s2.run(ask).stdout)["members"]) == 2)


@pytest.mark.lab
def test_uninstall_leaves_nothing(machines: dict[str, Machine]) -> None:
    for name in ("a1", "s3"):
        machine = machines[name]
        machine.run("rke2-uninstall.sh")
        left = machine.run(
            "find / -xdev \\( -path /proc -o -path /sys -o -path /media \\) -prune -o \\( -name '*rke2*' -o -name 'rancher' \\) -print", check=False
        ).stdout
        assert left == "", left
        assert machine.run("ls -l /proc/[0-9]*/exe 2>/dev/null | grep -E 'rancher|rke2'", check=False).stdout == ""
        assert machine.run("systemctl cat rke2-server rke2-agent", check=False).returncode != 0


@pytest.mark.lab
def test_a_server_with_cilium_takes_what_the_product_gives_it(machines: dict[str, Machine]) -> None:
    stack = plan(kubernetes={"cni": "cilium"})
    files = cilium.manifests(stack.contract, stack.topology.clusters[0])
    server = machines["a1"]  # no longer installed
    server.install("server", {**server_config(server), "cni": "cilium"})
    server.run(f"mkdir -p {DATA}/server/manifests")
    for name, text in files.items():
        server.run(f"cat >{DATA}/server/manifests/{name}", stdin=text)
    server.run("systemctl enable --now rke2-server", timeout=180)
    assert is_ready(server.nodes()["a1"])
    given = {p["metadata"]["name"]: p["specs"] for p in yaml.safe_load_all(files["opstella-host-policies.yaml"])}
    assert set(given) == {"opstella-masters", "opstella-workers", "opstella-pods"}
    until("the policies", 60, lambda: server.kubectl("get ccnp -o name", check=False).count("opstella-") == 3)
    kept = json.loads(server.kubectl("get ccnp -o json"))["items"]
    assert {p["metadata"]["name"]: p["specs"] for p in kept} == given
    chart = server.kubectl("-n kube-system get helmchartconfig rke2-cilium -o jsonpath={.spec.valuesContent}")
    assert yaml.safe_load(chart)["hostFirewall"] == {"enabled": True}
    server.run("systemctl stop rke2-server")
    server.run(f"mv {DATA}/agent/images/rke2-images-cilium.linux-amd64.tar.zst /root/")
    assert "no images for cilium" in refused(server, "server")
