"""The reader: stack configuration in, frozen Settings out, or one page with every problem."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from config import stack_file
from config.checks import ENCRYPTED, check, unknown_cluster
from config.errors import ConfigurationError, Problem, key
from config.explain import explain
from config.mesh import with_networks
from config.model import Settings
from config.reference import ARCHITECTURES, figures, overlay
from config.salvage import salvage

NAMESPACE = "opstella"

# Where a secret may stand (`*`: any name); it must be encrypted or come from a file. Nothing else is kept secret.
SECRETS = ("ssh.privateKey", "tls.privateKey", "pki.intermediate.privateKey", "secrets.*")


Beyond = Callable[[Settings, Sequence[Problem], Set[str]], Sequence[Problem]]
"""What finds further problems of faulty settings: what can be made of them, the problems known, and the paths of values
that are not the user's (`plan.checks.problems_beside`)."""


def from_values(values: Mapping[str, Any], source: str, beyond: Beyond | None = None) -> Settings:
    """Settings of `values` (top-level key without namespace to plain value). Raises ConfigurationError.

    In the error's page is what `beyond` finds, too. What has no problem here is not shown to it.
    """
    return _settings(values, source, [], beyond)


def from_stack_file(path: Path, *, secrets: bool = False, beyond: Beyond | None = None) -> Settings:
    """Settings of a stack file, read without the engine: a placeholder stands for each encrypted secret.

    By default it stands for secrets in files too, so that the plan, a lab or a check of the file needs none;
    `secrets=True` reads those. Raises ConfigurationError.
    """
    values, others = stack_file.read(path, NAMESPACE)
    open_values = {name: value for name, value in values.items() if not _encrypted(value)}
    problems = [*_misspelt(others), *_in_clear(open_values, encrypted=()), *_wrongly_encrypted(values)]
    values = _without_ciphertext(values)
    if not secrets:
        for holder, name, _ in _secrets(values):
            holder[name] = ENCRYPTED
    return _settings(values, path.name, problems, beyond)


def from_pulumi(
    config: Mapping[str, Any], secret_keys: set[str], source: str, beyond: Beyond | None = None
) -> Settings:
    """Settings of the running program's configuration: full key to text, as the engine hands it over.

    `secret_keys` are the full top-level keys under which something is encrypted. Raises ConfigurationError.
    """
    prefix = f"{NAMESPACE}:"
    values = {name.removeprefix(prefix): _decode(text) for name, text in config.items() if name.startswith(prefix)}
    encrypted = {name.removeprefix(prefix) for name in secret_keys if name.startswith(prefix)}
    problems = [*_misspelt(config), *_in_clear(values, encrypted)]
    for name in sorted(encrypted - {secret.split(".")[0] for secret in SECRETS}):
        problems.append(_not_kept_secret(name))
        values.pop(name, None)
    return _settings(values, source, problems, beyond)


def load(beyond: Beyond | None = None) -> Settings:
    """Settings of the stack that is running. Raises `ConfigurationError` with the page of a faulty configuration."""
    import pulumi
    from pulumi.runtime import config as runtime

    source = f"configuration of stack '{pulumi.get_stack()}'"
    return from_pulumi(runtime.CONFIG.get(), runtime._SECRET_KEYS.get(), source, beyond)


def _settings(
    values: Mapping[str, Any], source: str, reported: list[Problem], beyond: Beyond | None
) -> Settings:
    """`reported` are the problems found on the way here; what they name is not judged again."""
    problems = [*reported, *_nothing_below(values)]
    written = {name: value for name, value in _without_nulls(dict(values)).items() if value != ""}
    architecture = written.get("architecture")
    known = ARCHITECTURES.get(architecture) if isinstance(architecture, str) else None
    base = figures(ARCHITECTURES["standalone"] if known is None else known, written)
    document = with_networks(overlay(base, written))
    settings: Settings | None
    broken: frozenset[str] = frozenset()
    try:
        settings = validate(document)
    except ValidationError as error:
        found = _apart(error.errors(include_url=False))
        settings, broken = salvage(document, base, found, validate)
        errors = [e for e in found if not _reported(explain(e).key, problems)]
        if known is None:
            # Without an architecture nobody knows which figures are missing.
            errors = [e for e in errors if e["type"] != "missing" or e["loc"][0] not in ("clusters", "domains")]
        problems += (_unknown_cluster(architecture, e) or explain(e) for e in errors)
    broken |= {re.split(r"[.[]", problem.key.removeprefix(f"{NAMESPACE}:"))[0] for problem in reported}
    if settings is not None:
        problems += check(settings, without=broken)
    if settings is not None and not problems:
        return settings
    if settings is not None and beyond is not None:
        problems += beyond(settings, problems, broken)
    raise ConfigurationError(list(dict.fromkeys(problems)), source)


