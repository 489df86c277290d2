"""What an API server and its etcd need as nodes are added: real ones in the lab, and kwok in place of the kubelets."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bench.engine import ROOT, artifact, without_tools
from bench.lab import BenchLab

_STACK = "standalone"
_NODES = (100, 360, 1000)
_PODS_EACH = 10
_SETTLE_SECONDS, _WATCH_SECONDS = 45, 60
_TICKS, _PAGE_KIB = 100, 4
# As the kernel names them, in 15 letters at most.
_SERVERS = ("kube-apiserver", "etcd", "kube-controller", "kube-scheduler")
_STAT = re.compile(r"^\d+ \((.+)\) (.*)$", re.M)
_LABEL = "opstella.io/bench"


def figures() -> Iterator[str]:
    """Lines of figures, as they are measured. The lab goes when they end, however they end."""
    lab = BenchLab(_STACK)
    kubelets: subprocess.Popen[str] | None = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / f"Pulumi.{_STACK}.yaml"
        document = yaml.safe_load((ROOT / file.name).read_text())
        networks = {"podSubnet": "10.128.0.0/13", "serviceSubnet": "10.96.0.0/16"}
        document["config"] |= {**without_tools(), "opstella:clusters": {_STACK: networks}}
        file.write_text(yaml.safe_dump(document))
        try:
            lab.start(file)
            lab.up()
            cluster = _Cluster(lab, folder)
            yield _line(cluster, len(cluster.nodes()))
            kubelets = cluster.kubelets()
            made = 0
            for count in _NODES:
                cluster.add(range(made, count))
                made = count
                yield _line(cluster, len(cluster.nodes()))
        finally:
            if kubelets:
                kubelets.terminate()
                kubelets.wait(timeout=30)
            lab.down()


def _line(cluster: _Cluster, nodes: int) -> str:
    time.sleep(_SETTLE_SECONDS)
    before, asked, begin = cluster.servers(), cluster.requests(), time.monotonic()
    time.sleep(_WATCH_SECONDS)
    after, seconds = cluster.servers(), time.monotonic() - begin
    rate = (cluster.requests() - asked) / seconds
    each = ", ".join(
        f"{name} {100 * (after[name][0] - before[name][0]) / seconds:.0f} % {after[name][1] / 1024:.0f} MiB"
        for name in _SERVERS
    )
    return f"{nodes:5} nodes   {rate:6.1f} requests a second   of one processor, and memory: {each}"


class _Cluster:
    def __init__(self, lab: BenchLab, folder: Path) -> None:
        self._lab, self._folder = lab, folder
        self._kubeconfig = folder / "kubeconfig"
        configs = json.loads(lab.command("pulumi", "stack", "output", "kubeconfigs", "--show-secrets", "--json"))
        self._kubeconfig.touch(mode=0o600)
        self._kubeconfig.write_text(configs[_STACK])
        self._kubectl = str(artifact("kubectl") / "kubectl")

    def kubectl(self, *arguments: str) -> str:
        return self._lab.command("run", "--", self._kubectl, f"--kubeconfig={self._kubeconfig}", *arguments)

    def nodes(self) -> list[str]:
        return self.kubectl("get", "nodes", "--output=name").split()

    def kubelets(self) -> subprocess.Popen[str]:
        """One process for all of them: leases every 10 s and Ready nodes, as kubelets have them."""
        kwok = artifact("kwok")
        stages = self._folder / "stages.yaml"
        documents = yaml.safe_load_all((kwok / "stages.yaml").read_text())
        of_machines = [s for s in documents if s and s["spec"]["resourceRef"]["kind"] in ("Node", "Pod")]
        stages.write_text(yaml.safe_dump_all(of_machines))
        return self._lab.spawn(
            "run", "--", str(kwok / "kwok"), f"--kubeconfig={self._kubeconfig}", f"--config={stages}",
            f"--manage-nodes-with-label-selector={_LABEL}", "--node-lease-duration-seconds=40", "--cidr=10.200.0.0/16",
        )  # fmt: skip

    def add(self, numbers: range) -> None:
        """Nodes, and pods that run on them."""
        items: list[dict[str, Any]] = []
        for number in numbers:
            node = f"bench-{number}"
            items.append({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {_LABEL: "node"}}})
            items += [_pod(f"{node}-{pod}", node) for pod in range(_PODS_EACH)]
        for part in range(0, len(items), 1100):
            file = self._folder / "items.json"
            file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items[part : part + 1100]}))
            self.kubectl("create", f"--filename={file}", "--output=name")

    def servers(self) -> dict[str, tuple[float, int]]:
        """Seconds of processor so far and resident KiB of each server on the first master."""
        stats = self._lab.command("exec", "master-1", "--", "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null || true")
        found = dict.fromkeys(_SERVERS, (0.0, 0))
        for name, rest in _STAT.findall(stats):
            if name in found:
                numbers = rest.split()
                found[name] = ((int(numbers[11]) + int(numbers[12])) / _TICKS, int(numbers[21]) * _PAGE_KIB)
        return found

    def requests(self) -> int:
        """How many the API server has answered since it began."""
        counts = re.findall(r"^apiserver_request_total\{.*\} ([\d.e+]+)$", self.kubectl("get", "--raw=/metrics"), re.M)
        return int(sum(map(float, counts)))


def _pod(name: str, node: str) -> dict[str, Any]:
    """One that pod security admits under its profile `restricted`."""
    closed = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {_LABEL: "pod"}},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": "none", "securityContext": closed}],
        },
    }
