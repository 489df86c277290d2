"""One cluster of the lab: who leads it, and whether all of it is as it should be."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from chaos.lab import ChaosError, Lab, wait_until

_METRICS = "curl --silent --max-time 3 http://127.0.0.1:2381/metrics"
_STATISTICS = "curl --silent --max-time 3 'http://127.0.0.1:8404/;csv'"
_KUBECTL = (
    "/var/lib/rancher/rke2/bin/kubectl --kubeconfig /etc/rancher/rke2/rke2.yaml --server https://127.0.0.1:6443 "
    "--request-timeout=5s"
)
_TAKEOVER_SECONDS = 20


class Cluster:
    """The cluster `name` of the lab's plan."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        plan = lab.plan
        self._plan: dict[str, Any] = next(c for c in plan["clusters"] if c["name"] == name)
        self.masters: list[str] = list(self._plan["masters"])
        self.workers: list[str] = list(self._plan["workers"])
        self.hosts = [h["name"] for h in plan["hosts"] if h["cluster"] == name]
        self.balancers: list[str] = list(self._plan["load_balancers"])
        self.address = str(self._plan["load_balancer"])
        self.subnet = next(s for s in plan["subnets"] if IPv4Address(self._plan["nfs"]["address"]) in IPv4Network(s))
        self.has_ingress = any(release["name"] == "traefik" for release in plan["releases"][name])
        names = [r["name"] for r in plan["dns"] if r["address"] == self.address and not r["name"].startswith("api.")]
        self.ingress_name = next(iter(names), f"chaos.{plan['domain']}")

    @property
    def share(self) -> tuple[str, str, str]:
        """The NFS server's host, its address and the path it exports."""
        nfs = self._plan["nfs"]
        return (
            next(h["name"] for h in self.lab.plan["hosts"] if h["address"] == nfs["address"]),
            nfs["address"],
            nfs["path"],
        )

    def kubectl(self, arguments: str, master: str | None = None, *, check: bool = True) -> str:
        """kubectl of a master at its own API server, as administrator."""
        return self.lab.console(master or self.masters[0], f"{_KUBECTL} {arguments}", check=check)

    def leader(self) -> str:
        """The master whose etcd leads. Raises ChaosError when none says so."""
        for master in self.masters:
            if re.search(r"^etcd_server_is_leader 1$", self.lab.console(master, _METRICS, check=False), re.M):
                return master
        raise ChaosError(f"{self.name}: no etcd says that it leads")

    def entrance(self) -> str:
        """The load balancer that has the address through which clients come. Raises ChaosError when not just one has.

        One that boots keeps, as a namespace does, the address that it had, until its keepalived gives it back.
        """
        holders: list[str] = []

        def unclear() -> str:
            script = f"ip -oneline address show to {self.address}/32"
            holders[:] = [host for host in self.balancers if self.lab.console(host, script, check=False).strip()]
            return "" if len(holders) == 1 else f"held by {' and by '.join(holders) or 'nobody'}"

        wait_until(f"{self.name}: one load balancer has {self.address}", unclear, _TAKEOVER_SECONDS)
        return holders[0]

    def missing(self, since: float) -> str:
        """What is not as it should be; nothing when every host, etcd, API server, node and backend is there.

        `since` is a moment of `time.time()`: nodes must have reported after it, for their last word may be an old one.
        """
        faults = []
        with ThreadPoolExecutor(4) as pool:
            for master, said in zip(self.masters, pool.map(self._of_master, self.masters), strict=True):
                faults += [f"{master}: {one}" for one in said]
        if not faults:
            faults = [*self._nodes(since)]
        for balancer in self.balancers:
            faults += [f"{balancer}: {one}" for one in down(self.lab.console(balancer, _STATISTICS, check=False))]
        return "; ".join(faults)

    def _of_master(self, master: str) -> Iterator[str]:
        script = f"{_METRICS} | grep -E '^etcd_server_(has_leader|is_learner) '; {_KUBECTL} get --raw /readyz"
        said = self.lab.console(master, script, check=False)
        if "etcd_server_has_leader 1" not in said or "etcd_server_is_learner 0" not in said:
            yield "its etcd is no member with a leader"
        if not said.strip().endswith("ok"):
            yield "its API server is not ready"

    def _nodes(self, since: float) -> Iterator[str]:
        master = self.masters[0]
        said = self.kubectl("get nodes --output json", master, check=False)
        leases = self.kubectl("--namespace kube-node-lease get leases --output json", master, check=False)
        try:
            nodes = {n["metadata"]["name"]: n for n in json.loads(said)["items"]}
            reported = {
                item["metadata"]["name"]: datetime.fromisoformat(
                    item["spec"]["renewTime"].replace("Z", "+00:00")
                ).timestamp()
                for item in json.loads(leases)["items"]
            }
        except ValueError:
            yield "its API does not list the nodes"
            return
        for name in (*self.masters, *self.workers):
            conditions = nodes.get(name, {}).get("status", {}).get("conditions", [])
            if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                yield f"node {name} is not Ready"
            elif reported.get(name, 0) < since:
                yield f"node {name} has not reported since"

    # --- a disk of its own ------------------------------------------------------------------------

    @contextlib.contextmanager
    def bounded_database(self, master: str, spare_mib: int) -> Iterator[str]:
        """etcd's folder of `master` on a disk of its own with so much space to spare; the folder's path.

        All hosts share the machine's disk, which nobody wants to fill.
        """
        folder = "/var/lib/rancher/rke2/server/db"
        self.lab.console(
            master,
            f"""set -e
            systemctl stop rke2-server
            size=$(( $(du -sm {folder} | cut -f 1) + {spare_mib} ))
            mv {folder} {folder}.kept
            mkdir -m 700 {folder}
            mount -t tmpfs -o size=${{size}}m,mode=700 tmpfs {folder}
            cp -a {folder}.kept/. {folder}/
            systemctl start --no-block rke2-server""",
            seconds=120,
        )
        try:
            yield folder
        finally:
            # What etcd has agreed to meanwhile comes along: a member may not forget.
            self.lab.console(
                master,
                f"""set -e
                systemctl stop rke2-server
                rm -rf {folder}.kept {folder}/fill
                cp -a {folder} {folder}.kept
                umount {folder}
                rmdir {folder}
                mv {folder}.kept {folder}
                systemctl start --no-block rke2-server""",
                seconds=120,
            )


def down(statistics: str) -> list[str]:
    """The servers that HAProxy's statistics (CSV) do not call up; a word about it when there are none."""
    rows = list(csv.DictReader(io.StringIO(statistics.removeprefix("# "))))
    servers = [row for row in rows if row.get("svname") not in (None, "FRONTEND", "BACKEND")]
    if not servers:
        return ["HAProxy gives no statistics"]
    return [
        f"{row['pxname']}/{row['svname']} is {row['status']}" for row in servers if not row["status"].startswith("UP")
    ]


def now() -> float:
    """A moment that the hosts' clocks agree with: they are the machine's."""
    return time.time()
