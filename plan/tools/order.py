"""What comes after what: releases of a cluster by their needs, what their pods mount before them, and clusters by
releases that wait for another one's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from config.errors import Problem, key
from plan.tools import chart_facts
from plan.tools.model import Manifest, Release
from plan.tools.needs import EXTERNAL, Job, is_elsewhere

Reference = tuple[str, str]
"""Kind and name of an object in a release's namespace."""
NAMESPACE_LABEL = "kubernetes.io/metadata.name"


def ordered(releases: Sequence[Release]) -> tuple[Release, ...]:
    """`releases` with needs first, otherwise in the order given. Raises ValueError: some need each other."""
    left, done, names = list(releases), [], set[str]()
    while left:
        ready = next((r for r in left if set(needs_of(r)) <= names), None)
        if ready is None:
            circle = "; ".join(f"{r.name} needs {', '.join(n for n in needs_of(r) if n not in names)}" for r in left)
            raise ValueError(f"the catalogue's releases need each other in a circle: {circle}")
        left.remove(ready)
        done.append(ready)
        names.add(ready.name)
    return tuple(done)


def needs_of(release: Release) -> tuple[str, ...]:
    """Every release of its cluster that must stand before `release` can be complete, without itself."""
    manifests = [n for m in (*release.before, *release.after) for n in m.needs]
    jobs = [n for job in release.jobs for n in job.needs]
    return tuple(
        n
        for n in dict.fromkeys((*release.needs, *manifests, *jobs))
        if n != release.name and n not in EXTERNAL and not is_elsewhere(n)
    )


def cluster_order(releases: Mapping[str, Sequence[Release]]) -> tuple[str, ...]:
    """The clusters, each after those whose releases its own wait for. Raises ValueError: they wait for one another."""
    waits = {
        cluster: {need.partition("/")[0] for r in of_cluster for need in r.needs if is_elsewhere(need)}
        for cluster, of_cluster in releases.items()
    }
    done: list[str] = []
    while len(done) < len(waits):
        ready = [cluster for cluster, awaited in waits.items() if cluster not in done and awaited <= set(done)]
        if not ready:
            left = "; ".join(f"{c} waits for {', '.join(sorted(waits[c]))}" for c in waits if c not in done)
            raise ValueError(f"clusters wait for one another in a circle: {left}")
        done += ready
    return tuple(done)


def mounts_first(releases: Sequence[Release], problems: list[Problem]) -> list[Release]:
    """`releases`, with every object that a release's pods do not start without made before that release.

    A release is deployed when its pods are ready, so an object that is made after it is never made. What a pod mounts
    is known from the facts of its chart, and from the values, where they name an object of the plan. An object of the
    release's own moves in front of it; for one of another release, that release becomes a need. A release that waits for
    an object that waits for the release is a problem, added to `problems`.
    """
    by_name = {release.name: release for release in releases}
    found = []
    for release in releases:
        wants = _wants(release)
        needs = list(release.needs)
        for other in releases:
            for what, maker in _made_by(other, release.namespace) if other is not release else ():
                if wants(what) and other.name not in needs:
                    needs.append(other.name)
                    if release.name in _closure(other.name, by_name):
                        problems.append(_circle(release, what, maker, other.name))
        after, moved = [], []
        for manifest in release.after:
            what = next(filter(wants, made(manifest, release.namespace)), None)
            (after if what is None else moved).append(manifest)
            if what and (waits := _waits_for(release, manifest.needs, by_name)):
                problems.append(_circle(release, what, f"{manifest.body['kind']} {manifest.name}", waits))
        for job in release.jobs:
            what = next(filter(wants, kept(job)), None)
            # One that comes after its release has something to do there.
            waits = _waits_for(release, job.needs if job.before else (release.name,), by_name)
            if what and waits:
                problems.append(_circle(release, what, f"Job {job.name}", waits))
        found.append(replace(release, needs=tuple(needs), before=(*release.before, *moved), after=tuple(after)))
    return found


def _wants(release: Release) -> Callable[[Reference], bool]:
    """Whether pods of `release` do not start without an object: its chart's facts say so, or its values name it."""
    facts = chart_facts.mounted(release.chart, release.version)
    named = set(_texts(release.values))
    return lambda what: what in facts or what[1] in named


def made(manifest: Manifest, namespace: str) -> Iterator[Reference]:
    """What `manifest` is, or brings about, in `namespace`, of what a pod can mount or run as."""
    body = manifest.body
    metadata, spec = body["metadata"], body.get("spec", {})
    own = metadata.get("namespace", manifest.namespace)
    match body["kind"]:
        case "ConfigMap" | "Secret" | "ServiceAccount" | "PersistentVolumeClaim" as kind if own == namespace:
            yield kind, metadata["name"]
        case "Certificate" if own == namespace:
            yield "Secret", spec["secretName"]
        case "Cluster" if own == namespace:  # of CloudNativePG
            yield from (("Secret", f"{metadata['name']}-{part}") for part in ("app", "ca", "replication", "server"))
        case "Bundle":
            only = spec["target"].get("namespaceSelector", {}).get("matchLabels", {}).get(NAMESPACE_LABEL, namespace)
            if only == namespace:
                kinds = (("configMap", "ConfigMap"), ("secret", "Secret"))
                yield from ((kind, metadata["name"]) for target, kind in kinds if target in spec["target"])


def kept(job: Job) -> Iterator[Reference]:
    """The Secrets that `job` makes in its namespace, by its rights."""
    for rule in job.rules:
        if "secrets" in rule["resources"] and "update" in rule["verbs"]:
            yield from (("Secret", name) for name in rule.get("resourceNames", ()))


def _made_by(release: Release, namespace: str) -> Iterator[tuple[Reference, str]]:
    """What `release` makes in `namespace`, and the object that does."""
    for secret in release.secrets:
        if secret.namespace == namespace:
            yield ("Secret", secret.name), f"Secret {secret.name}"
    for manifest in (*release.before, *release.after):
        yield from ((what, f"{manifest.body['kind']} {manifest.name}") for what in made(manifest, namespace))
    if release.namespace == namespace:
        yield from ((what, f"Job {job.name}") for job in release.jobs for what in kept(job))


def _waits_for(release: Release, needs: Sequence[str], by_name: Mapping[str, Release]) -> str | None:
    """The first of `needs` that is `release` itself, or waits for it."""
    return next((n for n in needs if n == release.name or release.name in _closure(n, by_name)), None)


def _closure(name: str, by_name: Mapping[str, Release]) -> set[str]:
    """Every release that `name` waits for, directly or not; without `name` unless it waits for itself."""
    found: set[str] = set()
    left = list(needs_of(by_name[name])) if name in by_name else []
    while left:
        need = left.pop()
        if need not in found and need in by_name:
            found.add(need)
            left += needs_of(by_name[need])
    return found


def _circle(release: Release, what: Reference, maker: str, waits: str) -> Problem:
    kind, name = what
    chain = release.name if waits == release.name else f"{waits}, which waits for {release.name}"
    return Problem(
        key("tools", release.name, "values"),
        f"the pods of {release.name} mount the {kind} {release.namespace}/{name}, which {maker} makes; {maker} waits for"
        f" {chain}, and {release.name} is deployed only when its pods are ready",
        f"remove {name} from the values of {release.name}, or mount an object that is made before {release.name}",
    )


def _texts(value: Any) -> Iterator[str]:
    """Every text in nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
