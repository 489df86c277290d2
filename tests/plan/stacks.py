"""Settings for the tests of the plan: the reference's two architectures, and any valid stack."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from config.checks import ENCRYPTED
from config.errors import ConfigurationError
from config.load import from_values
from config.model import Settings
from plan.plan import Plan
from tests.support.planned import planned

DOMAIN = "devops.example.com"


def read(architecture: str = "standalone", **sections: Any) -> Settings:
    """Settings as a user would write them: `sections` are the top-level keys beside the required ones."""
    values = {"architecture": architecture, "domain": DOMAIN, "ssh": {"privateKey": ENCRYPTED}, **sections}
    return from_values(values, "test")


def plan(architecture: str = "standalone", **sections: Any) -> Plan:
    return planned(_read, architecture, sections)


def _read(architecture: str, sections: dict[str, Any]) -> Settings:
    return read(architecture, **sections)


def as_written(architecture: str = "standalone", **sections: Any) -> Plan:
    """A stack whose machines open the profile's tables as the document has them."""
    return plan(architecture, **{**sections, "network": {"strict": False, **sections.get("network", {})}})


def examples(count: int) -> settings:
    """As many random examples; how long one takes says only how busy the machine is.

    A failing stack is shown as it was found: making it smaller would take minutes.
    """
    return settings(
        max_examples=count,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


_labels = st.dictionaries(
    st.sampled_from(["zone", "example.com/rack", "example.com/disk"]), st.sampled_from(["", "a", "1"]), max_size=2
)


def _taints(*effects: str) -> st.SearchStrategy[list[dict[str, str]]]:
    return st.lists(
        st.fixed_dictionaries(
            {"key": st.sampled_from(["dedicated", "example.com/gpu"]), "effect": st.sampled_from(effects)},
            optional={"value": st.sampled_from(["", "tools"])},
        ),
        max_size=2,
        unique_by=lambda taint: (taint["key"], taint["effect"]),
    )


# Tools have no other nodes than workers.
_EFFECTS = {"masters": ("NoSchedule", "NoExecute"), "workers": ("PreferNoSchedule",)}


@st.composite
def written(draw: st.DrawFn, most_workers: int = 8) -> dict[str, Any]:
    """What a user may write: one to three clusters of any shape, some addresses given and the others allocated."""
    first_address = draw(st.integers(2, 12))
    names = draw(st.lists(st.sampled_from(["blue", "c1", "dev", "observability"]), min_size=1, max_size=3, unique=True))
    values: dict[str, Any] = {"machines": {"firstAddress": first_address}, "clusters": {}}
    left: dict[str, list[str]] = {}
    for number, name in enumerate(names):
        counts = {"masters": draw(st.sampled_from([1, 3, 5])), "workers": draw(st.integers(1, most_workers))}
        machines = ["loadBalancer", "nfs", *(["bastion", "gitlab"] if number == 0 else [])]
        doubled = draw(st.booleans())
        # Two load balancers are a machine and a virtual address more.
        total = len(machines) + sum(counts.values()) + 2 * doubled
        # From a network into which the machines just fit, to one with a lot of room.
        tightest = 32 - (total + first_address).bit_length()
        prefix = draw(st.integers(20, tightest))
        subnet = (
            IPv4Network((f"10.{number}.0.0", prefix))
            if prefix < 24
            else IPv4Network(
                (f"192.168.{number}.{draw(st.integers(0, 2 ** (prefix - 24) - 1)) << (32 - prefix)}", prefix)
            )
        )
        pool = draw(st.lists(st.integers(1, subnet.num_addresses - 2), unique=True, max_size=total))
        given = iter([str(subnet[n]) for n in pool])
        # At least a /25 of pods for each node.
        tightest_pods = 25 - (sum(counts.values()) - 1).bit_length()
        cluster: dict[str, Any] = {
            "subnet": str(subnet),
            "podSubnet": f"172.{16 + number}.0.0/{draw(st.integers(16, tightest_pods))}",
            "serviceSubnet": f"172.31.{number * 4}.0/22",
        }
        for machine in machines:
            address = next(given, None) if draw(st.booleans()) else None
            place = values if machine in ("bastion", "gitlab") else cluster
            place[machine] = {} if address is None else {"address": address}
        if doubled and len(three := [a for _ in range(3) if (a := next(given, None))]) == 3:
            first, second, virtual = three
            cluster["loadBalancer"] = {"count": 2, "addresses": [first, second], "virtualAddress": virtual}
        cluster["nfs"]["server"] = draw(st.sampled_from(["kernel", "ganesha"]))
        prefix_of_names = "" if len(names) == 1 else f"{name}-"
        for group, count in counts.items():
            addresses = [a for _ in range(draw(st.integers(0, count))) if (a := next(given, None))]
            cluster[group] = {"count": count, "addresses": addresses, "labels": draw(_labels), "taints": draw(_taints(*_EFFECTS[group]))}
            if group == "workers":
                cluster[group] |= {"cpu": 64, "memoryGb": 256}  # one of them has room for every tool
            if draw(st.booleans()):
                node = f"{prefix_of_names}{group[:-1]}-{draw(st.integers(1, count))}"
                cluster[group]["nodeLabels"] = {node: draw(_labels)}
        values["clusters"][name], left[name] = cluster, list(given)
    _share(draw, values["clusters"], left)
    values["firewall"] = {
        "operatorNetworks": draw(
            st.lists(st.sampled_from(["10.200.0.0/16", "10.200.7.0/24", "203.0.113.9/32"]), max_size=3)
        )
    }
    values["network"] = {"strict": False}
    values["kubernetes"] = {"cisProfile": draw(st.booleans())}
    return values


def _share(draw: st.DrawFn, clusters: dict[str, Any], left: dict[str, list[str]]) -> None:
    """Some have the load balancer of another cluster, at an address that is `left` in its subnet."""
    behind: dict[str, list[str]] = {}
    for name, cluster in clusters.items():
        owners = [n for n, c in clusters.items() if n != name and "sharedWith" not in c["loadBalancer"]]
        if name in behind or not owners or not draw(st.booleans()):
            continue
        owner = draw(st.sampled_from(owners))
        taken = behind.setdefault(owner, [clusters[owner]["loadBalancer"].get("virtualAddress", "")])
        # Two machines tell addresses apart by their last numbers.
        numbers = {int(IPv4Address(address)) % 256 or 255 for address in taken if address}
        found = next((a for a in left[owner] if (int(IPv4Address(a)) % 256 or 255) not in numbers), None)
        if found:
            left[owner].remove(found)
            taken.append(found)
            cluster["loadBalancer"] = {"sharedWith": owner, "virtualAddress": found}


def stacks(most_workers: int = 8) -> st.SearchStrategy[Plan]:
    """The plan of any valid stack."""
    return written(most_workers).filter(_fits).map(lambda values: plan("custom", **values))


def _fits(values: dict[str, Any]) -> bool:
    """Given addresses below the first allocated one leave the others enough room in almost every draw."""
    try:
        read("custom", **values)
    except ConfigurationError as error:
        if all("free addresses" in p.what for p in error.problems):
            return False
        raise
    return True


_ports = st.lists(st.sampled_from([7999, "8000-8010", 6443, 30080, "29990-30010", "32760-40000"]), min_size=1, max_size=3, unique=True)
_rules = st.lists(
    st.fixed_dictionaries(
        {
            "purpose": st.just("ours"),
            "to": st.sampled_from(["master", "worker", "node", "gitlab", "nfs", "haproxy"]),
            "from": st.lists(st.sampled_from(["10.200.0.0/16", "10.200.7.0/24", "10.0.0.0/9", "0.0.0.0/0"]), min_size=1, unique=True),
            "protocols": st.sampled_from([["tcp"], ["udp"], ["tcp", "udp"]]),
            "ports": _ports,
            "openToAnyone": st.just(True),
        }
    ),
    max_size=2,
)  # fmt: skip


_exits = st.lists(
    st.fixed_dictionaries(
        {
            "purpose": st.just("ours"),
            "from": st.sampled_from(["all", "master", "worker", "node", "gitlab", "nfs", "haproxy", "bastion"]),
            "to": st.lists(st.sampled_from(["10.200.0.0/16", "10.200.7.0/24", "198.51.100.0/24", "0.0.0.0/0"]), min_size=1, unique=True),
            "protocols": st.sampled_from([["tcp"], ["udp"], ["tcp", "udp"]]),
            "ports": _ports,
        }
    ),
    max_size=2,
)  # fmt: skip


@st.composite
def contracts(draw: st.DrawFn) -> Plan:
    """The plan of any valid stack under any profile, with rules of the user's own, some for what machines open."""
    values = draw(written(most_workers=4).filter(_fits))
    profiles = ["opstella", "tectonic", "deckhouse", "rke2-cilium"]
    values["network"] = {"profile": draw(st.sampled_from(profiles)), "strict": draw(st.booleans()), "rules": draw(_rules)}
    enforce = draw(st.booleans())
    values["network"]["egress"] = {"enforce": enforce, "rules": draw(_exits) if enforce else []}
    return plan("custom", **values)
