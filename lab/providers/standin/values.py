"""Property values as the engine sends them, and the few ways the stand-ins look at them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.runtime.rpc import UNKNOWN

__all__ = ["UNKNOWN", "Properties", "PropertyValue", "contains_unknown", "go_quote",
           "plain", "secret", "unique_hex", "unknown", "wrap"]

Properties = dict[str, PropertyValue]


def plain(value: PropertyValue | None) -> Any:
    """The value without secret marks: None, bool, float, str, list or dict.

    An unknown value (known only after the update) is the string ``UNKNOWN``, as
    on the wire; an asset or archive is returned as the SDK's own object.
    """
    if value is None:
        return None
    inner = value.value
    if isinstance(inner, str):
        return inner
    if isinstance(inner, Mapping):
        return {key: plain(item) for key, item in inner.items()}
    if isinstance(inner, (list, tuple)):
        return [plain(item) for item in inner]
    return inner


def wrap(value: Any, is_secret: bool = False) -> PropertyValue:
    """The reverse of ``plain``: numbers become floats, which is all the wire has."""
    if isinstance(value, PropertyValue):
        return value.with_secret(True) if is_secret and not value.is_secret else value
    if isinstance(value, Mapping):
        return PropertyValue({key: wrap(item) for key, item in value.items()}, is_secret)
    if isinstance(value, (list, tuple)):
        return PropertyValue([wrap(item) for item in value], is_secret)
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    return PropertyValue(value, is_secret)


def secret(value: Any) -> PropertyValue:
    """``value`` marked secret."""
    return wrap(value, True)


def unknown(is_secret: bool = False) -> PropertyValue:
    """A value that only the update will tell."""
    return PropertyValue(UNKNOWN, is_secret)


def contains_unknown(value: Any) -> bool:
    """Whether a plain value is, or holds, an unknown one."""
    if isinstance(value, Mapping):
        return any(contains_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(contains_unknown(item) for item in value)
    return isinstance(value, str) and value == UNKNOWN


def unique_hex(prefix: str) -> str:
    """``prefix`` and eight random hexadecimal digits: the shape of the command provider's ids."""
    return prefix + secrets.token_hex(4)


_ESCAPES = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t",
            "\v": r"\v", '"': r"\"", "\\": r"\\"}


def go_quote(text: str) -> str:
    """``text`` as Go's ``%q`` prints it; the official provider's error text uses that."""
    out = ['"']
    for char in text:
        code = ord(char)
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            out.append(f"\\U{code:08x}")
    return "".join([*out, '"'])
