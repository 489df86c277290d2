"""The checks of a stack, in the order in which a broken one would show first."""

from __future__ import annotations

import math
import secrets
import shlex
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from plan.tools import traefik
from verify import etcd, pods
from verify.kubernetes import Api, ready
from verify.reachability import reachability
from verify.runner import Check, CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack
from verify.tools import tool_checks

# How long HAProxy may take to notice a lost server (plan/haproxy.py: checked every second, then twice within half a second,
# each for up to a second), with some slack.
_NOTICE_SECONDS = 10.0
_REQUEST_SECONDS = 4.0


def checks(stack: Stack, ssh: Ssh) -> Iterator[Check]:
    """Every check of `stack`."""
    yield Check("ssh through the bastion", lambda: _every_host(stack, ssh))
    for cluster in stack.plan["clusters"]:
        yield from _of_cluster(stack, ssh, cluster)
    yield Check("certificate of gitlab", lambda: _gitlab_certificate(stack), repair=("gitlab-omnibus",))
    yield Check("hosts trust the platform's CA", lambda: _trust(stack, ssh))
    yield Check("host firewalls", lambda: reachability(stack, ssh))


def _of_cluster(stack: Stack, ssh: Ssh, cluster: dict[str, Any]) -> Iterator[Check]:
    name = cluster["name"]
    balancers = _balancers(stack, cluster)
    api = Api(stack.outputs["kubeconfigs"][name], balancers)
    yield Check(f"{name}: etcd", lambda: etcd.members(stack, ssh, cluster))
    yield Check(f"{name}: nodes through the load balancer", lambda: _nodes(stack, cluster, api))
    yield Check(f"{name}: NFS from workers only", lambda: _nfs(stack, ssh, cluster), repair=(f"{name}-nfs-nfs",))
    yield Check(f"{name}: machines and metadata closed to pods", lambda: pods.held_back(stack, ssh, cluster))
    yield Check(f"{name}: certificates of the ingress", lambda: _ingress_certificates(stack, cluster), repair=balancers)
    yield from tool_checks(stack, cluster, api)
    yield Check(f"{name}: load balancer loses a worker", lambda: _lose_worker(stack, ssh, cluster), repair=balancers)


def _balancers(stack: Stack, cluster: dict[str, Any]) -> tuple[str, ...]:
    """Resources of HAProxy in front of `cluster`, which may be that of another one; see components/load_balancer.py."""
    names = cluster["load_balancers"]
    owner = next(h["cluster"] for h in stack.hosts if h["name"] == names[0])
    return tuple(f"{owner}-lb-haproxy{f'-{number}' if number > 1 else ''}" for number in range(1, len(names) + 1))


def _every_host(stack: Stack, ssh: Ssh) -> str:
    def one(host: dict[str, Any]) -> None:
        found = ssh.run(host["name"], f"hostname && {_root(stack, 'true')}").strip()
        if found != host["name"]:
            raise CheckFailed(
                f"{host['address']} calls itself {found}, not {host['name']}", repair=(f"host-{host['name']}-prepare",)
            )

    # The bastion first: every other connection goes through its own.
    one(stack.bastion)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(one, host) for host in stack.hosts if host != stack.bastion]:
            done.result()
    return f"{len(stack.hosts)} of {len(stack.hosts)} answer by name, with the recorded host keys"


def _nodes(stack: Stack, cluster: dict[str, Any], api: Api) -> str:
    wanted = {*cluster["masters"], *cluster["workers"]}
    nodes = {n["metadata"]["name"]: n for n in api.get("/api/v1/nodes")["items"]}
    if set(nodes) != wanted:
        raise CheckFailed(f"missing: {sorted(wanted - set(nodes))}; not in the plan: {sorted(set(nodes) - wanted)}")
    late = sorted(name for name, node in nodes.items() if not ready(node))
    if late:
        raise CheckFailed(f"not Ready: {', '.join(late)}")
    if cluster["load_balancer"] not in api.server:
        raise CheckFailed(f"the kubeconfig points at {api.server}, not at the load balancer {cluster['load_balancer']}")
    return f"{len(nodes)} of {len(wanted)} Ready, asked at {api.server}"


