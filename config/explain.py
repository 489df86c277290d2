"""What the model found wrong, as a Problem: the key as the user writes it, in plain words, with the remedy."""

from __future__ import annotations

import difflib
import types
import typing
from typing import Any

from pydantic import BaseModel

from config.errors import Fault, Problem, key
from config.model import Settings
from config.types import shown

# What to type for what no default can know.
_REMEDIES = {
    "architecture": "pulumi config set opstella:architecture standalone",
    "domain": "pulumi config set opstella:domain devops.example.com, the domain all services stand under",
    "ssh": "pulumi config set --path opstella:ssh.privateKey file:~/.ssh/id_ed25519, and the user's name in ssh.user",
    "ssh.privateKey": "pulumi config set --path opstella:ssh.privateKey file:~/.ssh/id_ed25519, "
    "or the key's text with --secret",
    "clusters": "architecture 'custom' has no clusters of its own: describe them, each with its subnet",
}

_EXPECTED = {
    "int_type": ("a whole number", "write it without quotes, such as 3"),
    "int_from_float": ("a whole number", "write it without a decimal point"),
    "bool_type": ("true or false", "write true or false, without quotes"),
    "string_type": ("text", "write it in quotes"),
    "string_sub_type": ("text", "write it in quotes"),
    "tuple_type": ("a list", "write it as [first, second]"),
    "dict_type": ("a mapping", "write 'name: value' lines below it"),
    "model_type": ("a mapping", "write its settings below it, one a line"),
    "model_attributes_type": ("a mapping", "write its settings below it, one a line"),
}


def explain(error: Any) -> Problem:
    """The Problem of one of pydantic's error details."""
    location: tuple[Any, ...] = tuple(error["loc"])
    # Pydantic's word for "the key itself", unless somebody called a setting so.
    if location[-1:] == ("[key]",) and error["type"] != "extra_forbidden":
        location = location[:-1]
    path = _path(location)
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    # A secret of the wrong type is a secret all the same.
    text = "what stands here" if location[:1] == ("secrets",) else shown(value)
    fault = context.get("error")
    if isinstance(fault, Fault):
        return Problem(key(path), fault.what, fault.fix)
    if kind == "missing":
        return Problem(key(path), "it is missing, and no default can know it", _REMEDIES.get(path, "give it a value"))
    if kind == "extra_forbidden":
        name = str(location[-1])
        known = _known_keys(location[:-1])
        close = difflib.get_close_matches(name.lower(), [k.lower() for k in known], 1)
        guess = next((k for k in known if close and k.lower() == close[0]), None)
        fix = f"did you mean {guess}?" if guess else f"the keys here are: {', '.join(sorted(known))}"
        return Problem(key(path), f"there is no setting {shown(name)}", fix)
    if kind in _EXPECTED:
        noun, fix = _EXPECTED[kind]
        if kind == "string_type" and isinstance(value, dict | list):
            fix = "write a single value"
        return Problem(key(path), f"{text} is not {noun}", fix)
    if kind == "literal_error":
        choices = context["expected"].replace("'", "")
        return Problem(key(path), f"{shown(value)} is not one of: {choices.replace(' or ', ', ')}", f"write {choices}")
    if kind in ("greater_than_equal", "less_than_equal"):
        low = kind == "greater_than_equal"
        bound = context["ge" if low else "le"]
        return Problem(
            key(path), f"{value} is too {'small' if low else 'large'}", f"write {bound} or {'more' if low else 'less'}"
        )
    if kind == "string_too_short":
        return Problem(key(path), "the text is empty", "write something, or leave the setting out")
    if kind == "string_too_long":
        return Problem(key(path), "the text is too long", f"write at most {context['max_length']} characters")
    message = error["msg"]
    return Problem(
        key(path), message[0].lower() + message[1:], "correct it; the comments in Pulumi.standalone.yaml show how"
    )


def _path(location: tuple[Any, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that the model knows at `location`."""
    model: Any = Settings
    for part in location:
        field = next((f for n, f in getattr(model, "model_fields", {}).items() if part in (n, f.alias)), None)
        if field is not None:
            model = _inner(field.annotation)
    return [field.alias or name for name, field in getattr(model, "model_fields", {}).items()]


def _inner(annotation: Any) -> Any:
    """The model inside Optional, dict or tuple annotations; a mapping's keys are stepped over by its model."""
    while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        arguments = [a for a in typing.get_args(annotation) if a not in (types.NoneType, Ellipsis)]
        if not arguments:
            return annotation
        annotation = arguments[-1] if typing.get_origin(annotation) is dict else arguments[0]
    return annotation
