"""Who may talk to whom: the rules of the stack's profile (plan/contract/), the derived ones with their reasons, and
the nftables ruleset of each host.

A source is a role (`master`, `worker`, `node` for both, `haproxy`, `bastion`), `operator`, `pods`, `peers`, `headlamp`,
or `any`; roles of a cluster mean the machines of the target's own cluster, or of every cluster behind a load balancer,
`peers` its others of the target's own role, `headlamp` the workers of the cluster that serves it, and `given` the
networks that a rule of the user's names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, collapse_addresses

from config.model import Settings
from config.placement import clusters_of
from plan.contract import profiles
from plan.contract.rule import Rule, Source, Target, listed
from plan.topology import ClusterHosts, Host, Topology

NODE_PORTS = (30000, 32767)
# By number: its name stands in /etc/protocols, which a small machine may lack.
VRRP = 112


def _derived(target: Target, ports: tuple[int, ...], source: Source, purpose: str, why: str) -> Rule:
    return Rule(
        target=target, protocols=("tcp",), ports=ports, source=source, purpose=purpose, origin="derived", why=why
    )


DERIVED: tuple[Rule, ...] = (
    _derived("all", (22,), "bastion", "SSH", "the reference has a bastion, but no rule that lets it in"),
    _derived(
        "haproxy", (6443,), "operator", "Kubernetes API",
        "kubeconfigs point at the load balancer, which no rule opens for them",
    ),
    _derived(
        "haproxy", (6443, 9345), "node", "registration address",
        "RKE2 joins through a fixed address, which is the load balancer",
    ),
    Rule(
        target="haproxy", protocols=("vrrp",), ports=(), source="peers", purpose="VRRP", origin="derived",
        why="two load balancers agree on who holds the virtual address",
    ),
    _derived("master", (9345,), "haproxy", "RKE2 supervisor API", "the registration address forwards here"),
    _derived(
        "master", (6443,), "master", "Kubernetes API", "the kubernetes Service leads any master's pods to any master"
    ),
    _derived(
        "master", (6443,), "pods", "Kubernetes API", "a pod on the same master arrives with its own address"
    ),
    _derived(
        "node", (9100,), "node", "node exporter", "any node's Alloy asks any node's exporter, which has the host's network"
    ),
    _derived("node", (9100,), "pods", "node exporter", "a pod on the same node arrives with its own address"),
    _derived("master", (2381,), "worker", "etcd metrics", "any node's Alloy asks the etcd of any master"),
    _derived("master", (2381,), "pods", "etcd metrics", "a pod on the same master arrives with its own address"),
)  # fmt: skip


SEVERAL_CLUSTERS = (
    _derived("haproxy", (6443,), "headlamp", "Kubernetes API", "Headlamp shows every cluster, from the workers of its own"),
)


def rules(settings: Settings) -> tuple[Rule, ...]:
    """Every allowed inbound flow: the profile's, what the platform needs beyond it, and the user's own."""
    contract = settings.network
    return (*profiles.rules(contract.profile, settings.architecture, contract.strict, derived(settings)), *_custom(settings))


def derived(settings: Settings) -> tuple[Rule, ...]:
    """What the platform's design asks for, and no row of the reference allows."""
    return (*DERIVED, *(SEVERAL_CLUSTERS if len(settings.enabled_clusters) > 1 else ()))


def _custom(settings: Settings) -> Iterator[Rule]:
    first, last = NODE_PORTS
    for number, rule in enumerate(settings.network.rules):
        # Collapsed: nft refuses a set whose elements overlap.
        networks = tuple(collapse_addresses(rule.sources))
        # NodePorts are guarded in a chain of their own, so a range that goes beyond them is two rules.
        parts = (((1, first - 1), (last + 1, 65535)), (NODE_PORTS,))
        for bounds in parts:
            ports = [(max(a, low), min(b, high)) for a, b in rule.ports for low, high in bounds]
            intervals = [(low, high) for low, high in ports if low <= high]
            if intervals:
                yield Rule(
                    target=rule.to, protocols=rule.protocols, ports=tuple(a for a, b in intervals if a == b),
                    ranges=tuple((a, b) for a, b in intervals if a < b), source="given", purpose=rule.purpose,
                    origin="custom", why=f"opstella:network.rules[{number}]",
                    networks=() if IPv4Network("0.0.0.0/0") in networks else networks,
                )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A rule as it stands on one host: these protocols and ports, from these networks (empty: from anywhere)."""

    rule: Rule
    networks: tuple[IPv4Network, ...]


def openings(host: Host, settings: Settings, topology: Topology) -> tuple[Opening, ...]:
    """What `host` lets in, in the order of the rules."""
    served = topology.served(host)
    found = [
        Opening(rule=rule, networks=networks)
        for rule in rules(settings)
        if _targets(rule.target, host)
        and (networks := _networks(rule, host, served, settings, topology)) is not None
    ]
    if host.role == "bastion":
        why = "the operator's way in"
        rule = _derived("all", (22,), "operator", "SSH", why)
        # Collapsed: nft refuses a set whose elements overlap.
        operators = tuple(collapse_addresses(settings.firewall.operator_networks))
        found.append(Opening(rule=rule, networks=operators))
    return tuple(found)


def _targets(target: Target, host: Host) -> bool:
    return target == "all" or target == host.role or (target == "node" and host.role in ("master", "worker"))


def _peers(host: Host, served: tuple[ClusterHosts, ...]) -> tuple[IPv4Network, ...]:
    if host.role != "haproxy":
        return ()
    return tuple(IPv4Network(other.address) for other in served[0].load_balancers if other != host)


def _networks(
    rule: Rule, host: Host, served: tuple[ClusterHosts, ...], settings: Settings, topology: Topology
) -> tuple[IPv4Network, ...] | None:
    """Where the rule's source is, seen from `host`: empty for anywhere, None where it is no machine."""
    source = rule.source
    if source in ("any", "given"):
        return rule.networks
    if source == "bastion":
        # A machine is no source of its own.
        return None if host.role == "bastion" else (IPv4Network(topology.bastion.address),)
    if source == "operator":
        # Whoever may reach the bastion may use the API; the bastion itself is one such place.
        own = settings.firewall.operator_networks
        return tuple(collapse_addresses([*own, IPv4Network(topology.bastion.address)])) if own else ()
    if source == "headlamp":
        return _headlamp(settings, topology, served) or None
    if not served:
        raise ValueError(f"rule with source '{source}' on a host outside of any cluster")
    if source == "peers":
        return _peers(host, served) or None
    if source == "pods":
        return tuple(collapse_addresses(cluster.settings.pod_subnet for cluster in served))
    if len(served) == 1:
        return served[0].networks[source]
    return tuple(collapse_addresses(network for cluster in served for network in cluster.networks[source]))


