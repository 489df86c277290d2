"""Stand-in for the package ``random``: RandomPassword, RandomString, RandomId, RandomBytes."""

from __future__ import annotations

import asyncio
import base64
import secrets
from typing import Any, ClassVar

from pulumi.provider.experimental.provider import CheckFailure

from .schema import BridgedResource, Members, Package, Property, ProviderError
from .values import UNKNOWN, contains_unknown

VERSION = "4.21.4"

_LOWER = "abcdefghijklmnopqrstuvwxyz"
_UPPER = _LOWER.upper()
_DIGITS = "0123456789"
_SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
_BCRYPT_MAXIMUM_BYTES = 72
_BCRYPT_COST = 10

_KEEPERS = Property("map", replace=True)


def _flag() -> Property:
    return Property("boolean", default=True, replace=True)


def _minimum() -> Property:
    return Property("integer", default=0, replace=True)


_STRING_INPUTS = {
    "keepers": _KEEPERS,
    "length": Property("integer", required=True, replace=True, minimum=1),
    "lower": _flag(), "upper": _flag(), "number": _flag(), "numeric": _flag(), "special": _flag(),
    "minLower": _minimum(), "minUpper": _minimum(), "minNumeric": _minimum(),
    "minSpecial": _minimum(),
    "overrideSpecial": Property("string", replace=True),
}


class _Kept(BridgedResource):
    """A random resource: ``keepers`` replaces it unless every changed value is null."""

    def replaces(self, key: str, old: Any, new: Any) -> bool:
        if key == "keepers":
            before, after = old or {}, new or {}
            if after == UNKNOWN:
                return True
            return any(before.get(name) != after.get(name) for name in {*before, *after})
        return not (key == "overrideSpecial" and old == "" and new is None)


class _RandomCharacters(_Kept):
    """What RandomPassword and RandomString have in common."""

    inputs: ClassVar[Members] = _STRING_INPUTS

    def validate(self, inputs: dict[str, Any]) -> list[CheckFailure]:
        """The length holds all minimums, and at least one kind of character is allowed."""
        failures = []
        minimums = [inputs.get(key, 0) for key in ("minUpper", "minLower", "minNumeric",
                                                   "minSpecial")]
        numbers = [inputs["length"], *minimums]
        if not contains_unknown(numbers) and inputs["length"] < sum(minimums):
            failures.append(CheckFailure(
                "length", f"length {inputs['length']:g} is less than minUpper + minLower + "
                          f"minNumeric + minSpecial = {sum(minimums):g}; raise the length"))
        flags = [inputs.get(key) for key in ("upper", "lower", "special")]
        numeric = inputs.get("numeric", inputs.get("number"))
        if numeric is False and all(flag is False for flag in flags):
            failures.append(CheckFailure(
                "numeric", "at least one of upper, lower, special and numeric must be true"))
        return failures

    def normalise(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """``number`` is the older name of ``numeric``: each follows the other."""
        numeric = inputs.get("numeric", inputs.get("number"))
        if numeric is not None:
            inputs = {**inputs, "numeric": numeric, "number": numeric}
        return super().normalise(inputs)


def random_characters(inputs: dict[str, Any]) -> str:
    """A random string that keeps the minimums, from a cryptographic source.

    ``inputs`` are the normalised inputs of RandomPassword.  Raises ``ProviderError``
    when they allow no character at all.
    """
    special = inputs.get("overrideSpecial") or _SPECIAL
    kinds = [(_UPPER, "upper", "minUpper"), (_LOWER, "lower", "minLower"),
             (_DIGITS, "numeric", "minNumeric"), (special, "special", "minSpecial")]
    allowed = "".join(characters for characters, flag, _ in kinds if inputs[flag])
    if not allowed:
        raise ProviderError("Random Read Error: the character set specified is empty")
    chosen = [secrets.choice(characters) for characters, _, minimum in kinds
              for _ in range(int(inputs[minimum]))]
    chosen += [secrets.choice(allowed) for _ in range(int(inputs["length"]) - len(chosen))]
    secrets.SystemRandom().shuffle(chosen)
    return "".join(chosen)


def _bcrypt(password: str) -> str:
    """The bcrypt hash, version 2a and cost 10, of at most the first 72 bytes."""
    data = password.encode()[:_BCRYPT_MAXIMUM_BYTES]
    try:
        import bcrypt  # 20 ms to import: only when a password is made
    except ImportError:
        # Python before 3.13 can ask the C library, which on Debian knows bcrypt.
        import crypt

        alphabet = "./" + _UPPER + _LOWER + _DIGITS
        salt = "".join(secrets.choice(alphabet) for _ in range(21)) + secrets.choice(".Oeu")
        return crypt.crypt(data.decode(errors="ignore"), f"$2a${_BCRYPT_COST}${salt}")
    return bcrypt.hashpw(data, bcrypt.gensalt(_BCRYPT_COST, b"2a")).decode()


class RandomPassword(_RandomCharacters):
    """``random:index/randomPassword:RandomPassword``."""

    token = "random:index/randomPassword:RandomPassword"
    outputs: ClassVar[Members] = {"result": Property(secret=True), "bcryptHash": Property(secret=True)}

    async def make(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The id is the word ``none``: nothing of the password may show in it."""
        result = random_characters(inputs)
        return "none", {"result": result, "bcryptHash": await asyncio.to_thread(_bcrypt, result)}


class RandomString(_RandomCharacters):
    """``random:index/randomString:RandomString``; its id is the string, in clear."""

    token = "random:index/randomString:RandomString"
    outputs: ClassVar[Members] = {"result": Property()}

    async def make(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The result is the id."""
        result = random_characters(inputs)
        return result, {"result": result}


class RandomId(_Kept):
    """``random:index/randomId:RandomId``."""

    token = "random:index/randomId:RandomId"
    inputs: ClassVar[Members] = {"byteLength": Property("integer", required=True, replace=True, minimum=1),
              "keepers": _KEEPERS, "prefix": Property("string", replace=True)}
    outputs: ClassVar[Members] = {"b64Std": Property(), "b64Url": Property(), "dec": Property(), "hex": Property()}

    async def make(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The id is the unpadded URL-safe base64 without the prefix."""
        data = secrets.token_bytes(int(inputs["byteLength"]))
        prefix = inputs.get("prefix", "")
        url = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        return url, {"b64Std": prefix + base64.b64encode(data).decode(), "b64Url": prefix + url,
                     "hex": prefix + data.hex(), "dec": prefix + str(int.from_bytes(data, "big"))}


class RandomBytes(_Kept):
    """``random:index/randomBytes:RandomBytes``; its id is the base64 text, in clear."""

    token = "random:index/randomBytes:RandomBytes"
    inputs: ClassVar[Members] = {"length": Property("integer", required=True, replace=True, minimum=1),
              "keepers": _KEEPERS}
    outputs: ClassVar[Members] = {"base64": Property(secret=True), "hex": Property(secret=True)}

    async def make(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The official plugin's id shows the value too."""
        data = secrets.token_bytes(int(inputs["length"]))
        text = base64.b64encode(data).decode()
        return text, {"base64": text, "hex": data.hex()}


PACKAGE = Package("random", VERSION, {kind.token: kind() for kind in (
    RandomPassword, RandomString, RandomId, RandomBytes)})
