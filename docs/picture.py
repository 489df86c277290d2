"""`python -m docs.picture`: draws docs/standalone.svg from the plan of Pulumi.standalone.yaml.

Machines, addresses, sizes, tools and ports are the plan's; only the places on the canvas are set here. A flow of the
plan that has no place here is an error, so that the picture cannot leave one out. `--check` writes nothing and exits 1
when the file differs from the plan.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from docs.generated import write
from plan import haproxy
from plan.plan import Plan
from plan.stack_file import of_stack_file
from plan.topology import Host

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs/standalone.svg"
WIDTH, HEIGHT = 1020, 820
TOOLS_WIDTH, TOOLS_LINES = 50, 6  # characters and lines that the workers' box has for the names of the tools
TEXT, FAINT, LINE, STACK, CLUSTER = "#1b2733", "#5a6b7b", "#3b6ea5", "#b8c4cf", "#f2f6fa"


@dataclass(frozen=True)
class Box:
    """A rectangle by its left upper corner, with a title and lines of small text."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Arrow:
    """A flow by its corners; its ports are written at `label`, from there to the right unless `anchor` says else."""

    points: tuple[tuple[int, int], ...]
    label: tuple[int, int]
    anchor: str = "start"


BOXES = {
    "operator": Box(30, 30, 210, 62),
    "anyone": Box(560, 30, 410, 62),
    "bastion": Box(30, 180, 210, 76),
    "haproxy": Box(370, 180, 320, 76),
    "gitlab": Box(770, 180, 200, 76),
    "master": Box(330, 385, 200, 165),
    "worker": Box(630, 385, 340, 205),
    "nfs": Box(630, 715, 340, 76),
    "pki": Box(30, 385, 224, 165),
}
# Source and target of the plan's rules, to their arrow.
ARROWS = {
    ("operator", "bastion"): Arrow(((135, 92), (135, 180)), (143, 140)),
    ("operator", "haproxy"): Arrow(((240, 61), (430, 61), (430, 180)), (438, 140)),
    ("any", "haproxy"): Arrow(((620, 92), (620, 180)), (628, 140)),
    ("any", "gitlab"): Arrow(((870, 92), (870, 180)), (878, 140)),
    ("bastion", "all"): Arrow(((240, 218), (290, 218)), (265, 210), "middle"),
    ("haproxy", "master"): Arrow(((410, 256), (410, 385)), (402, 310), "end"),
    ("node", "haproxy"): Arrow(((500, 362), (500, 256)), (508, 310)),
    ("haproxy", "worker"): Arrow(((666, 256), (666, 385)), (674, 310)),
    ("worker", "master"): Arrow(((630, 440), (530, 440)), (580, 432), "middle"),
    ("worker", "nfs"): Arrow(((800, 590), (800, 715)), (808, 660)),
}
# Flows among the machines of a cluster, and into it, told by a line of text.
LINES = {
    ("node", "node"): "between nodes",
    ("master", "master"): "between masters",
    ("node", "master"): "into masters from nodes",
    ("any", "node"): "into nodes from anywhere",
    ("any", "master"): "into masters from anywhere",
    ("pods", "master"): "into masters from pods",
    ("pods", "node"): "into nodes from pods",
}


