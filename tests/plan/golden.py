"""The rendered files that tests/golden holds. To renew them after an intended change, and then read the difference:

venv/bin/python -m tests.plan.golden && git diff tests/golden
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from plan import cilium, dns, gitlab, haproxy, hosts, keepalived, media, nfs, nftables, rke2
from plan.manifests import manifests
from plan.plan import Plan
from plan.topology import ClusterHosts, Host
from tests.plan.stacks import plan

FOLDER = Path(__file__).resolve().parents[1] / "golden"
# Versions are renewed often; the files below show what does not depend on them.
GITLAB_VERSION = "19.3.0"
TWO = {"count": 2, "virtualAddress": "192.168.75.10", "addresses": ["192.168.75.11", "192.168.75.9"]}


def rendered() -> dict[str, str]:
    """Path below tests/golden to text: all of standalone, of one cluster of multicluster what differs, what two clusters
    share, and what Cilium is given."""
    return {**dict(_standalone()), **dict(_multicluster()), **dict(_shared()), **dict(_cilium())}


def _standalone() -> Iterator[tuple[str, str]]:
    stack = plan(
        time={"servers": ["192.168.72.1", "ntp.example.com"]},
        firewall={"operatorNetworks": ["10.0.0.0/8"]},
        gitlab={"version": GITLAB_VERSION},
    )
    (cluster,) = stack.topology.clusters
    yield "standalone/haproxy.cfg", haproxy.configuration(stack.topology.load_balancers[0])
    yield "standalone/exports", nfs.exports(cluster)
    yield "standalone/nfs.conf", nfs.nfs_conf()
    yield "standalone/ganesha.conf", nfs.ganesha_conf(cluster)
    yield "standalone/gitlab.rb", gitlab.gitlab_rb("gitlab.devops.example.com", media.gitlab_version(stack.settings))
    yield "standalone/dns.txt", _zone(stack)
    yield "standalone/warnings.txt", "".join(f"{line}\n" for line in stack.warnings)
    for name, text in manifests(stack.contract, cluster).items():
        yield f"standalone/{name}", text
    for host in (cluster.masters[0], cluster.workers[0]):
        yield f"standalone/{host.name}.config.yaml", _node(stack, cluster, host)
    for host in (stack.topology.bastion, stack.topology.gitlab, cluster.load_balancers[0], cluster.nfs,
                 cluster.masters[0], cluster.workers[0]):  # fmt: skip
        values = hosts.prepare(host, stack.contract, stack.stack)
        yield f"standalone/{host.role}.nft", nftables.ruleset(host, stack.contract)
        yield f"standalone/{host.role}.hosts", str(values["hosts_file"])
        if host.role == "worker":
            yield "standalone/chrony.conf", str(values["chrony_conf"])
            yield "standalone/sysctl.conf", str(values["sysctl"])


def _cilium() -> Iterator[tuple[str, str]]:
    stack = plan(kubernetes={"cni": "cilium"}, network={"strict": True}, firewall={"operatorNetworks": ["10.0.0.0/8"]})
    for name, text in cilium.manifests(stack.contract, stack.topology.clusters[0]).items():
        yield f"cilium/{name}", text


def _multicluster() -> Iterator[tuple[str, str]]:
    labels = {"labels": {"example.com/zone": "a"}, "taints": [{"key": "dedicated", "effect": "NoSchedule"}]}
    stack = plan(
        "multicluster",
        clusters={"prd": {"masters": labels, "loadBalancer": TWO}},
        kubernetes={"cisProfile": True},
        media={"registryMirror": "https://registry.example.com"},
    )
    cluster, balancer = stack.topology.clusters[-1], stack.topology.load_balancers[-1]
    yield "multicluster/dns.txt", _zone(stack)
    yield "multicluster/haproxy.cfg", haproxy.configuration(balancer)
    yield "multicluster/registries.yaml", rke2.to_yaml(rke2.registries(stack.settings.media))
    for host in balancer.hosts:
        yield f"multicluster/{host.name}.keepalived.conf", keepalived.configuration(balancer, host)
    for host in cluster.masters[:2]:
        yield f"multicluster/{host.name}.config.yaml", _node(stack, cluster, host)
    for host in (cluster.load_balancers[0], cluster.nfs, cluster.masters[0], cluster.workers[0]):
        yield f"multicluster/{host.role}.nft", nftables.ruleset(host, stack.contract)


def _shared() -> Iterator[tuple[str, str]]:
    stack = plan(
        "multicluster",
        clusters={
            "dev": {"loadBalancer": {"sharedWith": "prd", "virtualAddress": "192.168.75.8"}},
            "prd": {"loadBalancer": TWO},
        },
    )
    balancer = stack.topology.load_balancers[-1]
    host = balancer.hosts[0]
    yield "shared/haproxy.cfg", haproxy.configuration(balancer)
    yield "shared/keepalived.conf", keepalived.configuration(balancer, host)
    yield "shared/haproxy.nft", nftables.ruleset(host, stack.contract)
    yield "shared/dns.txt", _zone(stack)


def _node(stack: Plan, cluster: ClusterHosts, host: Host) -> str:
    name = dns.api_name(stack.settings, cluster.name)
    return rke2.to_yaml(rke2.node_config(cluster, host, stack.settings.kubernetes, name, stack.issuer, resolv_conf=dns.pods_file(stack.settings)))


def _zone(stack: Plan) -> str:
    return "".join(f"{record.name}. A {record.address}\n" for record in stack.records)


def renew() -> None:
    """Writes every file, and removes those that are no longer rendered."""
    files = rendered()
    for name, text in files.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    for path in FOLDER.rglob("*"):
        if path.is_file() and str(path.relative_to(FOLDER)) not in files:
            path.unlink()


if __name__ == "__main__":
    renew()
