"""Which container images a stack needs: for an air gap, and for whoever has to look through them.

What charts render is known from their facts (plan/tools/charts); what the stack itself makes, from the plan. Images of
RKE2 are files of its release, and GitLab is a package: docs/operations.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from config.errors import Problem, key
from plan.tools import chart_facts, gitlab_runner
from plan.tools.common import merge
from plan.tools.model import Release

NEVER_PULLED: Mapping[str, str] = {
    "quay.io/thanos/thanos": "an argument of prometheus-operator, for objects that the stack has none of",
    "quay.io/jetstack/cert-manager-acmesolver": "an argument of cert-manager, for ACME issuers that the stack has none of",
}
"""Images that a chart names and nothing starts, and why."""
RKE2_LIST = "rke2-images-all.linux-amd64.txt"
"""The file of an RKE2 release that lists the images of RKE2 itself."""
_EXACT = re.compile(r"\d+\.\d+\.\d+|RELEASE\.\d{4}|\d{8}|\d+\.\d+-system-")
Releases = Mapping[str, Sequence[Release]]
Own = Mapping[str, Mapping[str, Any]]
"""By tool, the user's values of its chart."""
Form = Literal["digest", "hex", "tag", "reference"]
"""What a chart's key takes: the digest, its hexadecimal digits, or a tag or a whole reference with the digest behind it."""


def pin_value(form: Form, image: str, digest: str) -> str:
    """What stands at a key of that form, so that `image` (`registry/path:tag`) has `digest` (`sha256:…`)."""
    tag = image.rpartition(":")[2]
    return {
        "digest": digest,
        "hex": digest.removeprefix("sha256:"),
        "tag": f"{tag}@{digest}",
        "reference": f"{image}@{digest}",
    }[form]


@dataclass(frozen=True, kw_only=True)
class Image:
    """`name` is `registry/path:tag`, `digest` is `sha256:…` where the settings give it, `needed_by` are `cluster/tool`."""

    name: str
    needed_by: tuple[str, ...]
    digest: str | None = None

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else self.name


def images(releases: Releases, digests: Mapping[str, str]) -> tuple[Image, ...]:
    """Every image of the releases of all clusters, by name; `digests` are the user's, by image."""
    needed: dict[str, set[str]] = {}
    for cluster, of_cluster in releases.items():
        for release in of_cluster:
            for name in of_release(release):
                needed.setdefault(name, set()).add(f"{cluster}/{release.name}")
    known = {complete(name): digest for name, digest in digests.items()}
    return tuple(Image(name=n, needed_by=tuple(sorted(needed[n])), digest=known.get(n)) for n in sorted(needed))


def unread(releases: Releases) -> tuple[str, ...]:
    """Charts whose images nobody knows, since the user chose a version that was never rendered: `NAME VERSION` each."""
    every = (release for of_cluster in releases.values() for release in of_cluster)
    return tuple(
        sorted({f"{r.chart} {r.version}" for r in every if r.repository and not chart_facts.renderings(r.chart, r.version)})
    )


def check(releases: Releases, digests: Mapping[str, str]) -> Iterator[Problem]:
    """A problem for each image with a digest that nothing needs: a misspelt one would protect nothing."""
    needed = [image.name for image in images(releases, {})]
    for name in digests:
        if complete(name) not in needed and not unread(releases):
            close = difflib.get_close_matches(complete(name), needed, 1)
            yield Problem(
                key("media", f'imageDigests["{name}"]'),
                f"no tool of this stack needs the image {name}",
                f"write {close[0]}, or remove the entry" if close else "remove the entry; `./opstella images` lists them all",
            )


def of_release(release: Release) -> frozenset[str]:
    """What the pods of `release` are made of: its chart's, its Jobs', its databases', and those that it starts itself."""
    found: set[str] = set()
    for rendering in chart_facts.renderings(release.chart, release.version):
        found |= {*rendering.get("images", ()), *rendering.get("hook_images", ())}
    found |= {job.image for job in release.jobs}
    for manifest in (*release.before, *release.after):
        found |= set(_named(manifest.body))
    if not release.repository:
        found |= set(_named(release.values))  # a chart of this project takes whole references
    if release.name == gitlab_runner.NAME:
        found |= set(gitlab_runner.images(release))
    names = {complete(name.partition("@")[0]) for name in found}
    return frozenset(name for name in names if name.rpartition(":")[0] not in NEVER_PULLED)


def complete(name: str) -> str:
    """`name` with the registry and folder that container runtimes add where there is none."""
    first, _, rest = name.partition("/")
    if not rest or not ("." in first or ":" in first or first == "localhost"):
        return f"docker.io/{name}" if rest else f"docker.io/library/{name}"
    return f"docker.io/library/{rest}" if first == "docker.io" and "/" not in rest else name


def floats(name: str) -> bool:
    """Whether the tag of `name` may mean another image tomorrow: it has no whole version or date."""
    return not _EXACT.search(name.rpartition("/")[2].partition(":")[2])


