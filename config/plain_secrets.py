"""Secrets where everyone can read them: in a chart's values, in plain variables, in the parameters of a seal.

A key that has a telling stem anywhere in its name holds a secret, and so does a value in the form of a known token,
whatever its key. Passed are what holds nothing that could be one (a switch, nothing, a reference that is replaced later)
and what names where the secret is (`existingSecret`, `passwordKey`, `tokenFile`). The rest of what is no secret is said by
the user, value by value, in opstella:notSecret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from config.errors import Problem, key
from config.model import Settings

# In a name in lower case, without what stands between its words.
_STEMS = (
    "password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "credential", "apikey", "accesskey",
    "privatekey", "encryptionkey", "signingkey", "masterkey", "bearer",
)  # fmt: skip
_WORDS = {"pass", "pw"}  # as whole words: stems of too many others
_NUMBERS = ("passw", "passphrase", "passcode", "pwd", "pass")  # stems of what a number may be
# A name that ends so says something about a secret, where it is or how long it lives.
_ABOUT = {
    "name", "names", "ref", "refs", "file", "files", "path", "folder", "mount", "url", "uri", "endpoint", "ttl", "policy", "id", "enabled",
    "enable", "create", "length", "type", "issuer", "algorithm", "algorithms", "version", "seconds", "expiry", "expiration", "lifetime", "duration",
    "audience", "audiences", "scope", "scopes", "refresh", "rotation", "annotations", "labels",
}  # fmt: skip
# A Kubernetes Secret's name, by convention of all charts, if nothing but `secret` is telling and the value may be a name.
_KINDS = {
    "ca", "cert", "certificate", "certs", "existing", "extra", "from", "image", "ingress", "kube", "pull", "restricted", "tls", "key",
}  # fmt: skip
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")
_HELD = {"password", "passwd", "passcode", "token"}  # `passwordKey`: the key of a Secret that holds it
# Beside such a key, one ending in Key names a key of that Secret.
_BESIDE = ("secretname", "existingsecret", "secretref")
# Replaced later, a path, or the name of a file: all of the text, so that a secret that begins alike is none of them.
_REFERENCE = re.compile(
    r"(\$\{[^}]*\}|\$\([^)]*\)|\$[A-Z_][A-Z0-9_]*|\$__[a-z]+\{[^}]*\}|\{\{.*\}\}|%\([^)]*\)s|<[a-z]+:[^>]*>"
    r"|/[a-z][\w.-]*(/[\w.-]+)+|[\w.-]+\.(key|pem|crt))\Z"
)
_FORMS = re.compile(
    r"PRIVATE KEY-----"
    r"|[a-z][a-z0-9+.-]*://[^\s/:@]*:[^\s/@$({]+@"  # a URL with a password
    r"|\bgl(pat|dt|rt|cbt|ptt|soat)-[\w-]{16,}|\bgh[oprsu]_\w{30,}|\bgithub_pat_\w{20,}"
    r"|\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}|\bxox[abeoprs]-[\w-]{10,}|\bsk_live_\w{16,}|\bnpm_\w{30,}"
    r"|\bhv[sb]\.[\w-]{20,}|\bSG\.[\w-]{16,}\.[\w-]{16,}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}|hooks\.slack\.com/services/T\w+/B\w+/\w+"
)
_HELM = (
    "keep it in a Secret that the chart reads by a setting such as existingSecret; what a setting of this project takes "
    "goes under opstella:secrets"
)
_BY_VARIABLE = "encrypt it, pulumi config set --secret --path opstella:secrets.NAME, and name it in"


def check_plain(settings: Settings) -> Iterator[Problem]:
    """A problem for each value that looks like a secret, none of which repeats it, and for each exception in vain."""
    excused = set(settings.not_secret)
    found: set[str] = set()
    for values, where, fix in _places(settings):
        for path in plain_secrets(values):
            place = f"{where}{path}"
            found.add(place)
            if place not in excused:
                yield Problem(
                    key(place), "a secret in plain configuration", f"{fix}. If it is no secret: {key('notSecret')}: ['{place}']"
                )
    for index, place in enumerate(settings.not_secret):
        if place not in found:
            close = difflib.get_close_matches(place, found, 1)
            yield Problem(
                key(f"notSecret[{index}]"),
                f"'{place}' names no value that looks like a secret",
                f"write {close[0]}" if close else "remove it from the list",
            )


def _places(settings: Settings) -> Iterator[tuple[Any, str, str]]:
    """What is searched: values, their path, and where a secret among them belongs."""
    for name, tool in settings.tools.items():
        yield tool.values, f"tools.{name}.values", _HELM
    app = settings.opstella
    for name, part in (("ui", app.ui), ("core", app.core), ("clearSession", app.clear_session)):
        yield part.environment, f"opstella.{name}.environment", f"{_BY_VARIABLE} {key('opstella', name, 'secretEnvironment')}"
    if settings.vault.seal is not None:
        yield settings.vault.seal.parameters, "vault.seal.parameters", f"{_BY_VARIABLE} {key('vault.seal.environment')}"


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
    elif isinstance(value, str) and _FORMS.search(value):
        yield path


def _held(name: str, value: Any) -> bool:
    """Whether `name` says that it holds a secret and `value` is one in clear."""
    spaced = re.sub(r"([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])", r"\1\3 \2\4", name).lower()
    words = [word for word in re.split(r"[^a-z0-9]+", spaced) if word]
    run = "".join(words)
    telling = [stem for stem in _STEMS if stem in run] + [word for word in words if word in _WORDS]
    if not telling or words[-1] in _ABOUT:
        return False
    if isinstance(value, str):
        text = value.strip()
        return bool(text) and not _REFERENCE.match(text) and not _names(words, telling, text)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and any(stem.startswith(_NUMBERS) for stem in telling)


def _names(words: list[str], telling: list[str], text: str) -> bool:
    """Whether a key of these words names a Secret, or a key in one, and `text` may be such a name."""
    if words[-1] == "key" and _HELD & set(words):
        return True
    if words[:2] == ["existing", "secret"]:
        return bool(_OBJECT.match(text))
    if words[-1] not in ("secret", "secrets") or set(telling) - {"secret", "privatekey"}:
        return False
    return bool(_KINDS & set(words[:-1])) and bool(_OBJECT.match(text))
