"""Networks and addresses: disjoint, wide enough, and each address once."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from config.clusters import Cluster, Machine, Nodes
from config.errors import Problem, key
from config.model import Settings

# kubelet's default; a node's pod block must hold that many.
PODS_PER_NODE = 110
# kube-controller-manager refuses node blocks more than 16 bits narrower than the pod network,
# kube-apiserver a service network of more than 20 bits.
WIDEST_POD_BITS, WIDEST_SERVICE_PREFIX = 16, 12
# The API, the supervisor and etcd: who reaches them may try to take the cluster.
_GUARDED = {6443: "the Kubernetes API", 9345: "RKE2's supervisor", 2379: "etcd", 2380: "etcd", 2381: "etcd's metrics"}
_THERE = {"master": set(_GUARDED), "node": set(_GUARDED), "haproxy": {6443, 9345}}
# A network of a shorter prefix is the world, or too much of it.
_SHORTEST_PREFIX = 8


def check_overlaps(settings: Settings) -> Iterator[Problem]:
    named = [
        (name, key("clusters", name, field), network)
        for name, cluster in settings.enabled_clusters.items()
        for field, network in _of(cluster).items()
    ]
    for index, (cluster_a, key_a, net_a) in enumerate(named):
        for cluster_b, key_b, net_b in named[:index]:
            # Pod and service networks never leave their cluster, so two clusters may share them (the reference does);
            # machines of every cluster are reached from every other, so a subnet must be disjoint from all. In a mesh
            # pods are, too, and from there a pod's address must not be one of the cluster's own services.
            both_inside = not key_a.endswith(".subnet") and not key_b.endswith(".subnet")
            apart = both_inside and cluster_a != cluster_b
            routed = settings.network.mesh and any(k.endswith(".podSubnet") for k in (key_a, key_b))
            if net_a.overlaps(net_b) and not (apart and not routed):
                why = f", and {key('network.mesh')} routes pods between the clusters" if apart else ""
                yield Problem(
                    key_a,
                    f"{net_a} overlaps {key_b}, {net_b}{why}",
                    "give each a range of its own that touches no other"
                    + (", or remove both: then each gets its own" if apart else ""),
                )


def check_room(settings: Settings) -> Iterator[Problem]:
    for name, cluster in settings.enabled_clusters.items():
        yield from _room(settings, name, cluster)


def _of(cluster: Cluster) -> dict[str, IPv4Network]:
    return {"subnet": cluster.subnet, "podSubnet": cluster.pod_subnet, "serviceSubnet": cluster.service_subnet}


def _room(settings: Settings, name: str, cluster: Cluster) -> Iterator[Problem]:
    balancer = cluster.load_balancer
    machines: list[Machine] = [cluster.nfs]
    if name == next(iter(settings.enabled_clusters)):
        machines += [settings.bastion, settings.gitlab]
    virtual = set(settings.virtual_addresses(name).values())
    given = {*balancer.given, *(m.address for m in machines if m.address)}
    given |= {*cluster.masters.addresses, *cluster.workers.addresses}
    hosts = balancer.machines + len(machines) + cluster.masters.count + cluster.workers.count
    first, last = settings.machines.first_address, cluster.subnet.num_addresses - 2
    held = given | virtual
    taken = sum(1 for a in held if a in cluster.subnet and first <= int(a) - int(cluster.subnet[0]) <= last)
    free, wanted = max(last - first + 1, 0) - taken, hosts - len(given)
    if free < wanted:
        # Nothing says which of the addresses held are among the free ones of a wider network: room for all.
        prefix = min(_prefix_for(hosts + len(held) + first + 1), cluster.subnet.prefixlen - 1)
        wider = IPv4Network((int(cluster.subnet[0]), prefix), strict=False)
        others = [n for c in settings.enabled_clusters.values() for n in _of(c).values() if n != cluster.subnet]
        if any(wider.overlaps(other) for other in others):
            wider = _free(settings, prefix)
        yield Problem(
            key("clusters", name, "subnet"),
            f"{cluster.subnet} has {max(free, 0)} free addresses from opstella:machines.firstAddress {first} on, "
            f"but {wanted} machines need one",
            f"write a wider network that touches no other, such as {wider}, fewer machines, or a lower machines.firstAddress",
            {("clusters", name, "subnet"): str(wider)},
        )
    for field, network in _of(cluster).items():
        if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
            yield Problem(
                key("clusters", name, field),
                f"{network} is reserved for other uses",
                "write a private network, as 10.x, 172.16.x to 172.31.x or 192.168.x",
            )
    nodes = cluster.masters.count + cluster.workers.count
    if node_mask(cluster) is None:
        pods = _free(settings, min(_prefix_for(nodes * 128), 22))
        yield Problem(
            key("clusters", name, "podSubnet"),
            f"{cluster.pod_subnet} cannot give each of {nodes} nodes a block for {PODS_PER_NODE} pods",
            f"write a network of that size that touches no other, such as {pods}",
            {("clusters", name, "podSubnet"): str(pods)},
        )
    if not WIDEST_SERVICE_PREFIX <= cluster.service_subnet.prefixlen <= 24:
        services = _free(settings, min(max(cluster.service_subnet.prefixlen, WIDEST_SERVICE_PREFIX), 24))
        yield Problem(
            key("clusters", name, "serviceSubnet"),
            f"{cluster.service_subnet} has room for {cluster.service_subnet.num_addresses} services",
            f"write a /24 or wider, up to /{WIDEST_SERVICE_PREFIX} (the reference has /22), such as {services}",
            {("clusters", name, "serviceSubnet"): str(services)},
        )


def node_mask(cluster: Cluster) -> int | None:
    """Prefix length of each node's pod block: Kubernetes' /24, narrower where the nodes need it; None: no room."""
    nodes = cluster.masters.count + cluster.workers.count
    for mask in (24, 25):
        bits = mask - cluster.pod_subnet.prefixlen
        if 0 <= bits <= WIDEST_POD_BITS and 2**bits >= nodes:
            return mask
    return None


def _free(settings: Settings, prefix: int) -> IPv4Network:
    """A private network of that prefix length which none of the stack's own touches."""
    taken = [network for cluster in settings.enabled_clusters.values() for network in _of(cluster).values()]
    private = (IPv4Network("172.16.0.0/12"), IPv4Network("10.0.0.0/8"))
    candidates = (n for wide in private if wide.prefixlen <= prefix for n in wide.subnets(new_prefix=prefix))
    return next((n for n in candidates if not any(n.overlaps(other) for other in taken)), IPv4Network((private[1][0], prefix)))