def _unknown_cluster(architecture: Any, error: Any) -> Problem | None:
    """What is missing of a cluster that the architecture does not have is not for the user to give."""
    own = ARCHITECTURES.get(architecture, {}).get("clusters") if isinstance(architecture, str) else None
    if not own or error["type"] != "missing" or error["loc"][0] != "clusters" or error["loc"][1] in own:
        return None
    return unknown_cluster(str(architecture), str(error["loc"][1]))


def _apart(found: list[Any]) -> list[Any]:
    """`found` without lists that are short only because faulty items of theirs do not count."""
    at = [error["loc"] for error in found]
    return [e for e in found if e["type"] != "too_short" or not any(loc[:-1] == e["loc"] for loc in at)]


def _reported(path: str, problems: list[Problem]) -> bool:
    return any(path == p.key or path.startswith((f"{p.key}.", f"{p.key}[")) for p in problems)


def validate(document: dict[str, Any]) -> Settings:
    """`document` as the model, by the names that a user writes. Raises pydantic's ValidationError."""
    return Settings.model_validate(document, by_alias=True, by_name=False)


def _decode(text: Any) -> Any:
    """A structured value arrives as JSON, a scalar as its text."""
    if isinstance(text, str) and text[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _without_nulls(value: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """A key that is written without a value says nothing; in a chart's values it removes the chart's default."""
    if len(path) > 2 and path[0] == "tools" and path[2] == "values":
        return value
    return {
        name: _without_nulls(inner, (*path, name)) if isinstance(inner, dict) else inner
        for name, inner in value.items()
        if inner is not None
    }


def _nothing_below(values: Mapping[str, Any]) -> Iterator[Problem]:
    """A name without a value, where the name alone asks for something: it would be left out in silence."""
    for parent in ("kubernetes.projects", "identity.users"):
        given = _at(values, parent)
        for name in [name for name, value in given.items() if value is None] if isinstance(given, dict) else []:
            yield Problem(
                key(parent, name),
                "nothing is written after the name, so it would be left out",
                "write {} for one with every default, or remove the name",
                {(*parent.split("."), name): {}},
            )


def _at(values: Any, path: str) -> Any:
    for part in path.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _secrets(values: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Each secret that is written as text: what holds it, its key there, and its whole path."""
    for path in SECRETS:
        parent, _, last = path.rpartition(".")
        holder = _at(values, parent)
        for name in (list(holder) if last == "*" else [last]) if isinstance(holder, dict) else []:
            if isinstance(holder.get(name), str):
                yield holder, name, f"{parent}.{name}"


def _is_secret(path: tuple[str, ...]) -> bool:
    return any(
        len(path) == len(parts) and all(wanted in ("*", part) for wanted, part in zip(parts, path, strict=True))
        for parts in (pattern.split(".") for pattern in SECRETS)
    )


def _misspelt(names: Iterable[str]) -> Iterator[Problem]:
    """Other namespaces are other projects', but one that nearly is ours would be overlooked in silence."""
    for name in names:
        namespace, _, rest = name.partition(":")
        if namespace != NAMESPACE and difflib.get_close_matches(namespace, [NAMESPACE], 1, 0.8):
            yield Problem(name, f"'{namespace}' is not this project's namespace", f"did you mean {key(rest)}?")


def _in_clear(values: Mapping[str, Any], encrypted: Any) -> Iterator[Problem]:
    for holder, name, path in _secrets(values):
        if holder[name].startswith("file:") or path.split(".")[0] in encrypted:
            continue
        if name == "privateKey" and re.fullmatch(r"[~./][^\n]*", holder[name]):
            yield Problem(
                key(path),
                "it looks like the path of a file, which needs file: before it",
                f"write file: and the path, or encrypt the key: pulumi config set --secret --path opstella:{path} (it reads standard input)",
            )
        else:
            yield Problem(
                key(path),
                "a secret is in the stack file in clear",
                f"pulumi config set --secret --path opstella:{path} (it reads standard input), or file:PATH; "
                "and take the key that was in clear out of use",
            )


def _wrongly_encrypted(value: Any, path: tuple[str, ...] = ()) -> Iterator[Problem]:
    if _encrypted(value):
        if not _is_secret(path):
            yield _not_kept_secret(".".join(path))
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _wrongly_encrypted(inner, (*path, str(name)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _wrongly_encrypted(inner, (*path[:-1], f"{path[-1]}[{index}]"))


def _not_kept_secret(path: str) -> Problem:
    return Problem(
        key(path),
        f"it is encrypted, but only {', '.join(SECRETS)} are kept secret: "
        "it would be in clear on machines or in charts",
        "encrypt those alone, by --path; name a chart's secrets by its existingSecret setting",
    )


def _without_ciphertext(value: Any, path: tuple[str, ...] = ()) -> Any:
    """A placeholder for each encrypted secret; any other encrypted value, reported already, is left out."""
    if not isinstance(value, dict):
        return value
    rest = {}
    for name, inner in value.items():
        full = (*path, str(name))
        if not _encrypted(inner):
            rest[name] = _without_ciphertext(inner, full)
        elif _is_secret(full):
            rest[name] = ENCRYPTED
    return rest


def _encrypted(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"secure"}