def flows(plan: Plan) -> dict[tuple[str, str], str]:
    """Source and target to the ports as text, of every rule of the plan."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for rule in plan.contract.rules:
        if not rule.ports:
            continue  # among two load balancers, where the picture has one
        mark = "/udp" if rule.protocols == ("udp",) else ""
        found.setdefault((rule.source, rule.target), {}).update({f"{port}{mark}": None for port in rule.ports})
    return {pair: " ".join(ports) for pair, ports in found.items()}


def svg(plan: Plan) -> str:
    """The picture of a standalone plan. Raises ValueError for a flow that has no place in it."""
    ports = flows(plan)
    if homeless := set(ports) - set(ARROWS) - set(LINES):
        raise ValueError(
            f"flows without a place in the picture: {sorted(homeless)}; give them an arrow or a line in {__file__}"
        )
    (cluster,) = plan.topology.clusters
    parts = [
        _box(Box(290, 150, 706, 655), [], fill="none", stroke=STACK, dash=True),
        _text(304, 792, f"behind the bastion: {cluster.settings.subnet}", FAINT),
        _box(Box(304, 362, 680, 335), [], fill=CLUSTER, stroke=STACK),
        _text(318, 572, f"RKE2 cluster: pods {cluster.settings.pod_subnet}", FAINT),
        _text(318, 589, f"services {cluster.settings.service_subnet}", FAINT),
        _box(BOXES["operator"], ["Operator", "pulumi, ssh, kubectl, verify"]),
        _box(BOXES["anyone"], ["Anyone", "browsers, git, clients of the Kubernetes API"]),
        _machines(BOXES["bastion"], "Bastion", [plan.topology.bastion]),
        _machines(BOXES["haproxy"], "Load balancer (HAProxy)", cluster.load_balancers),
        _machines(BOXES["gitlab"], "GitLab (Omnibus)", [plan.topology.gitlab]),
        _machines(BOXES["master"], f"Masters ({len(cluster.masters)})", cluster.masters, ["API server, etcd, scheduler,", "controller manager,", "RKE2 supervisor"]),
        _machines(BOXES["worker"], f"Workers ({len(cluster.workers)})", cluster.workers, _tools(plan, cluster.name)),
        _machines(BOXES["nfs"], f"NFS share ({cluster.settings.nfs.path})", [cluster.nfs]),
        _box(BOXES["pki"], ["PKI (in the stack's state)", *_pki(plan)]),
        _line(((254, 475), (290, 475)), dash=True),
        _text(34, 572, "trusted on every machine", FAINT),
    ]  # fmt: skip
    parts += [_line(a.points) + _text(*a.label, ports[pair], LINE, anchor=a.anchor, halo="white") for pair, a in ARROWS.items() if pair in ports]  # fmt: skip
    told = [f"{text}: {ports[pair]}" for pair, text in LINES.items() if pair in ports]
    parts += [_text(318, 607 + 16 * i, line, LINE) for i, line in enumerate(told)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="DejaVu Sans, Verdana, sans-serif" font-size="12">\n'
        "<title>The standalone reference architecture: machines, and who may connect to whom on which port</title>\n"
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _tools(plan: Plan, cluster: str) -> list[str]:
    names = ", ".join(release.name for release in plan.releases[cluster])
    lines = textwrap.wrap(names, TOOLS_WIDTH, break_on_hyphens=False)
    if len(lines) > TOOLS_LINES:
        raise ValueError(
            f"the tools take {len(lines)} lines, and the box has room for {TOOLS_LINES}: enlarge it in {__file__}"
        )
    return [f"ingress on NodePorts {haproxy.INGRESS_HTTP} and {haproxy.INGRESS_HTTPS}; tools:", *lines]


def _pki(plan: Plan) -> list[str]:
    pki = plan.settings.pki
    return [
        f"root CA, {pki.root_years} years",
        f"signs: intermediate CA, {pki.intermediate_years} years",
        f"signs: GitLab, {pki.leaf_days} days",
        "signs: ingress, by cert-manager,",
        "30 days, renewed in the cluster",
    ]


def _machines(box: Box, title: str, hosts: Iterable[Host], more: Iterable[str] = ()) -> str:
    hosts = tuple(hosts)
    first, last = hosts[0].address, hosts[-1].address
    size = f"{hosts[0].cpu} CPU, {hosts[0].memory_gb} GB, disk {hosts[0].disk_gb} GB"
    return _box(
        box,
        [
            title,
            str(first) if first == last else f"{first} to {last}",
            size + (" each" if len(hosts) > 1 else ""),
            *more,
        ],
    )


def _box(box: Box, lines: Iterable[str], *, fill: str = "white", stroke: str = TEXT, dash: bool = False) -> str:
    dashes = ' stroke-dasharray="5 4"' if dash else ""
    parts = [
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="6" fill="{fill}" stroke="{stroke}"{dashes}/>'
    ]
    for number, line in enumerate(lines):
        weight: Mapping[str, str] = {"font-weight": "bold", "font-size": "14"} if number == 0 else {}
        parts.append(_text(box.x + 12, box.y + 24 + 19 * number, line, TEXT if number == 0 else FAINT, **weight))
    return "\n".join(parts)


def _text(x: int, y: int, text: str, colour: str, *, anchor: str = "start", halo: str = "", **attributes: str) -> str:
    more = "".join(f' {name}="{value}"' for name, value in attributes.items())
    more += f' stroke="{halo}" stroke-width="4" paint-order="stroke"' if halo else ""
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _line(points: Iterable[tuple[int, int]], *, dash: bool = False) -> str:
    dashes = ' stroke-dasharray="5 4"' if dash else ""
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="1.6" marker-end="url(#tip)"{dashes}/>'


def drawn() -> str:
    """The picture as the committed stack file has it."""
    return svg(of_stack_file(ROOT / "Pulumi.standalone.yaml"))


if __name__ == "__main__":
    sys.exit(write("picture", FILE, drawn(), __doc__, "the plan"))
