"""What a double takes from the facts about its chart, so that it is no kinder than the real one: ports, init containers,
what pods do not start without, disruption budgets. Only what all shapes of a chart have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plan import versions
from plan.tools import chart_facts

Facts = dict[str, Any]


def doubled(chart: versions.Chart) -> Facts:
    """`pods` (containers to ports, init containers to images, references), and `budgets`, as the double's templates read
    them."""
    shapes = chart_facts.renderings(chart.name, chart.version)
    common = set.intersection(*({*shape.get("pods", {})} for shape in shapes)) if shapes else set()
    return {
        "pods": {
            name: _pod([shape["pods"][name] for shape in shapes], [shape.get("made", {}) for shape in shapes])
            for name in sorted(common)
        },
        "budgets": _alike([shape.get("budgets", {}) for shape in shapes]),
    }


def _pod(pods: list[Facts], made: list[Facts]) -> Facts:
    outside = [
        {r for r in pod.get("references", ()) if r.partition("/")[2] not in own.get(r.partition("/")[0], ())}
        for pod, own in zip(pods, made, strict=True)
    ]
    references = sorted(r for r in set.intersection(*outside) if r.startswith(("ConfigMap/", "Secret/")))
    return {
        "containers": {
            name: [{"name": port, "containerPort": number, "protocol": _protocol(port)} for port, number in ports.items()]
            for name, ports in _alike([{n: c.get("ports", {}) for n, c in pod["containers"].items()} for pod in pods]).items()
            if ports and not any(port.isdigit() for port in ports)
        },
        "init": _alike([{n: c["image"] for n, c in pod.get("init", {}).items()} for pod in pods]),
        "references": [dict(zip(("kind", "name"), r.split("/", 1), strict=True)) for r in references],
    }


def _protocol(port: str) -> str:
    return "UDP" if port.endswith(("-udp", "thrift-b", "thrift-c")) else "TCP"


def _alike(maps: list[Mapping[str, Any]]) -> Facts:
    """The entries that all of `maps` have."""
    if not maps:
        return {}
    return {key: value for key, value in maps[0].items() if all(other.get(key) == value for other in maps[1:])}
