"""What only the plan can find wrong with settings, for `plan.build` and for the page of all that is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Set
from functools import cached_property
from typing import Any

from config.errors import Problem
from config.model import Settings
from config.salvage import touches
from config.tls_checks import check_hosts, check_issuing
from plan import chart_sources, circular, images, keepalived, media, pki
from plan.contract import proof
from plan.contract.contract import Contract, contract
from plan.tools import budget, catalogue, placement, projects
from plan.tools.inputs import tool_inputs
from plan.tools.model import Release
from plan.topology import Topology, topology
from plan.topology import check as check_names


class Draft:
    """The parts of a plan that its checks read, each made when it is asked for and once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def topology(self) -> Topology:
        return topology(self.settings)

    @cached_property
    def assembled(self) -> tuple[dict[str, tuple[Release, ...]], list[Problem]]:
        clusters, digests = self.topology.clusters, self.settings.media.image_digests
        found, wrong = catalogue.assembled({c.name: tool_inputs(self.settings, self.topology, c) for c in clusters})
        own = own_values(self.settings)
        return {
            name: tuple(images.pinned(release, digests, own.get(release.name, {})) for release in of_cluster)
            for name, of_cluster in found.items()
        }, wrong

    @property
    def releases(self) -> dict[str, tuple[Release, ...]]:
        return self.assembled[0]

    @cached_property
    def authorities(self) -> pki.CaTree:
        return pki.ca_tree(self.settings, self.topology)

    @cached_property
    def budgets(self) -> dict[str, budget.Budget]:
        return {c.name: budget.budget(self.releases.get(c.name, ()), c.workers) for c in self.topology.clusters}

    @cached_property
    def contract(self) -> Contract:
        return contract(self.settings, self.topology, self.releases)


def own_values(settings: Settings) -> dict[str, Mapping[str, Any]]:
    """By tool, the user's values of its chart."""
    return {name: tool.values for name, tool in settings.tools.items()}


def _hosts(draft: Draft) -> Iterable[Problem]:
    served = [host for rs in draft.releases.values() for r in rs for host in (r.host, *r.other_hosts) if host]
    return check_hosts(draft.settings, served)


def _budgets(draft: Draft) -> Iterable[Problem]:
    for cluster in draft.topology.clusters:
        yield from budget.check(cluster.name, draft.budgets[cluster.name], len(cluster.workers))


def _placement(draft: Draft) -> Iterable[Problem]:
    for cluster in draft.topology.clusters:
        yield from placement.check(cluster, draft.releases.get(cluster.name, ()))


_MACHINES = ("architecture", "clusters.**", "machines.**", "bastion.address", "gitlab.address")
# Where tools are, and what there is of them.
_PLACES = ("architecture", "clusters", "clusters.*", "clusters.*.enabled", "clusters.*.*.count", "tools.*.clusters.**", "domains.**")
_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Draft], Iterable[Problem]]], ...] = (
    (_MACHINES, lambda draft: check_names(draft.topology)),
    (_MACHINES, lambda draft: keepalived.check(draft.topology)),
    (
        (*_MACHINES, "media.**", "proxy.**", "dns.**", "time.**"),
        lambda draft: circular.check(draft.settings, draft.topology),
    ),
    (("media.**", "kubernetes.cni", "gitlab.**"), lambda draft: media.check(draft.settings)),
    (_PLACES, lambda draft: draft.assembled[1]),
    (
        ("media.imageDigests.**", "tools.**", *_PLACES),
        lambda draft: images.check(draft.releases, draft.settings.media.image_digests),
    ),
    (
        ("media.chartDigests.**", "tools.**", *_PLACES),
        lambda draft: chart_sources.check(draft.releases, draft.settings.media.chart_digests),
    ),
    (("tls.**", "domain", *_PLACES), _hosts),
    (
        ("pki.**", "domain", *_PLACES),
        lambda draft: check_issuing(draft.settings, pki.issued(draft.authorities, draft.releases.values())),
    ),
    ((*_MACHINES, "tools.**", "opstella.**", "kubernetes.**"), _budgets),
    ((*_MACHINES, "tools.**"), _placement),
    (
        (*_MACHINES, "tools.**", "kubernetes.**", "identity.**"),
        lambda draft: projects.check(draft.settings, [r for rs in draft.releases.values() for r in rs]),
    ),
    ((*_MACHINES, "network.**", "firewall.**", "tools.**"), lambda draft: proof.check(draft.contract)),
)


def problems(draft: Draft) -> list[Problem]:
    """All that the plan finds wrong with settings that have no other fault."""
    return list(dict.fromkeys(problem for _, check in _CHECKS for problem in check(draft)))


def problems_beside(settings: Settings, reported: Iterable[Problem], without: Set[str]) -> list[Problem]:
    """What the plan finds wrong with settings that have the faults `reported`, and in which the values at the paths
    `without` are not the user's.

    A check that reads either is left out, and a problem of their own parts: it might be a consequence.
    """
    broken = {*without, *(_path(problem.key) for problem in reported)}
    draft, found = Draft(settings), []
    for reads, check in _CHECKS:
        if any(touches(path, pattern) for path in broken for pattern in reads):
            continue
        try:
            found += list(check(draft))
        except Exception:  # noqa: BLE001, S112 - of settings known to be wrong nothing can be relied on, and the page says why
            continue
    return [p for p in dict.fromkeys(found) if not any(_within(_path(p.key), path) for path in broken)]


def _path(name: str) -> str:
    return re.sub(r"\[(\d+)\]", r".\1", name.partition(":")[2])


def _within(path: str, other: str) -> bool:
    """Whether one of two paths is the other, or below it."""
    return path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.")
