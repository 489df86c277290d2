"""By which values keys a real chart takes the digest of each image that it renders: found by trying.

Every key whose name can mean an image, a tag or a digest is set, one after another, to what a digest would be there, and
the chart is rendered by Helm. A key counts where images get that digest, each as a whole reference, and nothing else of
the rendering changes, except a version label whose new value is valid, and a field for the digest. A chart that writes a tag with its
digest into a label, or reads a version from it, has no such key. In the end all keys of an image are set together, and
every place that names it must have the digest once. `facts.py` writes what is found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab.charts import read_keys
from plan import images
from plan.images import Form, nested, pin_value
from plan.tools.common import merge

Object = dict[str, Any]
Render = Callable[[Mapping[str, Any]], list[Object]]
Place = tuple[Any, ...]
Pins = dict[str, dict[str, Form]]
"""Image, as the chart renders it, to the keys that take its digest; to none where the plan's values name it everywhere."""

PROBE = f"sha256:{'0123456789abcdef' * 4}"
_KEY = re.compile(r"(?i)(digest|sha|sha256|tag|image)$")
_REFERENCE = re.compile(r"(?:--[\w-]+=)?((?:[\w.-]+(?::\d+)?/)?[\w./-]+:[\w][\w.-]*)(@sha256:[0-9a-f]{64})?")
_MINUTE = re.compile(r"(-\d{2,4}){5}$")  # in the name of a Job that is another one at each rendering
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_TEXT = ("data", "binaryData", "description", "stringData")


def pins(folder: Path, values: Sequence[Mapping[str, Any]], render: Render) -> Pins:
    """Of the chart in `folder`, whose shapes are made by `values`; only keys that do so in every shape."""
    shapes = [_Shape(one, render) for one in values]
    every = {image for shape in shapes for image in shape.images.values()}
    found: Pins = {}
    for path in _candidates(folder):
        for form in _forms(path):
            # Images of one tag are tried by one value.
            for value in sorted({pin_value(form, image, PROBE) for image in every}):
                reached = [shape.reached({path: value}) for shape in shapes]
                names = {name for one in reached if one for name in one.values()}
                if None not in reached and len(names) == 1:
                    (image,) = names
                    if pin_value(form, image, PROBE) == value:
                        found.setdefault(image, {}).setdefault(path, form)
    return _together(found, shapes)


def _together(found: Pins, shapes: Sequence[_Shape]) -> Pins:
    """Of each image the keys of one kind that reach all of its places; without those that add nothing."""
    whole: Pins = {}
    for image in sorted({image for shape in shapes for image in shape.images.values()}):
        if all(shape.holds(image, {}) for shape in shapes):
            whole[image] = {}
    for image, keys in sorted((image, keys) for image, keys in found.items() if image not in whole):
        for forms in (("digest", "hex"), ("tag",), ("reference",), ("digest", "hex", "tag", "reference")):
            chosen = {path: form for path, form in sorted(keys.items()) if form in forms}
            if not chosen or not all(shape.holds(image, chosen) for shape in shapes):
                continue
            for path in sorted(chosen, key=len, reverse=True):
                fewer = {p: f for p, f in chosen.items() if p != path}
                if fewer and all(shape.holds(image, fewer) for shape in shapes):
                    chosen = fewer
            whole[image] = chosen
            break
    return whole


