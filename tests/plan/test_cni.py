"""The network plugin: what RKE2 is given for it, and what the stack opens for it."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Network
from typing import Any

import pytest
import yaml

from plan import cilium, media, network, rke2
from plan.contract.cilium import host_policies, pod_policy
from plan.contract.flow import flows
from plan.manifests import manifests
from tests.plan.stacks import plan


def files(architecture: str = "standalone", **sections: Any) -> dict[str, dict[str, str]]:
    stack = plan(architecture, kubernetes={"cni": "cilium"}, **sections)
    return {cluster.name: cilium.manifests(stack.contract, cluster) for cluster in stack.topology.clusters}


def values(text: str, chart_name: str = "rke2-cilium") -> dict[str, Any]:
    chart = yaml.safe_load(text)
    assert (chart["apiVersion"], chart["kind"]) == ("helm.cattle.io/v1", "HelmChartConfig")
    assert chart["metadata"] == {"name": chart_name, "namespace": "kube-system"}
    found: dict[str, Any] = yaml.safe_load(chart["spec"]["valuesContent"])
    return found


def test_servers_ask_for_cilium_and_have_its_images() -> None:
    stack = plan(kubernetes={"cni": "cilium"})
    (cluster,) = stack.topology.clusters
    for master in cluster.masters:
        assert rke2.node_config(cluster, master, stack.settings.kubernetes, "api.x")["cni"] == "cilium"
    assert "cni" not in rke2.node_config(cluster, cluster.workers[0], stack.settings.kubernetes, "api.x")
    assert "rke2-images-cilium.linux-amd64.tar.zst" in media.rke2_artifacts("cilium")


def test_cilium_guards_the_nodes_and_knows_them_by_address() -> None:
    told = values(files()["standalone"]["opstella-cilium.yaml"])
    assert told == {
        "hostFirewall": {"enabled": True}, "policyCIDRMatchMode": ["nodes"], "kubeProxyReplacement": False,
    }  # fmt: skip


def test_each_cluster_applies_its_own_host_policies() -> None:
    stack = plan("multicluster", kubernetes={"cni": "cilium"})
    found = files("multicluster")
    for cluster in stack.topology.clusters:
        text = found[cluster.name]["opstella-host-policies.yaml"]
        assert list(yaml.safe_load_all(text)) == [*host_policies(flows(stack.contract), cluster), pod_policy(stack.contract, cluster)]
    assert len({text for of in found.values() for text in of.values()}) == len(found) + 1


def test_without_a_packet_filter_cilium_lets_in_everything_too() -> None:
    (told,) = files(firewall={"enabled": False}).values()
    assert set(told) == {"opstella-cilium.yaml"}
    assert values(told["opstella-cilium.yaml"])["hostFirewall"] == {"enabled": False}


def test_calico_takes_the_address_that_a_node_registered_with() -> None:
    """Not the first one of the first network card, which is the operator's own choice, and which it has written into the
    Installation of clusters that run: two choices at once are refused there."""
    stack = plan()
    assert cilium.manifests(stack.contract, stack.topology.clusters[0]) == {}
    ((name, text),) = manifests(stack.contract, stack.topology.clusters[0]).items()
    assert name == "opstella-calico.yaml"
    assert values(text, "rke2-calico") == {
        "installation": {"calicoNetwork": {"nodeAddressAutodetectionV4": {"firstFound": False, "kubernetes": "NodeInternalIP"}}}
    }


@pytest.mark.parametrize("profile", ["opstella", "tectonic", "deckhouse", "rke2-cilium"])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("plugin", "used", "unused"), [
    ("calico", {("udp", 4789), ("tcp", 5473)}, {("udp", 8472), ("tcp", 4240)}),
    ("cilium", {("udp", 8472), ("tcp", 4240)}, {("udp", 4789), ("tcp", 5473), ("tcp", 179)}),
])  # fmt: skip
def test_nodes_open_what_their_plugin_needs(
    plugin: str, used: set[tuple[str, int]], unused: set[tuple[str, int]], profile: str, strict: bool
) -> None:
    stack = plan(kubernetes={"cni": plugin}, network={"profile": profile, "strict": strict})
    (cluster,) = stack.topology.clusters
    for node, other in itertools.permutations((cluster.masters[0], *cluster.workers[:2]), 2):
        openings = network.openings(node, stack.contract)
        near, far = IPv4Network(other.address), IPv4Network("198.51.100.7")
        for protocol, port in used:
            assert network.allows(openings, near, protocol, port), (node.name, port)
            assert not strict or not network.allows(openings, far, protocol, port), (node.name, port)
        for protocol, port in unused:
            assert not strict or not network.allows(openings, near, protocol, port), (node.name, port)


def test_the_table_of_cilium_fits_a_cluster_with_cilium() -> None:
    """Its rows for Cilium stand by themselves, and no warning calls them unused."""
    stack = plan(kubernetes={"cni": "cilium"}, network={"profile": "rke2-cilium"})
    rows = {(r.protocols, r.ports): r for r in stack.contract.rules if set(r.ports) & {8472, 4240}}
    assert {rule.origin for rule in rows.values()} == {"reference"}, rows
    unused = [text for text in stack.warnings if "8472" in text or "4240" in text]
    assert not unused


@pytest.mark.parametrize(("plugin", "port", "told"), [
    ("calico", 51820, {"felixConfiguration": {"wireguardEnabled": True}}),
    ("cilium", 51871, {"encryption": {"enabled": True, "type": "wireguard"}}),
])  # fmt: skip
def test_pods_of_different_nodes_are_encrypted_if_the_settings_say_so(
    plugin: str, port: int, told: dict[str, Any]
) -> None:
    opened: dict[bool, set[int]] = {}
    for encrypted in (False, True):
        stack = plan(kubernetes={"cni": plugin, "encryptPods": encrypted})
        (cluster,) = stack.topology.clusters
        given = values(manifests(stack.contract, cluster)[f"opstella-{plugin}.yaml"], f"rke2-{plugin}")
        assert (told.items() <= given.items()) == encrypted
        openings = network.openings(cluster.workers[0], stack.contract)
        node = IPv4Network(cluster.workers[1].address)
        opened[encrypted] = {p for p in (port,) if network.allows(openings, node, "udp", p)}
    assert opened == {False: set(), True: {port}}