def _prefix_for(addresses: int) -> int:
    return 32 - max(addresses - 1, 1).bit_length()


def check_addresses(settings: Settings) -> Iterator[Problem]:
    first_name, first = next(iter(settings.enabled_clusters.items()), (None, None))
    seen: dict[IPv4Address, str] = {}

    def place(path: str, address: IPv4Address | None, subnet: IPv4Network, whose: str = "") -> Iterator[Problem]:
        if address is None:
            return
        if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
            where = f"{subnet}, the subnet of {whose}" if whose else f"its subnet {subnet}"
            yield Problem(path, f"{address} is not a machine's address in {where}", "write an address of the subnet")
        if address in seen:
            yield Problem(path, f"{address} is given to {seen[address]} too", "give each machine its own address")
        seen.setdefault(address, path)

    def machine(path: str, value: Machine, subnet: IPv4Network) -> Iterator[Problem]:
        yield from place(f"{path}.address", value.address, subnet)

    def nodes(path: str, value: Nodes, subnet: IPv4Network) -> Iterator[Problem]:
        for index, address in enumerate(value.addresses):
            yield from place(f"{path}.addresses[{index}]", address, subnet)

    if first is not None and first_name is not None:
        yield from machine(key("bastion"), settings.bastion, first.subnet)
        yield from machine(key("gitlab"), settings.gitlab, first.subnet)
    for name, cluster in settings.enabled_clusters.items():
        balancer, path = cluster.load_balancer, key("clusters", name, "loadBalancer")
        if balancer.shared_with is None:
            yield from machine(path, balancer, cluster.subnet)
            for index, address in enumerate(balancer.addresses):
                yield from place(f"{path}.addresses[{index}]", address, cluster.subnet)
            yield from place(f"{path}.virtualAddress", balancer.virtual_address, cluster.subnet)
        elif (owner := settings.enabled_clusters.get(balancer.shared_with)) and owner.load_balancer.machines:
            whose = f"{balancer.shared_with} and its load balancer"
            yield from place(f"{path}.virtualAddress", balancer.virtual_address, owner.subnet, whose)
        yield from machine(key("clusters", name, "nfs"), cluster.nfs, cluster.subnet)
        yield from nodes(key("clusters", name, "masters"), cluster.masters, cluster.subnet)
        yield from nodes(key("clusters", name, "workers"), cluster.workers, cluster.subnet)


def check_rules(settings: Settings) -> Iterator[Problem]:
    """Rules that open nothing, and those that open the cluster's own ports to the world without saying so."""
    for number, exit_ in enumerate(settings.network.egress.rules):
        where = key(f"network.egress.rules[{number}]")
        for name, written in (("to", exit_.to), ("protocols", exit_.protocols), ("ports", exit_.ports)):
            if not written:
                yield Problem(f"{where}.{name}", "it is empty, so the rule opens nothing", "name some, or remove the rule")
    if settings.network.egress.enforce and not settings.firewall.enabled:
        yield Problem(
            key("network.egress.enforce"),
            "opstella:firewall.enabled is false, so no machine has a packet filter that could hold anything back",
            "set opstella:firewall.enabled to true, or leave egress open",
        )
    if settings.network.egress.rules and not settings.network.egress.enforce:
        yield Problem(
            key("network.egress.rules"),
            "these rules are not enforced: opstella:network.egress.enforce is false, so machines may open anything",
            "set opstella:network.egress.enforce to true, or remove the rules",
        )
    for number, rule in enumerate(settings.network.rules):
        where = key(f"network.rules[{number}]")
        for name, written in (("from", rule.sources), ("protocols", rule.protocols), ("ports", rule.ports)):
            if not written:
                yield Problem(f"{where}.{name}", "it is empty, so the rule admits no one", "name some, or remove the rule")
        wide = [n for n in rule.sources if n.prefixlen < _SHORTEST_PREFIX]
        opened = sorted(p for p in _THERE.get(rule.to, ()) if any(low <= p <= high for low, high in rule.ports))
        if wide and opened and "tcp" in rule.protocols and not rule.open_to_anyone:
            yield Problem(
                where,
                f"it opens {', '.join(dict.fromkeys(_GUARDED[p] for p in opened))} ({', '.join(map(str, opened))}) "
                f"on {rule.to} to {', '.join(map(str, wide))}",
                "name the networks that need it; or, if the whole world is to reach it, add openToAnyone: true",
            )
