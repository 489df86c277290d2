"""What a stand-in says about its resources: properties, resource types, packages.

A ``ResourceType`` states the contract of one official resource as data; check,
diff and the printed schema follow from it.  Two families differ in how they
check and diff: ``BridgedResource`` (tls and random, which bridge a Terraform
provider) and the command resources (see ``command_package``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pulumi.provider.experimental.provider import (
    CheckFailure,
    DiffResponse,
    PropertyDiff,
    PropertyDiffKind,
)

from .values import Properties, contains_unknown, plain, secret, unknown, wrap

Members = Mapping[str, "Property"]


class ProviderError(Exception):
    """A failure that the user sees as the engine's error message, word for word."""


class UserCancelled(ProviderError):
    """The engine was told to stop, or the resource's own time-out ran out."""


@dataclass(frozen=True)
class Property:
    """One input or computed output.

    ``type`` is string, integer, number, boolean, array, map, any, asset or object
    (whose members are ``fields``); ``items`` is the element type of an array or map.
    ``default`` is filled in when the input is absent; ``sticky`` says that an
    absent input keeps what the state holds; ``replace`` that a change replaces
    the resource; ``secret`` that the value is always marked secret.
    """

    type: str = "string"
    required: bool = False
    default: Any = None
    secret: bool = False
    replace: bool = False
    sticky: bool = False
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    items: str = "string"
    items_choices: tuple[str, ...] = ()
    fields: Mapping[str, Property] = field(default_factory=dict)
    ref: str = ""

    def problems(self, path: str, value: Any) -> list[CheckFailure]:
        """Why the plain ``value`` cannot be this property's; unknown values pass."""
        if contains_unknown(value) and not isinstance(value, (dict, list)):
            return []
        wanted = _CHECKS.get(self.type)
        if wanted and not wanted(value):
            return [CheckFailure(path, f"expected {_ARTICLES[self.type]} for '{path}', "
                                       f"got {_kind(value)}")]
        if self.choices and value not in self.choices:
            return [CheckFailure(path, f"expected '{path}' to be one of "
                                       f"{', '.join(self.choices)}; got {value!r}")]
        if self.minimum is not None and value < self.minimum:
            return [CheckFailure(path, f"expected '{path}' to be at least {self.minimum}, "
                                       f"got {value:g}")]
        found: list[CheckFailure] = []
        if self.type == "array":
            element = Property(self.items, choices=self.items_choices)
            for index, item in enumerate(value):
                found += element.problems(f"{path}[{index}]", item)
        elif self.type == "map":
            for key, item in value.items():
                found += Property(self.items).problems(f"{path}.{key}", item)
        elif self.type == "object":
            for key, member in self.fields.items():
                item = value.get(key)
                if item is not None:
                    found += member.problems(f"{path}.{key}", item)
                elif member.required:
                    found.append(missing(f"{path}.{key}"))
        return found

    def spec(self) -> dict[str, Any]:
        """This property in Pulumi's package schema."""
        out: dict[str, Any] = {}
        if self.ref:
            out["$ref"] = f"#/types/{self.ref}"
        elif self.type == "any":
            out["$ref"] = "pulumi.json#/Any"
        elif self.type == "array":
            out |= {"type": "array", "items": Property(self.items).spec()}
        elif self.type == "map":
            out |= {"type": "object", "additionalProperties": Property(self.items).spec()}
        else:
            out["type"] = self.type
        if self.secret:
            out["secret"] = True
        if self.replace:
            out["replaceOnChanges"] = True
        return out


def missing(path: str) -> CheckFailure:
    """The failure for a required input that is absent."""
    return CheckFailure(path, f"missing required property '{path}'")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "number": _is_number,
    "integer": lambda v: _is_number(v) and float(v).is_integer(),
    "array": lambda v: isinstance(v, list),
    "map": lambda v: isinstance(v, dict),
    "object": lambda v: isinstance(v, dict),
}
_ARTICLES = {"string": "a string", "boolean": "a boolean", "number": "a number",
             "integer": "an integer", "array": "a list", "map": "a map", "object": "an object"}


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    for name, kinds in (("a string", str), ("a number", (int, float)), ("a list", list),
                        ("an object", dict)):
        if isinstance(value, kinds):
            return name
    return type(value).__name__


