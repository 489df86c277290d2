"""What an nftables ruleset of the plan lets in and passes on, read from its text alone: a second opinion beside the plan's own.

Knows exactly the statements that the plan's rulesets use, and raises ValueError for any other. It says nothing about
the kernel; test_network_kernel.py asks that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

_SET = re.compile(
    r"    set (?P<name>\w+) \{\n        type ipv4_addr\n        flags interval\n"
    r"        elements = \{ (?P<elements>[0-9./, ]+) \}\n    \}\n"
)
# Counts what each address opens; who stays below its rate passes.
_RATES = tuple(
    f"    set {name} {{\n        type {kind}\n        size 65535\n        flags dynamic,timeout\n        timeout 5m\n    }}\n"
    for name, kind in (("ssh_rate", "ipv4_addr"), ("ssh_rate6", "ipv6_addr"))
)
_CHAIN = re.compile(r"    chain (?P<name>\w+) \{\n(?P<body>(?:        .+\n)*)    \}\n")
_RULE = re.compile(
    r"(?:ip [sd]addr @(?P<set>\w+) )?"
    r"(?:meta l4proto \{ (?P<both>tcp, udp) \} th|(?P<one>tcp|udp)) dport \{ (?P<ports>[0-9, -]+) \} "
    r'(?P<verdict>counter accept|return) comment "[^"]{1,128}"'
)
_PROTOCOL = re.compile(r'(?:ip [sd]addr @(?P<set>\w+) )?meta l4proto (?P<number>\d+) counter accept comment "[^"]{1,128}"')
_HOOK = re.compile(r"type filter hook (?P<hook>input|prerouting|output|forward) priority \w+; policy (?P<policy>accept|drop);")
_JUMP = re.compile(
    r"fib daddr type local meta l4proto \{ tcp, udp \} th dport (?P<low>\d+)-(?P<high>\d+) jump (?P<chain>\w+)"
)
_CALL = re.compile(r"ip daddr @(?P<set>\w+) jump (?P<chain>\w+)")
_DROP = re.compile(r'ip daddr @(?P<set>\w+) counter reject with icmpx admin-prohibited comment "[^"]{1,128}"')
_NAMES = re.compile(r"ip daddr @(?P<set>\w+) meta l4proto \{ tcp, udp \} th dport (?P<port>\d+) accept")
# Statements that a new TCP or UDP connection from another machine passes by.
_PASSED = re.compile(
    r"ct state established,related (accept|return)|ct state invalid counter drop|iifname \"lo\" (accept|return)"
    r"|icmp(v6)? type \{ [a-z0-9, -]+ \} accept|limit rate .* log prefix .*|counter"
    r"|ct state new tcp dport \{ [0-9, ]+ \} update @ssh_rate6? \{ ip6? saddr limit rate over \d+/minute burst \d+ packets \} "
    r'counter drop comment "SSH: too many new connections"'
    r"|oifname \"lo\" accept|meta l4proto \{ 1, 2, 58 \} accept|udp sport 68 udp dport 67 accept"
    r"|udp sport 546 udp dport 547 accept"
    r"|tcp sport \d+ tcp flags & \(syn \| ack\) != syn accept"
    r"|meta l4proto 1 accept|ip6 daddr \{ [0-9a-f:, ]+ \} counter reject with icmpx admin-prohibited comment \".*\""
)


@dataclass
class PacketFilter:
    """A parsed ruleset."""

    sets: dict[str, list[IPv4Network]] = field(default_factory=dict)
    chains: dict[str, list[str]] = field(default_factory=dict)

    def lets_in(self, source: IPv4Address, protocol: str, port: int) -> bool:
        """Whether a new connection to the machine itself passes every base chain; a protocol without ports is its
        number, at port 0."""
        hooks = self._hooks()
        if "input" not in hooks:
            raise ValueError("no chain filters what comes in")
        return all(
            self._verdict(self.chains[name][1:], source, protocol, port, policy)
            for hook, (name, policy) in hooks.items()
            if hook not in ("output", "forward")
        )

    def forwards(self, target: IPv4Address, protocol: str, port: int) -> bool:
        """Whether the machine passes on a new connection to somebody else."""
        name, policy = self._hooks()["forward"]
        return self._verdict(self.chains[name][1:], target, protocol, port, policy)

    def lets_out(self, target: IPv4Address, protocol: str, port: int) -> bool:
        """Whether the machine may open a connection."""
        hooks = self._hooks()
        if "output" not in hooks:
            return True
        name, policy = hooks["output"]
        return self._verdict(self.chains[name][1:], target, protocol, port, policy)

    def _hooks(self) -> dict[str, tuple[str, str]]:
        hooks = {}
        for name, body in self.chains.items():
            if match := _HOOK.fullmatch(body[0]):
                hooks[match["hook"]] = (name, match["policy"])
        return hooks

    def _verdict(self, body: list[str], source: IPv4Address, protocol: str, port: int, policy: str) -> bool:
        for line in body:
            if line in ("counter drop", "counter reject with icmpx admin-prohibited"):
                return False
            if jump := _JUMP.fullmatch(line):
                if int(jump["low"]) <= port <= int(jump["high"]):
                    # In the called chain `return` leads back here, where nothing follows but the policy.
                    return self._verdict(self.chains[jump["chain"]], source, protocol, port, policy)
            elif rule := _RULE.fullmatch(line):
                protocols = rule["both"].split(", ") if rule["both"] else [rule["one"]]
                inside = rule["set"] is None or any(source in network for network in self.sets[rule["set"]])
                if inside and protocol in protocols and _among(port, rule["ports"]):
                    return True
            elif rule := _PROTOCOL.fullmatch(line):
                inside = rule["set"] is None or any(source in network for network in self.sets[rule["set"]])
                if inside and protocol == rule["number"]:
                    return True
            elif call := _CALL.fullmatch(line):
                if any(source in network for network in self.sets[call["set"]]):
                    return self._verdict(self.chains[call["chain"]], source, protocol, port, policy)
            elif drop := _DROP.fullmatch(line):
                if any(source in network for network in self.sets[drop["set"]]):
                    return False
            elif name := _NAMES.fullmatch(line):
                if port == int(name["port"]) and any(source in network for network in self.sets[name["set"]]):
                    return True
            elif not _PASSED.fullmatch(line):
                raise ValueError(f"unknown statement: {line}")
        return policy == "accept"


def _among(port: int, elements: str) -> bool:
    """Whether `port` is one of a set's elements, which are ports and ranges `first-last`."""
    ends = ([int(end) for end in element.split("-")] for element in elements.split(", "))
    return any(first <= port <= last[-1] for first, *last in ((e[0], *e) for e in ends))


