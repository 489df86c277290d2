"""Random valid architectures: clusters of any name and shape, tools placed in them, some left out, networks of any kind.

What is drawn is what a user writes. Where a tool that is left out is needed, the error page is followed as a user would
follow it, so that its advice is tried too.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import Any

from hypothesis import strategies as st

from config.errors import ConfigurationError
from config.placement import service_key
from config.reference import FOLLOWS, PLACES, SEVERAL
from plan.plan import Plan
from plan.tools import catalogue
from tests.plan.stacks import plan

# Without these a cluster carries nothing that users open.
BASE = ("csi-driver-nfs", "cert-manager", "traefik", "trust-manager")
# They keep their data in an object store of their own cluster.
BESIDE_A_STORE = ("harbor", "loki", "mimir", "tempo")
MORE_PODS = ("grafana", "headlamp", "keycloak")

names = st.lists(
    st.sampled_from(["dev", "prd", "observability", "devsecops"]) | st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,3})?", fullmatch=True),
    min_size=1, max_size=6, unique_by=lambda name: service_key("", name),
)  # fmt: skip


@st.composite
def _cluster(draw: st.DrawFn, number: int) -> dict[str, Any]:
    masters, workers = draw(st.sampled_from([1, 3, 5])), draw(st.integers(1, 6))
    # From a network with a little room to one with a lot; each cluster in a tenth of its own.
    subnet = IPv4Network((f"10.{number}.{draw(st.integers(0, 15)) * 16}.0", draw(st.integers(20, 26))))
    cluster: dict[str, Any] = {
        "subnet": str(subnet),
        "masters": {"count": masters},
        # One of them has room for every tool.
        "workers": {"count": workers, "cpu": 64, "memoryGb": 256},
        "nfs": {"server": draw(st.sampled_from(["kernel", "ganesha"]))},
    }
    if masters + workers > 8 or draw(st.booleans()):
        cluster |= {"podSubnet": f"172.{18 + number}.0.0/20", "serviceSubnet": f"172.{18 + number}.16.0/22"}
    if draw(st.booleans()):
        cluster["loadBalancer"] = {"address": str(subnet[-3])}
        cluster["workers"]["addresses"] = [str(subnet[-4])]
    return cluster


def _balance(draw: st.DrawFn, clusters: dict[str, dict[str, Any]]) -> None:
    """Load balancers: of one machine or of two, each cluster's own or another one's."""
    owners = draw(st.lists(st.sampled_from(list(clusters)), min_size=1, unique=True))
    for number, (name, cluster) in enumerate(clusters.items()):
        if name not in owners and draw(st.booleans()):
            owner = draw(st.sampled_from(owners))
            # Below the first address that is allocated.
            address = str(IPv4Network(clusters[owner]["subnet"])[2 + number])
            cluster["loadBalancer"] = {"sharedWith": owner, "virtualAddress": address}
        elif draw(st.booleans()):
            subnet = IPv4Network(cluster["subnet"])
            addresses = [str(subnet[-3]), str(subnet[9])]
            cluster["loadBalancer"] = {"count": 2, "virtualAddress": str(subnet[8]), "addresses": addresses}


@st.composite
def written(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of the architecture `custom`; what is left out may still be needed."""
    found = draw(names)
    clusters = {name: draw(_cluster(number)) for number, name in enumerate(found)}
    # The last of them may be left out, though what it would carry by default has to go elsewhere then.
    # (A place of a tool that the catalogue does not have cannot be moved.)
    fixed = {cluster for tool, places in PLACES.items() if tool not in catalogue.NAMES for cluster in places}
    out = found[-1] if len(found) > 1 and found[-1] not in fixed and draw(st.booleans()) else None
    if out:
        clusters[out]["enabled"] = False
    there = [name for name in found if name != out]
    _balance(draw, {name: clusters[name] for name in there})
    tools: dict[str, dict[str, Any]] = {}
    for tool, default in PLACES.items():
        if tool not in catalogue.NAMES:
            continue
        homeless = out is not None and out in default
        if homeless or draw(st.booleans()):
            most = len(there) if tool in SEVERAL else 1
            tools[tool] = {"clusters": draw(st.lists(st.sampled_from(there), min_size=1, max_size=most, unique=True))}
    for tool in sorted(set(catalogue.NAMES) - set(BASE) - set(FOLLOWS)):
        if draw(st.integers(0, 9)) == 0:
            tools[tool] = {"enabled": False}
    for tool in MORE_PODS:
        if tools.get(tool, {}).get("enabled", True) and draw(st.booleans()):
            tools.setdefault(tool, {})["replicas"] = draw(st.integers(1, 4))
    return {
        "clusters": clusters,
        "tools": tools,
        # The tables as they are written, which test_network knows; strict contracts are those of test_needs.
        "network": {"mesh": draw(st.booleans()), "strict": False},
        "gitlab": {"objectStorage": draw(st.booleans())},
        "kubernetes": {"registryMirror": draw(st.sampled_from(["harbor", "none"]))},
        "opstella": draw(
            st.sampled_from([{}, {"core": {"image": "core:1"}}, {"ui": {"image": "ui:1"}, "core": {"image": "core:1"}}])
        ),
    }


def followed(values: dict[str, Any]) -> tuple[dict[str, Any], Plan]:
    """`values` as they are valid, and their plan: what the error page asks for is done."""
    for _ in range(len(catalogue.NAMES)):
        try:
            return values, plan("custom", **values)
        except ConfigurationError as error:
            changed = [_obey(values["tools"], str(problem)) for problem in error.problems]
            if not all(changed):
                raise
    raise AssertionError("the error page leads nowhere")


def _obey(tools: dict[str, Any], problem: str) -> bool:
    """Does what one problem asks for; False: it asks for something that a drawn architecture must not need."""
    if found := re.search(r"enabled: (\S+) needs \S+, which is left out", problem):
        tools[found[1]] = {"enabled": False}
        return True
    if found := re.search(r"minio.clusters: (\S+) stands in (\S+) and keeps its data", problem):
        tools.setdefault("minio", {}).setdefault("clusters", [])
        places = tools["minio"]["clusters"] or re.findall(r"minio is in (\S+)\n", problem)
        tools["minio"]["clusters"] = list(dict.fromkeys([*places, found[2]]))
        return True
    return False


architectures = written().map(followed)