def _headlamp(settings: Settings, topology: Topology, served: tuple[ClusterHosts, ...]) -> tuple[IPv4Network, ...]:
    """The workers of the clusters that serve Headlamp, without `served`; empty where it is left out."""
    tool = settings.tools.get("headlamp")
    if tool is not None and not tool.enabled:
        return ()
    serving = set(clusters_of(settings, "headlamp")) - {cluster.name for cluster in served}
    others = (c for c in topology.clusters if c.name in serving)
    return tuple(collapse_addresses(network for c in others for network in c.networks["worker"]))


def allows(found: tuple[Opening, ...], source: IPv4Network, protocol: str, port: int) -> Rule | None:
    """The first rule that lets `source` in on `port`, or None: the plan's own answer, for checks from outside."""
    for opening in found:
        inside = not opening.networks or any(source.subnet_of(network) for network in opening.networks)
        if inside and opening.rule.opens(protocol, port):
            return opening.rule
    return None


def ruleset(host: Host, settings: Settings, topology: Topology) -> str:
    """The host's nftables ruleset: its own table, replaced as one transaction, beside what the CNI puts into others.

    NodePorts are guarded before kube-proxy rewrites their destination: after that they never reach the input hook.
    """
    found = openings(host, settings, topology)
    sets: dict[tuple[IPv4Network, ...], str] = {}
    lines: list[str] = []
    node_port_lines: list[str] = []
    for opening in found:
        match = ""
        if opening.networks:
            if opening.networks not in sets:
                names = [n for n in sets.values() if n.startswith(opening.rule.source)]
                sets[opening.networks] = opening.rule.source + (f"_{len(names) + 1}" if names else "")
            match = f"ip saddr @{sets[opening.networks]} "
        protocols = opening.rule.protocols
        intervals = opening.rule.intervals
        if protocols == ("vrrp",):
            what = f"meta l4proto {VRRP}"
        else:
            layer = f"meta l4proto {{ {', '.join(protocols)} }} th" if len(protocols) > 1 else protocols[0]
            what = f"{layer} dport {{ {listed(intervals)} }}"
        line = f'{match}{what} counter accept comment "{opening.rule.purpose}"'
        node_ports = bool(intervals) and all(NODE_PORTS[0] <= low and high <= NODE_PORTS[1] for low, high in intervals)
        lines.append(line)
        if node_ports:
            node_port_lines.append(line)
    body = [*_sets(sets), *_input(lines)]
    if host.role in ("master", "worker"):
        body += _node_ports(node_port_lines)
    text = "".join(f"    {line}\n" if line else "\n" for line in body)
    return f"table inet opstella {{}}\ndelete table inet opstella\ntable inet opstella {{\n{text}}}\n"


def _sets(sets: dict[tuple[IPv4Network, ...], str]) -> list[str]:
    lines = []
    for networks, name in sets.items():
        elements = ", ".join(str(n.network_address) if n.prefixlen == 32 else str(n) for n in networks)
        lines += [
            f"set {name} {{", "    type ipv4_addr", "    flags interval", f"    elements = {{ {elements} }}", "}", "",
        ]  # fmt: skip
    return lines


def _input(lines: list[str]) -> list[str]:
    echo = "echo-request, destination-unreachable, time-exceeded, parameter-problem"
    neighbours = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, nd-router-solicit, mld-listener-query"
    return [
        "chain input {",
        "    type filter hook input priority filter; policy drop;",
        "    ct state established,related accept",
        "    ct state invalid counter drop",
        '    iifname "lo" accept',
        f"    icmp type {{ {echo} }} accept",
        f"    icmpv6 type {{ {echo.replace('destination-unreachable', 'destination-unreachable, packet-too-big')}, {neighbours} }} accept",
        *(f"    {line}" for line in lines),
        '    limit rate 5/second burst 10 packets log prefix "opstella drop: " level info',
        "    counter",
        "}",
    ]


def _node_ports(lines: list[str]) -> list[str]:
    low, high = NODE_PORTS
    return [
        "",
        "chain nodeports {",
        "    type filter hook prerouting priority mangle; policy accept;",
        f"    fib daddr type local meta l4proto {{ tcp, udp }} th dport {low}-{high} jump nodeports_allowed",
        "}",
        "",
        "chain nodeports_allowed {",
        '    iifname "lo" return',
        "    ct state established,related return",
        *(f"    {line.replace(' counter accept ', ' return ')}" for line in lines),
        "    counter drop",
        "}",
    ]