def parse(text: str) -> PacketFilter:
    """The ruleset `text`. Raises ValueError for what is not understood, duplicate rules and overlapping elements."""
    head, tail = "table inet opstella {}\ndelete table inet opstella\ntable inet opstella {\n", "}\n"
    if not text.startswith(head) or not text.endswith(tail):
        raise ValueError("not one table, replaced as a whole")
    rest, result = text.removeprefix(head).removesuffix(tail), PacketFilter()
    while rest := rest.lstrip("\n"):
        if rest.startswith(_RATES):
            rest = next(rest.removeprefix(rate) for rate in _RATES if rest.startswith(rate))
            continue
        if match := _SET.match(rest):
            networks = [IPv4Network(e) for e in match["elements"].split(", ")]
            for index, network in enumerate(networks):
                if any(network.overlaps(other) for other in networks[:index]):
                    raise ValueError(f"set {match['name']}: {network} stands in it twice")
            if match["name"] in result.sets:
                raise ValueError(f"two sets {match['name']}")
            result.sets[match["name"]] = networks
        elif match := _CHAIN.match(rest):
            lines = [line.strip() for line in match["body"].splitlines()]
            if len(set(lines)) != len(lines) or match["name"] in result.chains:
                raise ValueError(f"chain {match['name']} has a rule twice, or stands twice")
            result.chains[match["name"]] = lines
        else:
            raise ValueError(f"not understood: {rest[:200]}")
        rest = rest[match.end() :]
    return result
