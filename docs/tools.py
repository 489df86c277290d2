"""`python -m docs.tools`: writes docs/tools.md from the catalogue, the versions, the lists of the real charts' keys.

`--check` writes nothing and exits 1 when the page differs from the file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from config.load import from_stack_file
from config.model import Settings
from docs.generated import cell, write
from lab.charts.key_lists import ROOM, key_list
from plan import images, versions
from plan.checks import problems_beside
from plan.plan import Plan, build
from plan.tools import chart_facts
from plan.tools.catalogue import NAMES
from plan.tools.model import Release

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs/tools.md"
STACKS = ("standalone", "multicluster")

HEAD = """\
# Tools

What stands in the clusters, from the catalogue (`plan/tools/`) and the versions (`plan/versions.py`), by which
`python -m docs.tools` makes this page. Each tool can be left out, pinned to another version, sized and given further
values by `opstella:tools.argo-cd`, with its own name in place of `argo-cd`.

`needs` are the tools that must stand before it in the same cluster; leaving out one of them is an error that names both.
metrics-server comes only where `opstella:kubernetes.metricsServer` is `catalogue`; RKE2's own serves otherwise.
"""
KEYS = """\

## Values, compared with the real charts

Each value that the product gives to a chart is compared, key by key and type by type, with the keys that the real chart's
`values.yaml` or schema has at that version (`lab/charts/keys/`, read from the chart itself at the date given). `given` are
the values of both architectures together. A chart takes anything below a key that is an open map.
"""
DIGESTS = """\

## Images by digest

Whether nodes pull an image of a chart by the digest that `opstella:media.imageDigests` gives for it, and by which value of the
chart: tried on the real chart at that version (`lab/charts/image_pins.py`). What has no value is pulled by its tag, even with a
digest, and each run says so. What the product itself names (databases, Jobs, plugins, what CI jobs run in) takes one in any case.
"""
NOT_READ = "not known, the chart was not tried: by tag"
SUPPORT = """\

## Versions and their support

`none` as end of life: the vendor names no date; the rule is then in the last column.
"""


def plans(change: Callable[[Settings], Settings] = lambda settings: settings) -> list[Plan]:
    """The reference's two architectures, as their files say or changed by `change`."""
    files = {name: from_stack_file(ROOT / f"Pulumi.{name}.yaml", beyond=problems_beside) for name in STACKS}
    return [build(change(settings), f"opstella/{name}") for name, settings in files.items()]


def with_metrics_server(settings: Settings) -> Settings:
    """`settings` with the one tool that no setting of the reference asks for."""
    kubernetes = settings.kubernetes.model_copy(update={"metrics_server": "catalogue"})
    return settings.model_copy(update={"kubernetes": kubernetes})


def releases(found: list[Plan]) -> dict[str, list[Release]]:
    """Tool to its releases in all clusters, in the order of the catalogue."""
    every = [release for plan in found for of_cluster in plan.releases.values() for release in of_cluster]
    return {name: [r for r in every if r.name == name] for name in NAMES if any(r.name == name for r in every)}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every path of a nested map to what is no map, or an empty one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, str(key)))
    elif path:
        yield path


def header(chart: str, version: str) -> dict[str, str]:
    """`chart`, `version`, `source` and `read` of a key list; and `note`, where the list says more."""
    lines = (ROOM / "keys" / f"{chart}-{version}.txt").read_text(encoding="utf-8").splitlines()
    found: dict[str, str] = {}
    for line in lines:
        if not line.startswith("# "):
            break
        name, separator, value = line[2:].partition(": ")
        if separator and name in ("chart", "version", "source", "read"):
            found[name] = value
        else:
            found["note"] = f"{found.get('note', '')} {line[2:]}".strip()
    return found


def digests(found: list[Plan]) -> Iterator[str]:
    """A row for each image of each chart, that of a chart without any value last."""
    every = {r.name: r for of_tool in releases(found).values() for r in of_tool if r.repository}
    for release in every.values():
        keys = chart_facts.image_pins(release.chart, release.version)
        by_key = {
            images.complete(image): ", ".join(f"`{path}`" for path in sorted(of_image)) or "the product's own"
            for image, of_image in keys.items()
        }
        missing = "none: by tag" if chart_facts.were_tried(release.chart, release.version) else NOT_READ
        for name in sorted({*by_key, *images.by_tag(release)} & images.of_release(release)):
            yield f"| {release.chart} {release.version} | {name} | {by_key.get(name, missing)} |\n"


def page(found: list[Plan]) -> str:
    """The whole page."""
    rows, keys = [], []
    charts: dict[str, versions.Chart] = {chart.name: chart for chart in versions.CHARTS}
    for name, of_tool in releases(found).items():
        release = of_tool[0]
        chart = charts.get(release.chart)
        needs = ", ".join(n for n in NAMES if any(n in r.needs for r in of_tool)) or "–"
        software = chart.app_version if chart else "the user's"
        where = f"{release.chart} {release.version}" if chart else f"`{release.chart}` of this project"
        rows.append(f"| {name} | {where} | {software} | {release.namespace} | {needs} |\n")
        if chart:
            about = header(chart.name, chart.version)
            given = {path for r in of_tool for path in leaves(r.values)}
            number = len(key_list(chart.name, chart.version))
            source = about["source"] + (f" ({about['note']})" if "note" in about else "")
            keys.append(f"| {chart.name} {about['version']} | {about['read']} | {number} | {len(given)} | {cell(source)} |\n")
    support = [
        f"| {v.name} {v.version} | {v.released or 'not stated'} | {v.chosen} | {v.end_of_life or 'none'} | {cell(v.support)} |\n"
        for v in versions.ALL
    ]
    return "".join(
        [
            HEAD, "\n| tool | chart | software | namespace | needs |\n|---|---|---|---|---|\n", *rows,
            KEYS, "\n| chart | read | keys | given | source |\n|---|---|---|---|---|\n", *keys,
            DIGESTS, "\n| chart | image | value |\n|---|---|---|\n", *digests(found),
            SUPPORT, "\n| software | released | chosen | end of life | support |\n|---|---|---|---|---|\n", *support,
        ]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(write("tools", FILE, page(plans(with_metrics_server)), __doc__, "the catalogue"))
