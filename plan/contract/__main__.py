"""`opstella network`: who may talk to whom by a stack file, without the engine.

`why gitlab worker-1 443` says which rule lets a connection in, or that none does (exit status 1); `export FORMAT` writes
the contract for the network team and for a firewall in front of the machines.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import signal
import sys
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address

from config.errors import ConfigurationError
from config.stack_choice import add_arguments, stack_file
from plan import network
from plan.contract import cilium, export, firewalls, need_table, zones_picture
from plan.contract.contract import Contract
from plan.contract.flow import flows, short, why
from plan.contract.rule import Rule
from plan.plan import Plan
from plan.stack_file import of_stack_file
from plan.tools import flow_table
from plan.topology import Host, Topology

FORMATS = {
    "csv": export.as_csv,
    "markdown": export.as_markdown,
    "json": export.as_json,
    "nftables": firewalls.nftables,
    "iptables": firewalls.iptables,
}
# These say more of the machines than the flows do.
WHOLE = ("cilium", "svg")
PROTOCOLS = ("tcp", "udp")


class Mistake(ValueError):
    """What was asked makes no sense; the message says what to write instead."""


def main(arguments: list[str] | None = None) -> int:
    """0: done, or let in; 1: not let in; 2: what was asked, or the stack file, makes no sense."""
    parser = argparse.ArgumentParser(prog="opstella network", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(tools=False)
    commands = parser.add_subparsers(dest="command")
    table = commands.add_parser("table", help="every flow, a line each (without a command, too)")
    for either in (parser, table):
        either.add_argument(
            "--tools", action="store_true", default=argparse.SUPPRESS,
            help="and the flows of the tools' pods, which NetworkPolicies of their clusters open",
        )  # fmt: skip
    commands.add_parser("needs", help="what components and tools need of machines, why, and the rule that lets it in")
    asked = commands.add_parser("why", help="which rule lets a connection in, or that none does")
    asked.add_argument("source", metavar="FROM", help="a host's name, or an IPv4 address")
    asked.add_argument("target", metavar="TO", help="a host's name or address")
    asked.add_argument("port", metavar="PORT", help="443 or 443/tcp, 2049/udp")
    written = commands.add_parser("export", help="the contract for others")
    written.add_argument("format", choices=(*FORMATS, *WHOLE))
    for command in commands.choices.values():
        add_arguments(command, default=False)
    given = parser.parse_args(arguments)
    try:
        stack = of_stack_file(stack_file(given), "opstella/network")
        if given.command == "why":
            return _why(given.source, given.target, given.port, stack.contract)
        if given.command == "needs":
            head = tuple(name.upper() for name in need_table.COLUMNS)
            sys.stdout.write(export.in_columns([head, *need_table.rows(stack.contract)]))
            return 0
        if given.command == "export":
            sys.stdout.write(exported(given.format, stack.contract))
            return 0
        sys.stdout.write(export.table(flows(stack.contract)))
        if given.tools:
            sys.stdout.write(f"\n{_tools(stack)}")
    except (ConfigurationError, Mistake) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def exported(form: str, contract: Contract) -> str:
    """The contract in one of FORMATS or WHOLE."""
    if form == "svg":
        return zones_picture.svg(contract)
    every = flows(contract)
    if form != "cilium":
        return FORMATS[form](every)
    plugin = contract.settings.kubernetes.cni
    if plugin != "cilium":
        raise Mistake(
            f"the clusters' network plugin is {plugin} (opstella:kubernetes.cni), whose flows are in the contract in place of "
            "Cilium's: its nodes would not reach each other by these policies; export the contract of a stack with cilium"
        )
    return cilium.as_yaml(every, contract.topology.clusters, contract)


def _tools(stack: Plan) -> str:
    head = tuple(name.upper() for name in flow_table.COLUMNS)
    return export.in_columns([head, *flow_table.rows(stack.releases)])


def _why(source_text: str, target_text: str, port_text: str, contract: Contract) -> int:
    settings, machines = contract.settings, contract.topology
    port, protocol = _port(port_text)
    source = _source(source_text, machines)
    asking = next((host for host in machines.hosts if host.address == source), None)
    if asking and settings.network.egress.enforce and (outside := _outside(target_text, machines)):
        return _outward(asking, outside, port, protocol, contract)
    target = _host(target_text, machines)
    what = f"{target.name} ({target.address}) {port}/{protocol} from {source_text} ({source})"
    if not settings.firewall.enabled:
        print(f"let in: {what}; opstella:firewall.enabled is false, so nothing is held back")
        return 0
    if source == target.address:
        print(f"let in: {what}; a machine may always talk to itself")
        return 0
    if asking and settings.network.egress.enforce and not _may_open(asking, target.address, protocol, port, contract):
        print(f"held back: {what}; {asking.name} may not open it: nothing on it needs that (opstella:network.egress)")
        return 1
    answer = why(source, target, protocol, port, contract)
    for opening in answer.allowing:
        print(f"let in: {what}\n{_told(opening)}")
    if not answer.allowing:
        print(f"held back: {what}; no rule allows it, and what no rule allows is dropped")
        for opening in answer.others:
            print(f"the port is open, but not from there:\n{_told(opening)}")
    return 0 if answer.allowing else 1


def _may_open(source: Host, target: IPv4Address, protocol: str, port: int, contract: Contract) -> Rule | None:
    return network.allows(network.exits(source, contract), IPv4Network(target), protocol, port)


def _outside(text: str, machines: Topology) -> IPv4Address | None:
    """The address, where it is nobody's of the stack."""
    with contextlib.suppress(AddressValueError):
        address = IPv4Address(text)
        own = {host.address for host in machines.hosts} | {cluster.entrance for cluster in machines.clusters}
        return None if address in own else address
    return None


