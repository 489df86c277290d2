"""Every flow of the tools as a table: which pods speak with whom, by what, and why.

It is what their NetworkPolicies open. Text only, a row a flow, under COLUMNS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from plan.tools.model import Release
from plan.tools.needs import Flow
from plan.tools.policies import WORDS, flows_of, flows_of_further

COLUMNS = ("cluster", "tool", "namespace", "pods", "direction", "peer", "protocol", "ports", "why")


def rows(releases: Mapping[str, Sequence[Release]]) -> list[tuple[str, ...]]:
    """Of all clusters, in the order of their releases (`Plan.releases`).

    `pods` and the peer's are labels, empty for all of the namespace. `direction` is `out` for what the tool's pods open,
    `in` for what is opened to them. `peer` is another release of the cluster, or a word of plan/tools/needs.py. `ports`
    are the target pods' own. A flow to a release that the cluster does not carry opens nothing, and has no row.
    """
    return [row for cluster, of_cluster in releases.items() for row in _of(cluster, of_cluster)]


def _of(cluster: str, releases: Sequence[Release]) -> Iterator[tuple[str, ...]]:
    there = {*WORDS, *(release.name for release in releases)}
    for release in releases:
        flows = [(release.namespace, flow) for flow in flows_of(release)]
        flows += [(name, flow) for name in release.further_namespaces for flow in flows_of_further(release, name)]
        yield from ((cluster, release.name, name, *_cells(flow)) for name, flow in flows if flow.peer in there)


def _cells(flow: Flow) -> tuple[str, ...]:
    labels = _labels(flow.peer_pods)
    return (
        _labels(flow.pods),
        "in" if flow.inbound else "out",
        f"{flow.peer} ({labels})" if labels else flow.peer,
        flow.protocol.lower(),
        ", ".join(map(str, sorted(set(flow.ports)))),
        flow.why,
    )


def _labels(pods: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(pods.items()))