class _Shape:
    """One rendering, and what becomes of it with further values."""

    def __init__(self, values: Mapping[str, Any], render: Render) -> None:
        self._values, self._render = values, render
        self._plain, again = _flat(render(values)), _flat(render(values))
        self._random = {place for place in self._plain if again.get(place) != self._plain[place]}
        self.images = {place: found for place, text in self._plain.items() if (found := _image(place, text))}

    def reached(self, keys: Mapping[str, str], written: str | None = None) -> dict[Place, str] | None:
        """The places that have the probe by these values, by key, and what they name without; None where anything else
        changes, or nothing is rendered. The image `written` has it where the plan's values name it, too."""
        values: Any = self._values if written is None else _written(self._values, written)
        for path, value in keys.items():
            values = merge(values, nested(path, value))
        try:
            made = _flat(self._render(values))
        except Exception:  # noqa: BLE001 - the chart refuses it, whatever the reason
            return None
        changed = {
            place
            for place in {*made, *self._plain}
            if made.get(place) != self._plain.get(place) and not (place in made and _harmless(place, made[place]))
        } - self._random
        if any(place not in self.images or place not in made for place in changed):
            return None
        found = {}
        for place in changed:
            match = _REFERENCE.fullmatch(str(made[place])) or re.fullmatch(
                r"(?:--[\w-]+=)?([\w./-]+)(@sha256:[0-9a-f]{64})", str(made[place])
            )
            name = self.images[place]
            if not match or match[2] != f"@{PROBE}" or match[1] not in (name, name.rpartition(":")[0]):
                return None
            found[place] = name
        return found

    def holds(self, image: str, keys: Mapping[str, Form]) -> bool:
        """Whether every place of `image` has the digest by `keys`."""
        places = {place for place, name in self.images.items() if name == image}
        found = self.reached({path: pin_value(form, image, PROBE) for path, form in keys.items()}, image)
        return found is not None and set(found) == places


def _harmless(place: Place, value: Any) -> bool:
    """Whether `value` is a valid one of a label that nothing selects by, or the digest in a field for it beside an image."""
    if place[-1] == "sha":
        return value == PROBE.removeprefix("sha256:")
    inside = len(place) > 1 and place[-2] == "labels"
    return inside and place[-1] == "app.kubernetes.io/version" and bool(_LABEL.fullmatch(str(value)))


def _written(values: Any, image: str) -> Any:
    """`values` with the probe behind each whole reference to `image`, as the plan pins what it names itself."""
    if isinstance(values, Mapping):
        return {key: _written(inner, image) for key, inner in values.items()}
    if isinstance(values, list | tuple):
        return [_written(inner, image) for inner in values]
    named = isinstance(values, str) and ":" in values and images.complete(values) == images.complete(image)
    return f"{values}@{PROBE}" if named else values


def _candidates(folder: Path) -> list[str]:
    """Keys of the chart, and of the sub-charts in it, that can have to do with an image."""
    found = [path for path, kind in read_keys.keys(folder).items() if kind not in ("map", "list", "boolean")]
    for inner in sorted((folder / "charts").glob("*/values.yaml")):
        name = yaml.safe_load((inner.parent / "Chart.yaml").read_text())["name"]
        found += [f"{name}.{path}" for path in _candidates(inner.parent)]
    return list(dict.fromkeys(path for path in found if _KEY.search(path) and "\\" not in path))


def _forms(path: str) -> tuple[Form, ...]:
    last = path.rpartition(".")[2].lower()
    return ("digest", "hex") if re.search("digest|sha", last) else ("tag",) if last.endswith("tag") else ("reference",)


def _image(place: Place, text: Any) -> str | None:
    """The image that a scalar names: the whole value of a key `image`, or a reference with a registry elsewhere."""
    if not isinstance(text, str) or any(part in (*_TEXT, "annotations", "labels") for part in place):
        return None
    match = _REFERENCE.fullmatch(text)
    if not match or match[2]:
        return None
    host = match[1].partition("/")[0]
    return match[1] if place[-1] == "image" or ("." in host and "/" in match[1]) else None


def _flat(objects: Sequence[Object]) -> dict[Place, Any]:
    """Every scalar by its place; without hooks that only test, and without sums of what is written elsewhere."""
    found: dict[Place, Any] = {}

    def walk(place: Place, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                if "checksum" not in str(name):
                    walk((*place, name), inner)
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                walk((*place, number), inner)
        else:
            found[place] = _MINUTE.sub("", value) if isinstance(value, str) else value

    for one in objects:
        hook = (one["metadata"].get("annotations") or {}).get("helm.sh/hook", "")
        if not hook.startswith("test"):
            walk((one["kind"], _MINUTE.sub("", one["metadata"]["name"])), one)
    return found


def unpinned(found: Pins, rendered: Sequence[str]) -> list[str]:
    """Those of `rendered` that no key pins, as far as anything pulls them."""
    return sorted(
        image
        for image in rendered
        if image not in found and images.complete(image).rpartition(":")[0] not in images.NEVER_PULLED
    )
