"""The nftables ruleset of each host: its own table, replaced as one transaction, beside what the network plugin and
kube-proxy put into others."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from plan import access
from plan.contract.contract import NODE_PORTS, Contract
from plan.contract.rule import listed
from plan.network import METADATA, Opening, exits, machine_addresses, of_pods, openings
from plan.topology import Host

# By number: names stand in /etc/protocols, which a small machine may lack.
VRRP, ICMP, IGMP, ICMPV6 = 112, 1, 2, 58
METADATA_6 = "fd00:ec2::254, fd20:ce::254"  # of AWS and Google Cloud, by IPv6 (their documentation)
SSH_RATES = {"ip": ("ssh_rate", "ipv4_addr"), "ip6": ("ssh_rate6", "ipv6_addr")}
_LOG = 'limit rate 5/second burst 10 packets log prefix "opstella {what}: " level info'

Sets = dict[tuple[IPv4Network, ...], str]


def ruleset(host: Host, contract: Contract) -> str:
    """What `host` lets in, with opstella:network.egress what it may open, and on nodes what pods may open to machines, as
    text for `nft --file`.

    NodePorts are guarded before kube-proxy rewrites their destination: after that they never reach the input hook.
    """
    # Whom the user's own rules let in somewhere, by its address, may open what others of its kind may not.
    own = contract.settings.network.egress.enforce and any(rule.source == "given" for rule in contract.rules)
    one = host if own else contract.alike(host)
    return contract.once(("ruleset", one), lambda: _ruleset(one, contract))


def _ruleset(host: Host, contract: Contract) -> str:
    sets: Sets = {}
    found = openings(host, contract)
    accepted = [_line(opening, "saddr", opening.rule.source, sets) for opening in found]
    guarded = [line for opening, line in zip(found, accepted, strict=True) if _node_port(opening)]
    chains = _input(host, accepted, contract)
    if host.role in ("master", "worker"):
        chains += _node_ports(guarded)
        (cluster,) = contract.topology.served(host)
        sets[machine_addresses(contract.topology)] = "machines"
        sets[METADATA] = "metadata"
        chains += _forward([_line(o, "daddr", f"pods_to_{o.rule.target}", sets) for o in of_pods(cluster, contract)])
    if contract.settings.network.egress.enforce:
        chains += _output(contract.settings.ssh.port, [_line(o, "daddr", f"to_{o.rule.target}", sets) for o in exits(host, contract)])
    body = [*_sets(sets), *_ssh_set(), *chains]
    text = "".join(f"    {line}\n" if line else "\n" for line in body)
    return f"table inet opstella {{}}\ndelete table inet opstella\ntable inet opstella {{\n{text}}}\n"


def _line(opening: Opening, field: str, name: str, sets: Sets) -> str:
    """One rule; its networks become a set, which rules of the same networks share."""
    rule, match = opening.rule, ""
    if opening.networks:
        if opening.networks not in sets:
            same = [n for n in sets.values() if n == name or n.startswith(f"{name}_")]
            sets[opening.networks] = name + (f"_{len(same) + 1}" if same else "")
        match = f"ip {field} @{sets[opening.networks]} "
    if rule.protocols == ("vrrp",):
        what = f"meta l4proto {VRRP}"
    else:
        layer = f"meta l4proto {{ {', '.join(rule.protocols)} }} th" if len(rule.protocols) > 1 else rule.protocols[0]
        what = f"{layer} dport {{ {listed(rule.intervals)} }}"
    return f'{match}{what} counter accept comment "{rule.purpose}"'


def _node_port(opening: Opening) -> bool:
    low, high = NODE_PORTS
    intervals = opening.rule.intervals
    return bool(intervals) and all(low <= first and last <= high for first, last in intervals)


def _sets(sets: Sets) -> list[str]:
    lines = []
    for networks, name in sets.items():
        elements = ", ".join(str(n.network_address) if n.prefixlen == 32 else str(n) for n in networks)
        lines += [
            f"set {name} {{", "    type ipv4_addr", "    flags interval", f"    elements = {{ {elements} }}", "}", "",
        ]  # fmt: skip
    return lines


def _ssh_set() -> list[str]:
    """How many connections each address has opened; scripts/lib.sh leaves them out where it compares rulesets."""
    return [
        line
        for name, kind in SSH_RATES.values()
        for line in (f"set {name} {{", f"    type {kind}", "    size 65535", "    flags dynamic,timeout", "    timeout 5m", "}", "")
    ]


def _input(host: Host, lines: Iterable[str], contract: Contract) -> list[str]:
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
        *(f"    {line}" for line in _ssh_rate(host, contract)),
        *(f"    {line}" for line in dict.fromkeys(lines)),  # two settings may say the same
        f"    {_LOG.format(what='drop')}",
        "    counter",
        "}",
    ]


def _ssh_rate(host: Host, contract: Contract) -> list[str]:
    """New connections to SSH, Git's too, by each address: a number of them in a minute, half of it at once."""
    rate = access.per_minute(host, contract.settings, contract.topology)
    ports = sorted({contract.settings.ssh.port, *((22,) if host.role == "gitlab" else ())})
    return [
        f"ct state new tcp dport {{ {', '.join(map(str, ports))} }} update @{name} {{ {family} saddr limit rate over "
        f'{rate}/minute burst {rate // 2} packets }} counter drop comment "SSH: too many new connections"'
        for family, (name, _) in SSH_RATES.items()
    ]


def _node_ports(lines: Iterable[str]) -> list[str]:
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


def _forward(lines: Iterable[str]) -> list[str]:
    """What pods may open to machines: nodes forward it before they masquerade it, so here it has the pod's own address.

    Between pods, and to anything else outside, nothing is held back: NetworkPolicies judge that. Name servers of clouds
    answer at the metadata's addresses, and give away nothing.
    """
    return [
        "",
        "chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        "    ct state established,related accept",
        "    ip daddr @machines jump pods_to_machines",
        "    ip daddr @metadata meta l4proto { tcp, udp } th dport 53 accept",
        '    ip daddr @metadata counter reject with icmpx admin-prohibited comment "metadata of the cloud"',
        f'    ip6 daddr {{ {METADATA_6} }} counter reject with icmpx admin-prohibited comment "metadata of the cloud"',
        "}",
        "",
        "chain pods_to_machines {",
        f"    meta l4proto {ICMP} accept",
        *(f"    {line}" for line in dict.fromkeys(lines)),
        f"    {_LOG.format(what='pod drop')}",
        "    counter reject with icmpx admin-prohibited",
        "}",
    ]


def _output(ssh: int, lines: Iterable[str]) -> list[str]:
    """DHCP renews its lease by packets of its own; whatever else is refused, its program is told at once.

    The first ruleset of a machine starts connection tracking, which takes what the operator's session sends next for a
    new connection: SSH may answer, though not begin one.
    """
    return [
        "",
        "chain output {",
        "    type filter hook output priority filter; policy drop;",
        "    ct state established,related accept",
        '    oifname "lo" accept',
        f"    tcp sport {ssh} tcp flags & (syn | ack) != syn accept",
        f"    meta l4proto {{ {ICMP}, {IGMP}, {ICMPV6} }} accept",
        "    udp sport 68 udp dport 67 accept",
        "    udp sport 546 udp dport 547 accept",
        *(f"    {line}" for line in dict.fromkeys(lines)),  # two settings may say the same
        f"    {_LOG.format(what='egress drop')}",
        "    counter reject with icmpx admin-prohibited",
        "}",
    ]
