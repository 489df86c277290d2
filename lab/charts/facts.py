"""Facts about what the real charts render with the values of this project: plan/tools/charts/NAME-VERSION.yaml.

    python -m lab.charts.facts FOLDER [CHART...]

FOLDER holds the unpacked real charts, each in a folder of its name, with the sub-charts that the values switch on in its
`charts/`. Each chart is rendered for every cluster of both architectures, and what differs is written once a shape. Only
facts are kept: names, ports, images, references, policies, budgets, rights. No text of a template.

A version that is not the pinned one is written as `read`, so that nobody takes the facts for more than they are. The
list of the chart's keys is compared on the way: a difference is printed, and the exit code is 1.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from lab.charts import image_pins, read_keys
from lab.charts.key_lists import key_list
from plan import versions
from plan.tools.chart_facts import FOLDER, WORKLOADS
from plan.tools.model import Release

Object = dict[str, Any]
Facts = dict[str, Any]

_IMAGE = re.compile(r"(?:--[\w-]+=)?((?:[\w-]+\.)+[a-z]{2,}(?::\d+)?/[\w./-]+:[\w][\w.-]*)")
_DATE = re.compile(r"(-\d{2,4}){5}$")  # of a Job that is another one at each rendering
_SECRET_VERBS = {"*", "get", "list", "watch"}
_MADE = ("ConfigMap", "Secret", "ServiceAccount", "PersistentVolumeClaim")


def facts_of(objects: Sequence[Object]) -> Facts:
    """What the tests and the plan need of a rendering: see the keys below. Maps are sorted, empty parts left out."""
    plain = [o for o in objects if "helm.sh/hook" not in (o["metadata"].get("annotations") or {})]
    accounts = {o["metadata"]["name"]: o for o in plain if o["kind"] == "ServiceAccount"}
    found: Facts = {
        "pods": {
            f"{o['kind']}/{_DATE.sub('', o['metadata']['name'])}": _pod(template, accounts)
            for o in plain
            if (template := _template(o))
        },
        "made": _without_empty({kind: sorted(set(_made(plain, kind))) for kind in _MADE}),
        "budgets": {o["metadata"]["name"]: o["spec"] for o in plain if o["kind"] == "PodDisruptionBudget"},
        "policies": {o["metadata"]["name"]: o["spec"] for o in plain if o["kind"] == "NetworkPolicy"},
        "reads_secrets": sorted(
            o["metadata"]["name"] for o in plain if o["kind"] == "ClusterRole" and _reads_secrets(o)
        ),
        "monitors": {
            f"{o['kind']}/{o['metadata']['name']}": _monitor(o["spec"])
            for o in plain
            if o["kind"] in ("ServiceMonitor", "PodMonitor")
        },
        "hooks": {
            f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["annotations"]["helm.sh/hook"]
            for o in objects
            if o not in plain
        },
        "images": sorted({image for o in plain for image in _images(o)}),
        "hook_images": sorted({image for o in objects if o not in plain and not _test(o) for image in _images(o)}),
    }
    return _without_empty({key: dict(sorted(value.items())) if isinstance(value, dict) else value for key, value in found.items()})


def _made(objects: Sequence[Object], kind: str) -> Iterator[str]:
    for o in objects:
        if kind in (o["kind"], "Secret") and o["kind"] in (kind, "Certificate"):  # cert-manager makes the Secret of one
            yield o["metadata"]["name"] if o["kind"] == kind else o["spec"]["secretName"]


def _test(o: Object) -> bool:
    """Whether a hook is a test, which nobody runs by deploying."""
    return all(hook.strip().startswith("test") for hook in o["metadata"]["annotations"]["helm.sh/hook"].split(","))


def _template(o: Object) -> Object | None:
    if o["kind"] in (*WORKLOADS, "Job"):
        return o["spec"]["template"]
    return o["spec"]["jobTemplate"]["spec"]["template"] if o["kind"] == "CronJob" else None


def _pod(template: Object, accounts: dict[str, Object]) -> Facts:
    spec = template["spec"]
    account = spec.get("serviceAccountName") or "default"
    token = spec.get("automountServiceAccountToken")
    if token is None:
        token = accounts.get(account, {}).get("automountServiceAccountToken")
    containers = spec.get("containers") or ()
    init = spec.get("initContainers") or ()
    return _without_empty(
        {
            "labels": dict(sorted((template["metadata"].get("labels") or {}).items())),
            "account": account,
            "token": token is not False,
            "host_network": spec.get("hostNetwork") or None,
            "containers": {c["name"]: _container(c, spec) for c in containers},
            "init": {c["name"]: _container(c, spec) for c in init},
            "references": sorted(set(_references(spec))),
        }
    )


def _container(container: Object, spec: Object) -> Facts:
    ports = {str(p.get("name") or p["containerPort"]): p["containerPort"] for p in container.get("ports") or ()}
    limits = (container.get("resources") or {}).get("limits") or {}
    volumes = {v["name"]: v for v in spec.get("volumes") or ()}
    mounts = {
        m["mountPath"]: kind
        for m in container.get("volumeMounts") or ()
        if (kind := _source(volumes.get(m["name"], {})))
    }
    environment = {e["name"]: str(e["value"]) for e in container.get("env") or () if e["name"] == "GOMEMLIMIT" and "value" in e}
    return _without_empty(
        {
            "image": container["image"],
            "ports": dict(sorted(ports.items())),
            "cpu_limit": limits.get("cpu"),
            "memory_limit": limits.get("memory"),
            "mounts": dict(sorted(mounts.items())),
            "environment": environment,
        }
    )


def _source(volume: Object) -> str | None:
    """`Kind/name` of what a volume shows, if it is an object."""
    return next((reference for reference, _ in _volume(volume)), None)


def _volume(volume: Object) -> Iterator[tuple[str, bool]]:
    """`Kind/name`, and whether the pod starts without it."""
    for kind, key, name in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
        if key in volume:
            yield f"{kind}/{volume[key][name]}", bool(volume[key].get("optional"))
    if "persistentVolumeClaim" in volume:
        yield f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}", False
    for source in (volume.get("projected") or {}).get("sources") or ():
        for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
            if key in source:
                yield f"{kind}/{source[key]['name']}", bool(source[key].get("optional"))


def _references(spec: Object) -> Iterator[str]:
    """What the pod cannot start without, `Kind/name`."""
    for volume in spec.get("volumes") or ():
        yield from (reference for reference, optional in _volume(volume) if not optional)
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if key in source and not source[key].get("optional"):
                    yield f"{kind}/{source[key]['name']}"
        for group in container.get("envFrom") or ():
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in group and not group[key].get("optional"):
                    yield f"{kind}/{group[key]['name']}"
    account = spec.get("serviceAccountName") or "default"
    if account != "default":
        yield f"ServiceAccount/{account}"


def _reads_secrets(role: Object) -> bool:
    return any(
        {"secrets", "*"} & set(rule.get("resources") or ())
        and {"", "*"} & set(rule.get("apiGroups") or ())
        and not rule.get("resourceNames")
        and _SECRET_VERBS & set(rule.get("verbs") or ())
        for rule in role.get("rules") or ()
    )


def _monitor(spec: Object) -> Facts:
    endpoints = spec.get("endpoints") or spec.get("podMetricsEndpoints") or ()
    return _without_empty(
        {
            "secrets": sorted(set(_monitor_secrets(spec))),
            "intervals": sorted({e["interval"] for e in endpoints if e.get("interval")}),
        }
    )


def _monitor_secrets(value: Any) -> Iterator[str]:
    """Names of Secrets and ConfigMaps that a monitor needs of whoever scrapes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("secret", "configMap", "keySecret", "username", "password", "credentials") and isinstance(inner, dict) and "name" in inner:
                yield inner["name"]
            else:
                yield from _monitor_secrets(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _monitor_secrets(inner)


def _images(value: Any) -> Iterator[str]:
    """Every image that an object names: of its containers, and in arguments, environment and fields of its own."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "image" and isinstance(inner, str) and inner:
                yield inner
            elif key not in ("data", "description", "annotations", "binaryData"):
                yield from _images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _images(inner)
    elif isinstance(value, str) and (match := _IMAGE.fullmatch(value)):
        yield match.group(1)


def _without_empty(found: Facts) -> Facts:
    return {key: value for key, value in found.items() if value not in (None, {}, [], ())}


# --- the real charts ---


def rendered(folder: Path, release: Release) -> list[Object]:
    """`release` by the real chart in `folder`, definitions left out."""
    from tests.support import charts

    place = ("--namespace", release.namespace, "--kube-version", charts.KUBERNETES)
    text = charts.helm("template", release.name, folder, *place, values=release.values)
    documents = [document for document in yaml.load_all(text, Loader=charts.Loader) if document]
    objects = [i for d in documents for i in ((d["items"] or ()) if d["kind"].endswith("List") else [d])]
    return [o for o in objects if o["kind"] != "CustomResourceDefinition"]


@functools.cache
def shapes() -> tuple[tuple[str, Release], ...]:
    """`stack/cluster` and every release of it, of both architectures with each tool that they may carry."""
    from tests.support.platform import ARCHITECTURES, every_tool, plan_of

    return tuple(
        (f"{architecture}/{cluster}", release)
        for architecture in ARCHITECTURES
        for cluster, releases in plan_of(architecture, every_tool()).releases.items()
        for release in releases
    )


def renderings(folder: Path, chart: versions.Chart) -> list[Facts]:
    """The facts of each shape of `chart`, those alike written once."""
    found: list[Facts] = []
    for shape, release in shapes():
        if release.chart != chart.name or not release.repository:
            continue
        facts = facts_of(_current(rendered(folder, release), folder, chart))
        same = next((one for one in found if {k: v for k, v in one.items() if k != "of"} == facts), None)
        if same is None:
            found.append({"of": [shape], **facts})
        else:
            same["of"].append(shape)
    return found


def pins(folder: Path, chart: versions.Chart) -> image_pins.Pins:
    """By which keys of `chart` the digest of each of its images is given, in all of its shapes."""
    releases: dict[str, Release] = {}
    for _, release in shapes():
        if release.chart == chart.name and release.repository:
            alike = json.dumps(facts_of(rendered(folder, release)), sort_keys=True)
            releases.setdefault(alike, release)

    def render(values: Any) -> list[Object]:
        return rendered(folder, replace(some, values=values))

    some = next(iter(releases.values()))
    found = image_pins.pins(folder, [release.values for release in releases.values()], render)
    return _current(found, folder, chart)


def strange_keys(folder: Path, chart: versions.Chart) -> list[str]:
    """Keys that the committed list has and the chart in `folder` has not (`-`), and the reverse (`+`)."""
    real, known = set(read_keys.keys(folder)), set(key_list(chart.name, chart.version))
    return [*(f"- {key}" for key in sorted(known - real)), *(f"+ {key}" for key in sorted(real - known))]


def _current(value: Any, folder: Path, chart: versions.Chart) -> Any:
    """`value` with the application's version of the pinned chart in its images, where another chart was read."""
    about = yaml.safe_load((folder / "Chart.yaml").read_text())
    if about["version"] == chart.version:
        return value
    text = json.dumps(value)
    return json.loads(re.sub(rf"(?<=[:v-]){re.escape(str(about['appVersion']))}(?=\")", chart.app_version, text))


def write(folder: Path, chart: versions.Chart) -> Path:
    about = yaml.safe_load((folder / "Chart.yaml").read_text())
    content = {
        "chart": chart.name,
        "version": chart.version,
        **({"read": about["version"]} if about["version"] != chart.version else {}),
        "source": chart.source,
        "pins": pins(folder, chart),
        "renderings": renderings(folder, chart),
    }
    target = FOLDER / f"{chart.name}-{chart.version}.yaml"
    target.write_text(yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=118))
    return target


class _Dumper(yaml.SafeDumper):
    """Writes what is alike out again: an alias would be hard to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    place, *wanted = arguments
    strange = 0
    for chart in versions.CHARTS:
        folder = Path(place) / chart.name
        if folder.is_dir() and (not wanted or chart.name in wanted):
            print(write(folder, chart))
            for line in strange_keys(folder, chart):
                strange += 1
                print(f"lab/charts/keys/{chart.name}-{chart.version}.txt: {line}", file=sys.stderr)
    return 1 if strange else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
