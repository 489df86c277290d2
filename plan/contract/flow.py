"""The contract of a whole stack: every flow once, with the machines it leads to and the networks it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from plan import network
from plan.contract.contract import Contract
from plan.contract.rule import Rule, listed
from plan.topology import Host


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What `rule` lets into `targets`, which are all of one cluster or of none; no `sources`: from anyone.

    `addresses` are the targets' own and the virtual ones that they hold between them, as the fewest networks.
    """

    rule: Rule
    cluster: str | None
    role: str
    targets: tuple[Host, ...]
    addresses: tuple[IPv4Network, ...]
    sources: tuple[IPv4Network, ...]

    @property
    def ports(self) -> str:
        """As `80, 443, 30000-32767`; empty where the protocol has none."""
        return listed(self.rule.intervals)

    @property
    def reason(self) -> str:
        """The row or the setting it is by, or why it was derived."""
        return self.rule.reason


def flows(contract: Contract) -> tuple[Flow, ...]:
    """Every flow, in the order of machines and of their rules."""
    found: dict[tuple[Rule, str | None, str, tuple[IPv4Network, ...]], list[Host]] = {}
    for group in contract.groups:
        for opening in network.openings(group[0], contract):
            found.setdefault((opening.rule, group[0].cluster, group[0].role, opening.networks), []).extend(group)
    entrances = {b.owner.name: [cluster.entrance for cluster in b.clusters] for b in contract.topology.load_balancers}
    return tuple(
        Flow(
            rule=rule, cluster=cluster, role=role, targets=tuple(hosts), sources=sources,
            addresses=_networks([*(h.address for h in hosts), *(entrances[cluster] if cluster and role == "haproxy" else [])]),
        )
        for (rule, cluster, role, sources), hosts in found.items()
    )  # fmt: skip


def _networks(addresses: Iterable[IPv4Address]) -> tuple[IPv4Network, ...]:
    return tuple(collapse_addresses(map(IPv4Network, addresses)))


def short(network: IPv4Network) -> str:
    """A network as people write it: of a single machine, the address alone."""
    return str(network).removesuffix("/32")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Whether a connection is let in: the rules that allow it, and those of its port that do not, with their networks."""

    allowing: tuple[network.Opening, ...]
    others: tuple[network.Opening, ...]


def why(source: IPv4Address, target: Host, protocol: str, port: int, contract: Contract) -> Answer:
    """What `target` says to a connection of `source` on `port`."""
    of_port = [o for o in network.openings(target, contract) if o.rule.opens(protocol, port)]
    allowing = [o for o in of_port if network.allows((o,), IPv4Network(source), protocol, port)]
    return Answer(allowing=tuple(allowing), others=tuple(o for o in of_port if o not in allowing))
