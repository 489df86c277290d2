"""The key lists: which values keys a real chart has, and of what type (keys/NAME-VERSION.txt)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOM = Path(__file__).resolve().parent
Schema = dict[str, Any]

_TYPES: dict[str, list[str]] = {
    "boolean": ["boolean"],
    "list": ["array"],
    "map": ["object"],
    "scalar": ["string", "number", "boolean"],
}


def key_list(chart: str, version: str) -> dict[str, str]:
    """Path to type of every values key, from keys/CHART-VERSION.txt. Raises FileNotFoundError saying what to do."""
    file = ROOM / "keys" / f"{chart}-{version}.txt"
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is missing: the keys of {chart} {version} were never read. Fetch that chart and run"
            f" lab/charts/read_keys.py on it"
        )
    lines = (line.split(" ", 1) for line in file.read_text().splitlines() if line and not line.startswith("#"))
    return {path: kind for path, kind in lines}


def segments(path: str) -> list[str]:
    r"""The keys of a path; `a.b\.c` is the key `b.c` in the map `a`."""
    return [part.replace("\0", ".") for part in path.replace("\\.", "\0").split(".")]


def allows(node: Schema, path: Sequence[str], value: Any) -> bool:
    """Does a chart with this `schema` take `value` at `path`?"""
    if not path:
        types = node.get("type")
        return types is None or any(_is(value, name) for name in types)
    if "properties" not in node:
        return "object" in node.get("type", ["object"])  # an open map, or anything at all
    inner = node["properties"].get(path[0], node["additionalProperties"])
    return bool(inner is not False) and allows(inner, path[1:], value)


def _is(value: Any, name: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "null": value is None,
        "boolean": isinstance(value, bool),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
        "string": isinstance(value, str),
        "number": number,
        "integer": number and int(value) == value,
    }[name]


def schema(keys: Mapping[str, str]) -> Schema:
    """A JSON schema (draft 7) that takes the keys of `keys` and no others; null takes a default away."""
    root: Schema = {"$schema": "http://json-schema.org/draft-07/schema#", **_closed()}
    for path, kind in keys.items():
        node = root
        *parents, last = segments(path)
        for part in parents:
            node = _child(node, part, _closed())
        types = _TYPES.get(kind, kind.split("|"))
        _child(node, last, {} if kind == "any" else {"type": sorted({*types, "null"})})
    # Helm itself passes `global` to every chart.
    root["properties"].setdefault("global", {"type": ["object", "null"]})
    return root


def _closed() -> Schema:
    return {"type": ["object", "null"], "properties": {}, "additionalProperties": False}


def _child(node: Schema, key: str, new: Schema) -> Schema:
    if key != "*":
        child: Schema = node["properties"].setdefault(key, new)
        return child
    if node["additionalProperties"] is False:
        node["additionalProperties"] = new
    every: Schema = node["additionalProperties"]
    return every
