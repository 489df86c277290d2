"""The faults that are done to a cluster's machines. Each is a context: done when it begins, undone when it ends."""

from __future__ import annotations

import contextlib
import enum
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from chaos.cluster import Cluster
from chaos.lab import ChaosError, wait_until

GAP_SECONDS = 5.0
"""How long an API may give no answer after the loss of one machine that the architecture can spare."""


class Target(enum.Enum):
    """What a fault is held to; no acknowledged write is ever lost."""

    REACHABLE = f"gap at most {GAP_SECONDS:.0f} s"
    NO_FAILURE = "no failed request"
    SINGLE = "single point: nothing lost"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`do` gives notes about what it did and saw; they may grow until it ends. It is held for `seconds`.

    `ready` prepares the cluster before anybody watches. `elsewhere`: the watched clients are those of the other clusters.
    """

    name: str
    what: str
    target: Target
    do: Callable[[Cluster], AbstractContextManager[list[str]]]
    seconds: float = 25
    ready: Callable[[Cluster], AbstractContextManager[object]] | None = None
    elsewhere: bool = False


class NotHere(Exception):
    """The fault cannot be made in this stack; the message says what it would need."""


# --- masters --------------------------------------------------------------------------------------


@contextlib.contextmanager
def master_processes(cluster: Cluster) -> Iterator[list[str]]:
    master = _spare_master(cluster)
    cluster.lab.console(master, "systemctl kill --signal=KILL --kill-whom=all rke2-server")
    yield [f"`kill -9` of everything that rke2-server runs on {master}", "systemd starts it again after 5 s"]


@contextlib.contextmanager
def etcd_leader(cluster: Cluster) -> Iterator[list[str]]:
    _spare_master(cluster)
    leader = cluster.leader()
    cluster.lab.console(leader, "pkill -9 -x etcd")
    notes = [f"`kill -9` of etcd on {leader}, which led"]
    yield notes
    notes.append(f"rke2-server starts it again; {cluster.leader()} leads")


@contextlib.contextmanager
def master_host(cluster: Cluster) -> Iterator[list[str]]:
    _spare_master(cluster)
    leader = cluster.leader()
    with cluster.lab.off(leader):
        notes = [f"{leader}, whose etcd led, without power and silent"]
        yield notes
    notes.append("booted, it joins again by itself")


def _spare_master(cluster: Cluster) -> str:
    if len(cluster.masters) < 3:
        raise NotHere(f"{cluster.name} has {len(cluster.masters)} master; three survive the loss of one")
    return cluster.masters[1]


_SPARE_MIB = 16


def own_database_disk(cluster: Cluster) -> AbstractContextManager[object]:
    return cluster.bounded_database(_spare_master(cluster), _SPARE_MIB)


@contextlib.contextmanager
def full_disk(cluster: Cluster) -> Iterator[list[str]]:
    master = _spare_master(cluster)
    folder = "/var/lib/rancher/rke2/server/db"
    # etcd reserves space ahead, so it would notice late; when it starts it needs some.
    cluster.lab.console(
        master, f"dd if=/dev/zero of={folder}/fill bs=64K 2>/dev/null; df {folder} | grep -q 100% && pkill -9 -x etcd"
    )
    notes = [f"the disk of etcd's data on {master} filled to its last byte, etcd ended there"]
    try:
        yield notes
        answers = _etcd_answers(cluster, master)
        notes.append(
            "its etcd started again in the space that it had reserved" if answers else "its etcd did not start again"
        )
    finally:
        cluster.lab.console(master, f"rm -f {folder}/fill")
    notes.append("room made, it went on by itself")


def _etcd_answers(cluster: Cluster, master: str) -> bool:
    said = cluster.lab.console(master, "curl --silent --max-time 3 http://127.0.0.1:2381/health", check=False)
    return '"health":"true"' in said


# --- workers, storage -----------------------------------------------------------------------------


@contextlib.contextmanager
def worker_host(cluster: Cluster) -> Iterator[list[str]]:
    if len(cluster.workers) < 2:
        raise NotHere(f"{cluster.name} has one worker, which cannot be spared")
    worker = cluster.workers[-1]
    with cluster.lab.off(worker):
        notes = [f"{worker} without power and silent"]
        yield notes
    notes.append("booted, it is Ready by itself")


@contextlib.contextmanager
def nfs_server(cluster: Cluster) -> Iterator[list[str]]:
    host, address, path = cluster.share
    worker, word = cluster.workers[0], secrets.token_hex(8)

    def write(name: str) -> str:
        # The user-space client: the lab's kernel may have none. Its version 4 replaces no file, so every try has a name.
        url = f"nfs://{address}{path}/.chaos-{word}-{name}?version=4"
        return cluster.lab.console(worker, f"echo {word} >/tmp/{word}; timeout 10 nfs-cp /tmp/{word} '{url}' >/dev/null 2>&1 && echo written; rm -f /tmp/{word}", check=False).strip()  # fmt: skip

    try:
        if write("before") != "written":
            raise ChaosError(f"{worker} cannot write to {address}:{path}, before anything was done")
        with cluster.lab.off(host):
            notes = [f"{host} without power and silent"]
            yield notes
            notes.append("meanwhile a worker " + ("could write all the same" if write("during") else "could not write"))
        tries = iter(range(1000))
        took = wait_until("a worker writes to NFS", lambda: "" if write(f"after-{next(tries)}") else "it cannot", 240)
        url = f"nfs://{address}{path}/.chaos-{word}-before?version=4"
        read = cluster.lab.console(
            worker, f"timeout 20 nfs-cp '{url}' /tmp/{word} >&2 && cat /tmp/{word}; rm -f /tmp/{word}", check=False
        )
        if read.strip() != word:
            raise ChaosError(f"{worker} reads {read.strip()[:60]!r} where {word} was written before {host} went off")
        notes.append(f"booted, a worker could write again after {took:.0f} s, and read what was written before")
    finally:
        cluster.lab.console(host, f"rm -f {path}/.chaos-{word}-*", check=False)


# --- the load balancer ----------------------------------------------------------------------------

_RELOADS = 50


@contextlib.contextmanager
def haproxy_host(cluster: Cluster) -> Iterator[list[str]]:
    if len(cluster.balancers) < 2:
        raise NotHere(
            f"{cluster.name} has one load balancer, a single point; opstella:clusters.{cluster.name}.loadBalancer.count: 2 "
            "and a virtualAddress remove it"
        )
    host = cluster.entrance()
    with cluster.lab.off(host):
        notes = [f"{host}, which held {cluster.address}, without power and silent"]
        yield notes
        successor = cluster.entrance()
        notes.append(f"{successor} took the address over")
    after = cluster.entrance()
    notes.append(f"booted, {host} " + ("stays behind it" if after == successor else "took it back"))


@contextlib.contextmanager
def haproxy_restart(cluster: Cluster) -> Iterator[list[str]]:
    host = cluster.entrance()
    cluster.lab.console(host, "systemctl restart haproxy")
    yield [f"`systemctl restart haproxy` on {host}"]


@contextlib.contextmanager
def haproxy_reload(cluster: Cluster) -> Iterator[list[str]]:
    host = cluster.entrance()
    said = cluster.lab.console(
        host,
        # systemd refuses more than a few starts in a short time; reloads it does not count.
        f"for i in $(seq {_RELOADS}); do systemctl reload haproxy || exit 1; sleep 0.3; done; "
        "systemctl show -P NRestarts haproxy",
        seconds=300,
    )
    yield [f"{_RELOADS} times `systemctl reload haproxy` on {host}", f"restarts of the service: {said.strip()}"]


# --- a whole cluster ------------------------------------------------------------------------------


@contextlib.contextmanager
def cluster_network(cluster: Cluster) -> Iterator[list[str]]:
    lab = cluster.lab
    others = [c["name"] for c in lab.plan["clusters"] if c["name"] != cluster.name]
    if not others:
        raise NotHere("the stack has one cluster")
    with lab.settings() as change, tempfile.TemporaryDirectory(prefix="opstella-chaos-") as folder:
        with lab.without_router(cluster.subnet):
            notes = [f"{cluster.name}'s subnet {cluster.subnet} cut off from all others and from the operator"]
            inside = cluster.kubectl(f"get --raw /readyz --server https://{cluster.address}:6443", check=False).strip()
            notes.append(f"inside, its API answers {inside or 'nothing'}")
            change({"opstella:clusters": {others[0]: {"workers": {"labels": {"opstella.io/chaos": "cut"}}}}})
            run = lab.start_up(Path(folder, "log"))
            began = time.monotonic()
            status = run.ends(600)
            run.kill()
            outcome = {0: "succeeded", None: "did not end"}.get(status, "failed")
            notes.append(f"`up` with a change to {others[0]} {outcome} after {time.monotonic() - began:.0f} s")
            yield notes
    lab("pulumi", "cancel", "--yes", check=False)
    lab.up()


FAULTS = (
    Fault(name="master-processes", what="a master's processes are killed", target=Target.REACHABLE, do=master_processes),
    Fault(name="etcd-leader", what="etcd's leader is killed", target=Target.REACHABLE, do=etcd_leader),
    Fault(name="master-host", what="a master's host stops", target=Target.REACHABLE, do=master_host),
    Fault(name="worker-host", what="a worker's host stops", target=Target.REACHABLE, do=worker_host),
    Fault(name="disk-full", what="a master's disk is full", target=Target.REACHABLE, do=full_disk, ready=own_database_disk, seconds=40),
    Fault(name="cluster-network", what="a cluster is cut off from the others", target=Target.REACHABLE, do=cluster_network, seconds=10, elsewhere=True),
    Fault(name="nfs-server", what="the NFS server stops and comes back", target=Target.SINGLE, do=nfs_server),
    Fault(name="haproxy-host", what="the host of the load balancer that has the virtual address stops", target=Target.REACHABLE, do=haproxy_host),
    Fault(name="haproxy-restart", what="HAProxy restarts under load", target=Target.SINGLE, do=haproxy_restart, seconds=15),
    Fault(name="haproxy-reload", what="HAProxy reloads 50 times under load", target=Target.NO_FAILURE, do=haproxy_reload, seconds=10),
)  # fmt: skip