def _nfs(stack: Stack, ssh: Ssh, cluster: dict[str, Any]) -> str:
    worker = cluster["workers"][0]
    server, path = cluster["nfs"]["address"], cluster["nfs"]["path"]
    word = secrets.token_hex(16)
    keeper = next(h["name"] for h in stack.hosts if h["address"] == server)
    try:
        read = ssh.run(worker, _root(stack, "bash -s"), stdin=_nfs_script(server, path, word)).strip()
    finally:
        # The user-space client can neither overwrite nor delete, so the file goes on the server's side.
        ssh.run(keeper, _root(stack, f"rm -f -- {shlex.quote(path)}/.opstella-verify-{word}"))
    if read != word:
        raise CheckFailed(f"{worker} wrote {word} to {server}:{path} and read back {read[:80]!r}")
    strangers = [
        h for h in stack.hosts
        if h["role"] in ("bastion", "master", "gitlab") or h["role"] == "worker" and h["cluster"] != cluster["name"]
    ]  # fmt: skip

    def knock(stranger: dict[str, Any]) -> str:
        command = f"timeout 3 bash -c '</dev/tcp/{server}/2049' 2>/dev/null && echo open || echo shut"
        return ssh.run(stranger["name"], command).strip()

    with ThreadPoolExecutor(8) as pool:
        answers = list(zip(strangers, pool.map(knock, strangers), strict=True))
    let_in = [stranger["name"] for stranger, answer in answers if answer != "shut"]
    if let_in:
        raise CheckFailed(f"{', '.join(let_in)} reach NFS on {server}:2049; only the cluster's workers may")
    return f"{worker} wrote and read back a file; {len(strangers)} hosts that are no workers of it are refused"


def _nfs_script(server: str, path: str, word: str) -> str:
    # A real mount where the kernel has an NFS client, the user-space client where it has none.
    return f"""\
set -euo pipefail
name=.opstella-verify-{word}
work=$(mktemp -d)
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"
printf %s {word} >"$work/out"
if grep -qw nfs4 /proc/filesystems || modprobe nfsv4 2>/dev/null; then
  timeout 30 mount -t nfs -o nfsvers=4.1,soft,timeo=50 {server}:{path} "$work/mnt"
  cp "$work/out" "$work/mnt/$name"
  sync
  umount "$work/mnt"
  timeout 30 mount -t nfs -o nfsvers=4.1,soft,timeo=50 {server}:{path} "$work/mnt"
  cat "$work/mnt/$name"
  rm -f "$work/mnt/$name"
else
  timeout 30 nfs-cp "$work/out" "nfs://{server}{path}/$name?version=4" >&2
  timeout 30 nfs-cp "nfs://{server}{path}/$name?version=4" "$work/in" >&2
  cat "$work/in"
fi
"""


def _ingress_certificates(stack: Stack, cluster: dict[str, Any]) -> str:
    names = _served(stack, cluster)
    if not names:
        return "no name leads to an ingress of this cluster"
    for name in names:
        _verified(stack.outputs["ca_bundle"], cluster["load_balancer"], 443, name)
    return f"{len(names)} names verified to the root at {cluster['load_balancer']}:443"


def _served(stack: Stack, cluster: dict[str, Any]) -> list[str]:
    """The names that lead to the cluster's ingress; without one, or a tool that users open behind it, there are none."""
    if not any(release.name == traefik.NAME for release in stack.releases[cluster["name"]]):
        return []
    return [
        r["name"] for r in stack.plan["dns"]
        if r["address"] == cluster["load_balancer"] and r["service"] != "kubernetes-api"
    ]  # fmt: skip


def _gitlab_certificate(stack: Stack) -> str:
    record = next(r for r in stack.plan["dns"] if r["service"] == "gitlab")
    ends = _verified(stack.outputs["ca_bundle"], record["address"], 443, record["name"])
    return f"{record['name']} verified to the root, valid until {ends}"


def _verified(authorities: str, address: str, port: int, name: str, *, seconds: float = 10) -> str:
    """The end of validity of the certificate that stands for `name`; raises CheckFailed when it does not verify."""
    context = ssl.create_default_context(cadata=authorities)
    try:
        with socket.create_connection((address, port), timeout=seconds) as plain:
            with context.wrap_socket(plain, server_hostname=name) as connection:
                return str(connection.getpeercert()["notAfter"])  # type: ignore[index]
    except OSError as error:
        raise CheckFailed(f"{name} at {address}:{port}: {error}") from None


