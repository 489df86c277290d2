"""What the model found wrong, as a Problem: the key as the user writes it, in plain words, with the remedy."""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from typing import Any

from pydantic import BaseModel

from config.errors import REMOVE, Fault, Problem, Rename, key
from config.model import Settings
from config.reference import WORKERS
from config.types import shown

# What to type for what no default can know.
_REMEDIES = {
    "architecture": "pulumi config set opstella:architecture standalone",
    "domain": "pulumi config set opstella:domain devops.example.com, the parent of all services' names",
    "ssh": "pulumi config set --path opstella:ssh.privateKey file:~/.ssh/id_ed25519, and the user's name in ssh.user",
    "ssh.privateKey": "pulumi config set --path opstella:ssh.privateKey file:~/.ssh/id_ed25519, "
    "or the key's text with --secret",
    "clusters": "architecture 'custom' has no clusters of its own: describe them, each with its subnet, such as one: {subnet: 192.168.72.0/24}",
}

# Where not every number within the bounds is right by itself: what to write, in words and as data.
_ADVISED: dict[tuple[Any, ...], tuple[str, Any]] = {
    ("loadBalancer", "count"): ("write 1; or 2, with addresses and virtualAddress", 1),
    ("masters", "count"): ("write 1 or 3", 1),
    ("workers", "count"): (WORKERS, 5),
}

_NOUNS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_sub_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def explain(error: Any) -> Problem:
    """The Problem of one of pydantic's error details."""
    location: tuple[Any, ...] = tuple(error["loc"])
    # Pydantic's word for "the key itself", unless somebody called a setting so.
    of_a_name = location[-1:] == ("[key]",) and error["type"] != "extra_forbidden"
    if of_a_name:
        location = location[:-1]
    path = _path(location)
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})

    def problem(what: str, fix: str, to: Any = None) -> Problem:
        change = {} if to is None else {location: Rename(str(to)) if of_a_name else to}
        return Problem(key(path), what, fix, change)

    fault = context.get("error")
    if isinstance(fault, Fault):
        return problem(fault.what, fault.fix, fault.value)
    if location[:1] == ("secrets",):
        # A secret of the wrong type is a secret all the same, and must not become one in clear.
        where = path if len(location) > 1 else f"{path}.NAME"
        return problem(
            f"expected {'the text of a secret' if len(location) > 1 else 'a mapping of names to secrets'}, found {_kind(value)}",
            f"remove it, take it out of use if it was a secret, and encrypt the new one: pulumi config set --secret --path "
            f"opstella:{where} (it reads standard input)",
            REMOVE,
        )
    if kind == "missing":
        return problem("required setting is missing", _REMEDIES.get(path, "give it a value"))
    if kind == "extra_forbidden":
        name = str(location[-1])
        known = _known_keys(location[:-1])
        close = difflib.get_close_matches(name.lower(), [k.lower() for k in known], 1)
        guess = next((k for k in known if close and k.lower() == close[0]), None)
        what = f"there is no setting {shown(name)}"
        if guess:
            return problem(what, f"did you mean {guess}?", Rename(guess))
        return problem(what, f"remove it; the keys here are: {', '.join(sorted(known))}", REMOVE)
    if kind in _NOUNS:
        return problem(f"{shown(value)} is not {_NOUNS[kind]}", *_typed(kind, value))
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        close = difflib.get_close_matches(str(value), choices, 1)
        to = close[0] if close else choices[0]
        return problem(
            f"{shown(value)} is not one of: {', '.join(choices)}",
            f"did you mean {to}?" if close else f"write {' or '.join([', '.join(choices[:-1]), choices[-1]]) if len(choices) > 1 else to}",
            to,
        )
    if kind in ("greater_than_equal", "less_than_equal"):
        low = kind == "greater_than_equal"
        bound = context["ge" if low else "le"]
        # Of nothing there is none: what may be 0 by its type may not be by the checks.
        bound = max(bound, 1) if low else bound
        advised = next((a for end, a in _ADVISED.items() if location[-2:] == end), None)
        if advised:
            return problem(f"{value} is too {'small' if low else 'large'}", *advised)
        return problem(
            f"{value} is too {'small' if low else 'large'}", f"write {bound} or {'more' if low else 'less'}", bound
        )
    if kind == "too_short":
        return problem("the list is empty", "name one or more, or remove the setting", REMOVE)
    if kind == "string_too_short":
        return problem("the text is empty", "write a text, or remove the setting", REMOVE)
    if kind == "string_too_long":
        return problem(
            f"the text has {len(value)} characters", f"write at most {context['max_length']}"
        )
    message = error["msg"]
    return problem(message[0].lower() + message[1:], "correct it; the comments in Pulumi.standalone.yaml show how")


def _typed(kind: str, value: Any) -> tuple[str, Any]:
    """What to write in place of a value of the wrong type, in words and as data; None: that is for the user to know."""
    noun = _NOUNS[kind]
    if noun == "a whole number":
        digits = re.match(r"\s*0*([1-9]\d{0,17})(?!\d)", value) if isinstance(value, str) else None
        if digits:
            return f"write the number alone, without quotes or unit: {int(digits[1])}", int(digits[1])
        if isinstance(value, float) and math.isfinite(value):
            return f"write a whole number: {math.ceil(value)}", math.ceil(value)
        return "write a whole number, such as 5", 5
    if noun == "true or false":
        meant = {"yes": True, "on": True, "1": True, "true": True}.get(str(value).lower(), False)
        return f"write {'true' if meant else 'false'}, without quotes", meant
    if noun == "text":
        if isinstance(value, bool | int | float):
            text = shown(value)
            return f'write it in quotes: "{text}"', text
        return "write a single text", None
    if noun == "a list":
        return ("write it as [first, second]", [value]) if isinstance(value, str) else ("write it as [first, second]", None)
    return "write its settings below it, one a line as 'name: value', or remove it", REMOVE


def _kind(value: Any) -> str:
    """What `value` is, without repeating it."""
    if isinstance(value, bool):
        return "true or false"
    kinds: tuple[tuple[type, str], ...] = ((int, "a number"), (float, "a number"), (str, "text"), (dict, "a mapping"), (list, "a list"))
    return next((noun for kind, noun in kinds if isinstance(value, kind)), "nothing")


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