@dataclass
class Call:
    """What one operation may use of the engine: names, status lines, the time left.

    ``log(severity, message, ephemeral)`` prints beside the resource; ``cancelled``
    is true once the engine asked to stop; ``sleep(seconds)`` waits and raises
    ``UserCancelled`` when the engine asks to stop, or the time-out runs out, meanwhile.
    """

    name: str
    urn: str
    log: Callable[[str, str, bool], None]
    sleep: Callable[[float], Awaitable[None]]


class ResourceType:
    """The contract of one official resource.

    ``inputs`` and ``outputs`` hold the properties by their wire names; every input
    is an output too.  ``uncovered`` names inputs of the official resource that the
    stand-in refuses, with the reason in the message.
    """

    token: str
    inputs: ClassVar[Members]
    outputs: ClassVar[Members]
    uncovered: ClassVar[Mapping[str, str]] = {}

    def check(self, news: Properties) -> tuple[Properties, list[CheckFailure]]:
        """The inputs as the engine keeps them, and what is wrong with them."""
        raise NotImplementedError

    def diff(self, state: Properties, old_inputs: Properties, news: Properties) -> DiffResponse:
        """What changed between the last update and ``news``; never asks a machine."""
        raise NotImplementedError

    async def create(self, call: Call, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Create the resource: its id and outputs."""
        raise NotImplementedError

    async def update(self, call: Call, state: Properties, inputs: Properties,
                     preview: bool) -> Properties:
        """Bring the resource to ``inputs``: its outputs."""
        raise NotImplementedError

    async def delete(self, call: Call, state: Properties) -> None:
        """Undo the resource; nothing to do unless a subclass says so."""

    def read(self, state: Properties) -> Properties:
        """The state as a refresh finds it."""
        return state

    def _uncovered_failures(self, news: Properties) -> list[CheckFailure]:
        return [CheckFailure(key, f"{self.token}: the stand-in does not cover '{key}' ({why}); "
                                  "see lab/providers/README.md")
                for key, why in self.uncovered.items() if plain(news.get(key)) is not None]

    def spec(self) -> dict[str, Any]:
        """This resource in Pulumi's package schema."""
        both = {**self.inputs, **self.outputs}
        always = [key for key, p in self.inputs.items() if p.required or p.default is not None]
        return {
            "inputProperties": {key: p.spec() for key, p in self.inputs.items()},
            "requiredInputs": sorted(key for key, p in self.inputs.items() if p.required),
            "properties": {key: p.spec() for key, p in both.items()},
            "required": sorted({*always, *self.outputs}),
        }


@dataclass(frozen=True)
class Package:
    """One stand-in: name and version of the official plugin, its resources and functions."""

    name: str
    version: str
    resources: Mapping[str, ResourceType]
    functions: Mapping[str, Callable[[Call, Properties], Awaitable[Properties]]] = \
        field(default_factory=dict)
    types: Mapping[str, Mapping[str, Property]] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        """The package in Pulumi's schema form, restricted to what the stand-in covers."""
        return {
            "name": self.name,
            "version": self.version,
            "displayName": f"{self.name} (stand-in)",
            "description": "A stand-in for the official plugin; lab/providers/README.md "
                           "lists what it does not cover.",
            "types": {token: {
                "type": "object",
                "properties": {key: p.spec() for key, p in members.items()},
                "required": sorted(key for key, p in members.items() if p.required),
            } for token, members in self.types.items()},
            "resources": {token: r.spec() for token, r in self.resources.items()},
            "functions": {token: {} for token in self.functions},
        }


_KINDS = {
    ("add", False): PropertyDiffKind.ADD, ("add", True): PropertyDiffKind.ADD_REPLACE,
    ("delete", False): PropertyDiffKind.DELETE, ("delete", True): PropertyDiffKind.DELETE_REPLACE,
    ("update", False): PropertyDiffKind.UPDATE, ("update", True): PropertyDiffKind.UPDATE_REPLACE,
}


def diff_response(changes: Mapping[str, tuple[str, bool]], *,
                  of_inputs: bool = True) -> DiffResponse:
    """A response from ``{path: (add|delete|update, replaces)}``; ``of_inputs`` says what the paths are paths of."""
    return DiffResponse(
        changes=bool(changes),
        replaces=[path for path, (_, replaces) in changes.items() if replaces],
        diffs=list(changes),
        detailed_diff={path: PropertyDiff(_KINDS[change], of_inputs)
                       for path, change in changes.items()},
    )


class BridgedResource(ResourceType):
    """A resource of a bridged Terraform provider: defaults live in the state, not the inputs."""

    def check(self, news: Properties) -> tuple[Properties, list[CheckFailure]]:
        """Refuse unknown keys and wrong types; mark the schema's secrets."""
        failures = self._uncovered_failures(news)
        inputs: Properties = {}
        for key, value in news.items():
            if key in self.uncovered or key == "__defaults":
                continue
            declared = self.inputs.get(key)
            if declared is None:
                failures.append(CheckFailure(key, f"{self.token} has no input '{key}'; it has "
                                                  f"{', '.join(sorted(self.inputs))}"))
                continue
            bare = plain(value)
            if bare is None:
                continue
            failures += declared.problems(key, bare)
            inputs[key] = secret(value) if declared.secret else value
        failures += [missing(key) for key, declared in self.inputs.items()
                     if declared.required and key not in inputs]
        if not failures:
            failures += self.validate({key: plain(value) for key, value in inputs.items()})
        return inputs, failures

    def validate(self, inputs: dict[str, Any]) -> list[CheckFailure]:
        """Rules across several inputs; plain values, possibly unknown."""
        return []

    def normalise(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The plain inputs with every default filled in."""
        defaults = {key: declared.default for key, declared in self.inputs.items()
                    if declared.default is not None}
        return {**defaults, **inputs}

    def diff(self, state: Properties, old_inputs: Properties, news: Properties) -> DiffResponse:
        """Compare the inputs, defaults included, with what the state holds."""
        wanted = self.normalise({key: plain(value) for key, value in news.items()
                                 if key in self.inputs})
        changes: dict[str, tuple[str, bool]] = {}
        for key, declared in self.inputs.items():
            old, new = plain(state.get(key)), wanted.get(key)
            if old == new or (new is None and declared.sticky):
                continue
            kind = "add" if old is None else "delete" if new is None else "update"
            changes[key] = (kind, declared.replace and self.replaces(key, old, new))
        changes |= self.extra_changes(state, wanted)
        return diff_response(changes)

    def replaces(self, key: str, old: Any, new: Any) -> bool:
        """Whether this change of a replacing input really replaces."""
        return True

    def extra_changes(self, state: Properties,
                      wanted: dict[str, Any]) -> dict[str, tuple[str, bool]]:
        """Changes that no input shows, such as a certificate due for renewal."""
        return {}

    def state(self, inputs: Properties, computed: Mapping[str, Any]) -> Properties:
        """Outputs from inputs (their secrets kept), defaults and computed values."""
        out: Properties = {}
        for key, value in self.normalise(dict(inputs)).items():
            out[key] = wrap(value, self.inputs[key].secret)
        for key, declared in self.outputs.items():
            if computed.get(key) is not None:
                out[key] = wrap(computed[key], declared.secret)
        return out

    def planned(self, inputs: Properties) -> Properties:
        """Outputs in a preview: what the inputs tell, the rest unknown."""
        return self.state(inputs, {key: unknown() for key in self.outputs})

    async def create(self, call: Call, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Create from plain inputs by ``make``; in a preview nothing is made."""
        if preview:
            return "", self.planned(inputs)
        wanted = self.normalise({key: plain(value) for key, value in inputs.items()})
        resource_id, computed = await self.make(wanted)
        return resource_id, self.state(inputs, computed)

    async def make(self, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Id and computed outputs from plain inputs, defaults included."""
        raise NotImplementedError

    async def update(self, call: Call, state: Properties, inputs: Properties,
                     preview: bool) -> Properties:
        """Keep what was computed, take over the inputs: no covered input needs more."""
        return self.state(inputs, {key: state[key] for key in self.outputs if key in state})