def _trust(stack: Stack, ssh: Ssh) -> str:
    """What GitLab serves, judged by each host's system store; not asked for from there, for not each may open that."""
    name = next(r["name"] for r in stack.plan["dns"] if r["service"] == "gitlab")
    server = next(h["name"] for h in stack.hosts if h["role"] == "gitlab")
    served = ssh.run(server, f"openssl s_client -connect 127.0.0.1:443 -servername {name} -showcerts </dev/null 2>/dev/null || true")
    if "BEGIN CERTIFICATE" not in served:
        raise CheckFailed(f"{server} serves no certificate on port 443")
    judge = (
        "chain=$(mktemp); trap 'rm -f \"$chain\"' EXIT; cat >\"$chain\"; "
        f"openssl verify -CApath /etc/ssl/certs -verify_hostname {name} -untrusted \"$chain\" \"$chain\" >/dev/null 2>&1 && echo trusted"
    )
    hosts = [h for h in stack.hosts if h["role"] in ("master", "worker", "bastion")]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda host: (host, ssh.run(host["name"], f"{judge} || true", stdin=served).strip()), hosts))
    if wrong := [host["name"] for host, answer in answers if answer != "trusted"]:
        raise CheckFailed(
            f"{name} is not trusted by the system store of {', '.join(wrong)}",
            repair=tuple(f"host-{host}-prepare" for host in wrong),
        )
    return f"{len(hosts)} hosts verify {name} by their system store"


def _lose_worker(stack: Stack, ssh: Ssh, cluster: dict[str, Any]) -> str:
    """Cuts one worker's ingress ports off for some seconds and counts what clients of the load balancer notice.

    The cut is a table of its own in the worker's packet filter, and removes itself even if this program dies.
    """
    worker = cluster["workers"][-1]
    if len(cluster["workers"]) < 2:
        return "there is only one worker, which cannot be spared; nothing was cut"
    name = next(iter(_served(stack, cluster)), None)
    if name is None:
        return "no name leads to this ingress; nothing was cut"
    authorities = stack.outputs["ca_bundle"]
    probe = _Probe(lambda: _verified(authorities, cluster["load_balancer"], 443, name, seconds=_REQUEST_SECONDS))
    cut = (
        "systemd-run --quiet --collect --on-active=40 --unit=opstella-verify-heal nft delete table inet opstella_verify && "
        "nft 'table inet opstella_verify { chain cut { type filter hook prerouting priority raw; "
        "fib daddr type local tcp dport { 30080, 30443 } drop; }; }'"
    )
    heal = "systemctl stop opstella-verify-heal.timer; nft delete table inet opstella_verify"
    try:
        with probe:
            time.sleep(1)
            cut_at = time.monotonic()
            ssh.run(worker, _root(stack, cut))
            time.sleep(_NOTICE_SECONDS)
            settled_at = time.monotonic()
            time.sleep(4)
    finally:
        ssh.run(worker, _root(stack, heal))
    # By when they began: one that hung on the lost worker before it was noticed may end later.
    before, noticed = probe.failures(until=cut_at), probe.failures(cut_at, settled_at)
    after, requests = probe.failures(settled_at), probe.count(settled_at)
    if before or after or not requests:
        raise CheckFailed(
            f"requests through {cluster['load_balancer']} failed: {before} before {worker} was cut off, "
            f"{after} of {requests} from {_NOTICE_SECONDS:.0f} s on"
        )
    return f"{worker} cut off: {noticed} requests failed until it was noticed, then 0 of {requests}"


class _Probe:
    """A steady request, five a second, while the context lasts; all have ended when it has.

    Times are `time.monotonic()`, of a request's beginning.
    """

    def __init__(self, request: Callable[[], object]) -> None:
        self._request, self._stop = request, threading.Event()
        self._results: list[tuple[float, bool]] = []
        self._pool = ThreadPoolExecutor(16)
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> _Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def failures(self, since: float = 0, until: float = math.inf) -> int:
        return [ok for began, ok in list(self._results) if since <= began < until].count(False)

    def count(self, since: float = 0, until: float = math.inf) -> int:
        return len([ok for began, ok in list(self._results) if since <= began < until])

    def _loop(self) -> None:
        while not self._stop.wait(0.2):
            self._pool.submit(self._once)

    def _once(self) -> None:
        began = time.monotonic()
        try:
            self._request()
        except Exception:  # a request that breaks in any way is one that a user would have lost
            self._results.append((began, False))
        else:
            self._results.append((began, True))


def _root(stack: Stack, command: str) -> str:
    return f"{'sudo -n ' if stack.plan['ssh']['sudo'] else ''}bash -c {shlex.quote(command)}"