def pinned(release: Release, digests: Mapping[str, str], own: Mapping[str, Any] = MappingProxyType({})) -> Release:
    """`release` with the digest behind every image that the plan itself names, and behind those of its chart that take
    one by a key. `own` are the user's values of this tool: where they choose an image, theirs is taken as it is."""
    if not digests:
        return release
    known = {complete(name): digest for name, digest in digests.items()}
    by_key = {complete(image) for image in chart_facts.image_pins(release.chart, release.version)}

    def pin(value: Any) -> Any:
        if isinstance(value, Mapping):
            made = {k: pin(v) for k, v in value.items()}
            name = complete(f"{made.get('repository')}:{made.get('tag')}")
            return made | {"tag": f"{made['tag']}@{known[name]}"} if name in known and name not in by_key else made
        if isinstance(value, list | tuple):
            return type(value)(pin(inner) for inner in value)
        if isinstance(value, str) and ":" in value and complete(value) in known:
            return f"{value}@{known[complete(value)]}"
        return value

    def manifests(those: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(replace(one, body=pin(one.body)) for one in those)

    values = pin(release.values)
    for image, keys in _chosen_by_key(release, own).items():
        for path, form in keys.items() if image in known else ():
            values = merge(values, nested(path, pin_value(form, image, known[image])))
    if release.name == gitlab_runner.NAME:
        values = gitlab_runner.with_images(values, pin)
    return replace(
        release,
        values=values,
        before=manifests(release.before),
        after=manifests(release.after),
        jobs=tuple(replace(job, image=pin(job.image)) for job in release.jobs),
    )


def _chosen_by_key(release: Release, own: Mapping[str, Any]) -> dict[str, Mapping[str, Form]]:
    """Images of the chart, by their complete names, to the keys that take their digests: those that `own` leaves alone."""
    found = chart_facts.image_pins(release.chart, release.version)
    return {
        complete(image): keys  # type: ignore[misc]
        for image, keys in found.items()
        if not any(_says(own, path.split(".")[:-1]) for path in keys)
    }


def _says(values: Any, way: Sequence[str]) -> bool:
    """Whether `values` have anything at `way`."""
    for name in way:
        values = values.get(name) if isinstance(values, Mapping) else None
    return bool(values)


def by_tag(release: Release, own: Mapping[str, Any] = MappingProxyType({})) -> frozenset[str]:
    """The images of the chart of `release` that no digest can be given for: nodes pull them by their tags."""
    rendered = {
        complete(name)
        for rendering in chart_facts.renderings(release.chart, release.version)
        for name in (*rendering.get("images", ()), *rendering.get("hook_images", ()))
    }
    # What the plan itself names in values, it pins there; a chart that was tried says so itself.
    tried = chart_facts.were_tried(release.chart, release.version)
    written = set() if tried else {complete(name.partition("@")[0]) for name in _written(release.values)}
    return frozenset(rendered - {*_chosen_by_key(release, own)} - written) & of_release(release)


def nested(path: str, value: Any) -> dict[str, Any]:
    """The values that have `value` at `path`, keys joined by dots."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def left_by_tag(releases: Releases, own: Own = MappingProxyType({})) -> dict[str, tuple[str, ...]]:
    """Images that charts name by tag and take no digest of, to the `cluster/tool` of each."""
    found: dict[str, list[str]] = {}
    for cluster, of_cluster in releases.items():
        for release in of_cluster:
            for name in by_tag(release, own.get(release.name, {})):
                found.setdefault(name, []).append(f"{cluster}/{release.name}")
    return {name: tuple(sorted(places)) for name, places in sorted(found.items())}


def unheld(releases: Releases, digests: Mapping[str, str], own: Own) -> Iterator[str]:
    """A warning for each digest that some tool's nodes do not pull by, so that nobody counts on it."""
    left = left_by_tag(releases, own) if digests else {}
    for name in digests:
        if places := left.get(complete(name)):
            yield (
                f'media.imageDigests["{name}"]: nodes pull this image by its tag for {", ".join(places)}: the chart takes no digest of it, '
                "or opstella:tools says its image; the digest counts in `./opstella images` only"
            )


def as_data(releases: Releases, digests: Mapping[str, str], rke2: str, own: Own = MappingProxyType({})) -> dict[str, Any]:
    """The list as plain JSON data, with what is not in it; `rke2` is its version. `by_tag`: who pulls it by its tag, even
    with a digest."""
    left = left_by_tag(releases, own)
    return {
        "images": [
            {
                "image": one.name,
                "digest": one.digest,
                "needed_by": list(one.needed_by),
                "by_tag": list(left.get(one.name, ())),
            }
            for one in images(releases, digests)
        ],
        "unread_charts": list(unread(releases)),
        "rke2": {"version": rke2, "list": RKE2_LIST},
    }


def _written(value: Any) -> Iterator[str]:
    """What `pinned` finds in values, by whole references or by repository and tag."""
    yield from _named(value)
    if isinstance(value, Mapping):
        if value.get("repository") and value.get("tag"):
            yield f"{value['repository']}:{value['tag']}"
        for inner in value.values():
            yield from _written(inner)


def _named(value: Any) -> Iterator[str]:
    """Whole references below the keys `image` and `imageName`."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in ("image", "imageName") and isinstance(inner, str) and inner:
                yield inner
            else:
                yield from _named(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner)