def _outward(source: Host, target: IPv4Address, port: int, protocol: str, contract: Contract) -> int:
    what = f"{target} {port}/{protocol} by {source.name} ({source.address})"
    rule = _may_open(source, target, protocol, port, contract)
    print(f"let out: {what}\n  {rule.purpose}\n  {rule.reason}" if rule else f"held back: {what}; no rule of opstella:network.egress leads there")
    return 0 if rule else 1


def _told(opening: network.Opening) -> str:
    rule = opening.rule
    places = ", ".join(map(short, opening.networks)) or "anyone"
    return f"  {rule.purpose}, from {rule.source if opening.networks else 'any'} ({places})\n  {rule.reason}"


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    protocol = protocol or "tcp"
    if protocol not in PROTOCOLS:
        raise Mistake(f"'{protocol}' is no protocol with ports; write {text.partition('/')[0]}/tcp or /udp")
    if not (number.isascii() and number.isdigit() and 1 <= int(number) <= 65535):
        raise Mistake(f"'{number}' is no port; write 1 to 65535, with /udp behind it if need be")
    return int(number), protocol


def _source(text: str, machines: Topology) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return _host(text, machines).address


def _host(text: str, machines: Topology) -> Host:
    names = {host.name: host for host in machines.hosts} | {str(host.address): host for host in machines.hosts}
    # Of two load balancers, which let in the same, either may hold the address.
    names |= {str(cluster.entrance): cluster.load_balancers[0] for cluster in machines.clusters}
    if text in names:
        return names[text]
    with contextlib.suppress(AddressValueError):
        IPv6Address(text.strip("[]").partition("%")[0])
        raise Mistake(f"'{text}' is an IPv6 address, and the contract is of IPv4 only (docs/network.md); write an IPv4 address or a machine's name")
    close = difflib.get_close_matches(text, names, 1)
    roles = dict.fromkeys(host.role for host in machines.hosts)
    instead = f"did you mean {close[0]}?" if close else f"the first of each role: {_first(machines, list(roles))}"
    raise Mistake(f"'{text}' is no machine of this stack; {instead}")


def _first(machines: Topology, roles: list[str]) -> str:
    return ", ".join(next(host.name for host in machines.hosts if host.role == role) for role in roles)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops, such as `head`, is no error
    sys.exit(main())
