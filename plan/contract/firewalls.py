"""The contract as rules for a firewall in front of the machines, through which packets to them are forwarded.

Such a firewall judges only what goes to the stack's machines: established connections and ICMP pass, the contract's
flows pass, anything else to them is dropped. What goes elsewhere is left to the firewall's other rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, collapse_addresses

from plan.contract.flow import Flow, short

# multiport takes 15 ports, of which a range is two.
_MULTIPORT = 15


def nftables(flows: Sequence[Flow]) -> str:
    """A table of its own, replaced as one transaction: `nft --file FILE`."""
    lines = [
        "chain machines {",
        "    ct state established,related accept",
        "    ct state invalid drop",
        "    ip protocol icmp accept",
        *(f"    {_nft(flow)}" for flow in _routed(flows)),
        "    counter drop",
        "}",
        "",
        "chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        f"    ip daddr {_set(_machines(flows))} jump machines",
        "}",
    ]
    body = "".join(f"    {line}\n" if line else "\n" for line in lines)
    name = "inet opstella_front"
    return f"table {name} {{}}\ndelete table {name}\ntable {name} {{\n{body}}}\n"


def _nft(flow: Flow) -> str:
    source = f"ip saddr {_set(flow.sources)} " if flow.sources else ""
    protocols = flow.rule.protocols
    layer = protocols[0] if len(protocols) == 1 else f"meta l4proto {{ {', '.join(protocols)} }} th"
    return (
        f"{source}ip daddr {_set(flow.addresses)} {layer} dport {{ {flow.ports} }} counter accept "
        f'comment "{flow.rule.purpose}"'
    )


def _set(networks: Sequence[IPv4Network]) -> str:
    return f"{{ {', '.join(map(short, networks))} }}"


def iptables(flows: Sequence[Flow]) -> str:
    """A chain of its own, for `iptables-restore --noflush FILE`; the firewall leads to it by one rule."""
    lines = [
        "# iptables-restore --noflush; once: iptables --insert FORWARD --jump OPSTELLA",
        "*filter",
        ":OPSTELLA - [0:0]",
        ":OPSTELLA-IN - [0:0]",
        *(f"-A OPSTELLA -d {network} -j OPSTELLA-IN" for network in _machines(flows)),
        "-A OPSTELLA-IN -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-A OPSTELLA-IN -m conntrack --ctstate INVALID -j DROP",
        "-A OPSTELLA-IN -p icmp -j ACCEPT",
        *(line for flow in _routed(flows) for line in _iptables(flow)),
        "-A OPSTELLA-IN -j DROP",
        "COMMIT",
    ]
    return "".join(f"{line}\n" for line in lines)


def _iptables(flow: Flow) -> list[str]:
    """A line for each pair of networks, since a line has one source and one destination."""
    return [
        f"-A OPSTELLA-IN {source}-d {destination} -p {protocol} -m multiport --dports {ports} "
        f'-m comment --comment "{flow.rule.purpose}" -j ACCEPT'
        for protocol in flow.rule.protocols
        for ports in _dports(flow.rule.intervals)
        for source in ([f"-s {network} " for network in flow.sources] or [""])
        for destination in flow.addresses
    ]


def _dports(intervals: Sequence[tuple[int, int]]) -> list[str]:
    """As many lists of ports as multiport needs for them."""
    lists: list[list[str]] = [[]]
    room = _MULTIPORT
    for low, high in intervals:
        size = 1 if low == high else 2
        if size > room:
            lists.append([])
            room = _MULTIPORT
        lists[-1].append(str(low) if low == high else f"{low}:{high}")
        room -= size
    return [",".join(ports) for ports in lists]


def _routed(flows: Sequence[Flow]) -> list[Flow]:
    """Without VRRP, which no router passes on."""
    return [flow for flow in flows if flow.rule.intervals]


def _machines(flows: Sequence[Flow]) -> tuple[IPv4Network, ...]:
    return tuple(collapse_addresses(address for flow in flows for address in flow.addresses))
