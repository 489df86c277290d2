"""Secrets where everyone can read them: in a chart's values, in plain variables, in the parameters of a seal.

A key tells by its last words what it holds. What is no secret, though its key ends like one, passes: the name of a
Secret (`existingSecret`, `tlsSecret`), a switch, nothing, or a reference that is replaced later (`${VARIABLE}`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from config.errors import Problem, key
from config.model import Settings

_ENDINGS = (
    ("password",), ("passwd",), ("passphrase",), ("secret",), ("token",), ("credentials",), ("apikey",), ("accesskey",),
    ("secretkey",), ("api", "key"), ("access", "key"), ("secret", "key"), ("private", "key"), ("encryption", "key"),
)  # fmt: skip
# `pullSecret`, `passwordSecretKey` and the like name a Kubernetes Secret or a key in one, by convention of all charts.
_NAMES = {
    "ca", "cert", "certificate", "certs", "env", "existing", "extra", "from", "image", "ingress", "kube", "pull", "restricted", "tls",
}  # fmt: skip
_NAMING = {"secret": {"key"}, "key": {"passcode", "password", "passwd", "token"}}  # further ones before such an ending
_BESIDE = (
    "secretname",
    "existingsecret",
    "secretref",
)  # beside such a key, one ending in Key names a key of that Secret
# Replaced later, a path, or the name of a file.
_REFERENCE = re.compile(r"\$[({A-Za-z_]|\{\{|%\(|<[a-z]+:|/[a-z][\w.-]*/|[\w.-]+\.(key|pem|crt)\Z")
_LOGIN_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@]*:[^\s/@$({]+@")
_HELM = (
    "keep it in a Secret that the chart reads by a setting such as existingSecret; what a setting of this project takes "
    "goes under opstella:secrets"
)


_BY_VARIABLE = "encrypt it, pulumi config set --secret --path opstella:secrets.NAME, and name it in"


def values_of_tools(settings: Settings) -> Iterator[Problem]:
    for name, tool in settings.tools.items():
        yield from _problems(tool.values, key("tools", name, "values"), _HELM)


def variables_of_services(settings: Settings) -> Iterator[Problem]:
    app = settings.opstella
    for name, part in (("ui", app.ui), ("core", app.core), ("clearSession", app.clear_session)):
        where = key("opstella", name, "environment")
        yield from _problems(part.environment, where, f"{_BY_VARIABLE} {key('opstella', name, 'secretEnvironment')}")


def parameters_of_the_seal(settings: Settings) -> Iterator[Problem]:
    seal = settings.vault.seal
    if seal is not None:
        where = key("vault.seal.parameters")
        yield from _problems(seal.parameters, where, f"{_BY_VARIABLE} {key('vault.seal.environment')}")


def _problems(values: Any, where: str, fix: str) -> Iterator[Problem]:
    """A problem for each value that looks like a secret; none repeats it."""
    for path in plain_secrets(values):
        yield Problem(where + path, "a secret in plain configuration", fix)


def plain_secrets(value: Any, path: str = "") -> Iterator[str]:
    """The paths (`.global.password`, `.env[0].value`) of what looks like a secret in `value`."""
    if isinstance(value, dict):
        named = value.get("name")
        for name, inner in value.items():
            # A list of variables has the telling name beside the value.
            told = name if name != "value" or not isinstance(named, str) else named
            names_a_key = str(name).endswith("Key") and any(
                text and str(beside).lower().endswith(_BESIDE) for beside, text in value.items()
            )
            if not names_a_key and _held(str(told), inner):
                yield f"{path}.{name}"
            else:
                yield from plain_secrets(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from plain_secrets(inner, f"{path}[{index}]")
    elif isinstance(value, str) and ("PRIVATE KEY-----" in value or _LOGIN_IN_URL.search(value)):
        yield path


def _held(name: str, value: Any) -> bool:
    """Whether `name` says that it holds a secret and `value` is one in clear."""
    words = tuple(
        re.sub(r"([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])", r"\1\3 \2\4", name).lower().replace("_", " ").split()
    )
    words = tuple(part for word in words for part in re.split(r"[.-]", word) if part)
    ending = next((e for e in _ENDINGS if words[-len(e) :] == e), None)
    if ending is None:
        return False
    before = set(words[: -len(ending)])
    if before & (_NAMES | _NAMING.get(ending[-1], set())):
        return False
    if isinstance(value, str):
        return bool(value.strip()) and not _REFERENCE.match(value.strip())
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and ending[-1] in ("password", "passwd", "passphrase")
