"""Package the stand-in charts: OUT/index.yaml and OUT/NAME-VERSION.tgz, a plain HTTP Helm repository.

    python3 lab/charts/package.py OUT DEFINITIONS

Names and versions are those of plan/versions.py; charts of the project itself are not in there. DEFINITIONS is a folder
with a file CHART.yaml for every chart of lab/workloads/crds.tsv: the tool's own custom resource definitions. The same
inputs give the same bytes, whenever and wherever.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import yaml

ROOM = Path(__file__).resolve().parent
ROOT = ROOM.parent.parent
sys.path.insert(0, str(ROOT))

from lab.charts.doubled_facts import doubled  # noqa: E402  (the repository's root has to be on the path first)
from lab.charts.key_lists import key_list, schema  # noqa: E402
from plan import versions  # noqa: E402

DEFINITIONS_TABLE = ROOT / "lab/workloads/crds.tsv"


@dataclass(frozen=True)
class Place:
    """Where a chart has its definitions: a folder, and the value that switches the sub-chart of that folder."""

    folder: str
    switch: str | None


def definition_places() -> dict[str, Place]:
    """Chart to the place of its custom resource definitions; a chart without any is not in there.

    Helm installs what lies in `crds`, its own or a sub-chart's, before anything else; those in `definitions` are
    templates of the double.
    """
    rows = [line.split("\t") for line in DEFINITIONS_TABLE.read_text().splitlines() if line and not line.startswith("#")]
    return {name: Place(folder, None if switch == "-" else switch) for name, folder, switch, *_ in rows}


def files(chart: versions.Chart, definitions: Path) -> dict[str, bytes]:
    """Path inside of the archive to content."""
    source = ROOM / "double" / chart.name
    about = {
        "apiVersion": "v2",
        "name": chart.name,
        "version": chart.version,
        "appVersion": chart.app_version,
        "type": "application",
        "description": f"double of {chart.name} {chart.version}: the same keys and object names, for the lab only",
        "annotations": {"opstella.lab/double": "true"},
    }
    accepted = schema(key_list(chart.name, chart.version))
    found = {
        "Chart.yaml": _yaml(about),
        "values.yaml": (source / "values.yaml").read_bytes(),
        "values.schema.json": b"",
        "templates/_double.tpl": (ROOM / "common" / "_double.tpl").read_bytes(),
        "templates/budgets.yaml": (ROOM / "common" / "budgets.yaml").read_bytes(),
        "facts.json": json.dumps(doubled(chart), indent=1, sort_keys=True).encode(),
    }
    for file in sorted((source / "templates").iterdir()):
        found[f"templates/{file.name}"] = file.read_bytes()
    place = definition_places().get(chart.name)
    if place:
        if place.switch:
            # Helm hands `global` on to the sub-chart, and checks the result by the parent's schema.
            accepted["properties"]["crds"].get("properties", {})["global"] = {"type": ["object", "null"]}
            part = {"name": "crds", "version": "0.0.0", "condition": place.switch}
            found["Chart.yaml"] = _yaml({**about, "dependencies": [part]})
            found["charts/crds/Chart.yaml"] = _yaml({"apiVersion": "v2", "name": part["name"], "version": part["version"]})
        tool = definitions / f"{chart.name}.yaml"
        for document in yaml.load_all(tool.read_text(), Loader=Loader):
            if document:
                found[f"{place.folder}/{document['metadata']['name']}.yaml"] = _yaml(document)
    found["values.schema.json"] = json.dumps(accepted, indent=1).encode()
    return {f"{chart.name}/{path}": content for path, content in found.items()}


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes' tools read it: a lone `=`, which YAML 1.1 gives a tag of its own, is text."""


Loader.add_constructor("tag:yaml.org,2002:value", yaml.SafeLoader.construct_yaml_str)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _yaml(data: object) -> bytes:
    return yaml.dump(data, Dumper=_DUMPER, sort_keys=False).encode()


def archive(content: dict[str, bytes]) -> bytes:
    """A .tgz of `content` without times, owners or anything else of the machine that made it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, data in content.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), mtime=0)


def package(out: Path, definitions: Path) -> None:
    """Write every chart and the index to `out`."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for chart in versions.CHARTS:
        content = files(chart, definitions)
        data = archive(content)
        name = f"{chart.name}-{chart.version}.tgz"
        (out / name).write_bytes(data)
        made = datetime.combine(chart.chosen, time(), UTC).isoformat()
        about = yaml.safe_load(content[f"{chart.name}/Chart.yaml"])
        # A relative address: the repository can be served from anywhere.
        entries[chart.name] = [{**about, "urls": [name], "digest": hashlib.sha256(data).hexdigest(), "created": made}]
    generated = datetime.combine(max(c.chosen for c in versions.CHARTS), time(), UTC).isoformat()
    (out / "index.yaml").write_bytes(_yaml({"apiVersion": "v1", "generated": generated, "entries": entries}))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    package(Path(sys.argv[1]), Path(sys.argv[2]))
