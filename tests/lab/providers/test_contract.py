"""The stand-ins against the official SDKs: every name is covered, or the README says not."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pulumi
import pulumi_command
import pulumi_random
import pulumi_tls
import pytest
from pulumi import _types

from tests.lab.providers.driver import PROVIDERS

from standin import command_package, random_package, tls_package  # noqa: E402  isort: skip

PACKAGES = {
    "command": (command_package.PACKAGE, [
        importlib.import_module("pulumi_command.remote"),
        importlib.import_module("pulumi_command.local")]),
    "random": (random_package.PACKAGE, [pulumi_random]),
    "tls": (tls_package.PACKAGE, [pulumi_tls]),
}


def resource_classes() -> dict[str, Any]:
    """Every resource class of the SDKs by its token."""
    found = {}
    for _, modules in PACKAGES.values():
        for module in modules:
            hasattr(module, "_utilities")  # the SDK loads a module when an attribute is asked for
            for member in list(vars(module).values()):
                if (inspect.isclass(member) and issubclass(member, pulumi.CustomResource)
                        and not issubclass(member, pulumi.ProviderResource)):
                    token = re.search(r"__init__\(\s*'([^']+)'", inspect.getsource(member))
                    assert token, member
                    found[token.group(1)] = member
    return found


def documented() -> dict[str, set[str]]:
    """The README's table of what is not covered: names by token."""
    text = (PROVIDERS / "README.md").read_text().split("## What is not covered")[1].split("## ")[0]
    table: dict[str, set[str]] = {}
    for left, right in re.findall(r"^\| (`.*?) \| (.*?) \|$", text, re.MULTILINE):
        for token in re.findall(r"`([^`]+)`", left):
            table[token] = set(re.findall(r"`([^`]+)`", right))
    return table


SDK = resource_classes()
COVERED = {token: resource for package, _ in PACKAGES.values()
           for token, resource in package.resources.items()}
NOT_COVERED = documented()


def args_class(cls: Any) -> Any:
    return getattr(inspect.getmodule(cls), f"{cls.__name__}Args")


def test_the_sdk_was_found() -> None:
    assert len(SDK) > 12 and set(COVERED) <= set(SDK)


def test_versions_are_the_sdks() -> None:
    for name, (package, modules) in PACKAGES.items():
        root = modules[0] if name != "command" else pulumi_command
        assert package.version == root._utilities.get_version()


@pytest.mark.parametrize("token", sorted(SDK))
def test_every_resource_is_covered_or_listed(token: str) -> None:
    if token not in COVERED:
        assert NOT_COVERED[token] == set()


@pytest.mark.parametrize("token", sorted(COVERED))
def test_every_property_is_covered_or_listed(token: str) -> None:
    cls, resource = SDK[token], COVERED[token]
    listed = NOT_COVERED.get(token, set())
    inputs = set(_types.input_type_py_to_pulumi_names(args_class(cls)).values())
    outputs = set(_types.resource_py_to_pulumi_names(cls).values())
    assert inputs - listed == set(resource.inputs)
    assert outputs - listed == {*resource.inputs, *resource.outputs}
    assert set(resource.uncovered) == listed & inputs


@pytest.mark.parametrize("token", sorted(COVERED))
def test_required_inputs_are_the_sdks(token: str) -> None:
    """A key that may be given write-only is optional there, but nothing else is covered here."""
    cls, resource = SDK[token], COVERED[token]
    names = _types.input_type_py_to_pulumi_names(args_class(cls))
    parameters = inspect.signature(args_class(cls)).parameters
    required = {names[name] for name, parameter in parameters.items()
                if parameter.default is inspect.Parameter.empty}
    instead = {key.removesuffix("Wo") for key in resource.uncovered if key.endswith("Wo")}
    assert {key for key, declared in resource.inputs.items() if declared.required} == (
        required | instead)


@pytest.mark.parametrize("token", sorted(COVERED))
def test_secrets_are_the_sdks(token: str) -> None:
    source = inspect.getsource(SDK[token])
    found = re.search(r"additional_secret_outputs=\[(.*?)\]", source)
    secrets = set(re.findall(r'"(\w+)"', found.group(1))) if found else set()
    resource = COVERED[token]
    declared = {key for key, one in {**resource.inputs, **resource.outputs}.items() if one.secret}
    assert declared == secrets - NOT_COVERED.get(token, set())


@pytest.mark.parametrize("token", sorted(COVERED))
def test_simple_types_are_the_sdks(token: str) -> None:
    """int, bool, float, str, sequences and mappings, read off the SDK's annotations."""
    kinds = {"_builtins.str": {"string"}, "_builtins.int": {"integer"},
             "_builtins.bool": {"boolean"}, "_builtins.float": {"number"}}
    cls, resource = SDK[token], COVERED[token]
    names = _types.input_type_py_to_pulumi_names(args_class(cls))
    checked = 0
    for name, parameter in inspect.signature(args_class(cls)).parameters.items():
        if names[name] not in resource.inputs:
            continue
        text = str(parameter.annotation)
        declared = resource.inputs[names[name]].type
        if "Sequence" in text:
            assert declared == "array", name
        elif "Mapping" in text and "Args" not in text:
            assert declared == "map", name
        elif any(kind in text for kind in kinds) and "Args" not in text:
            assert declared in next(kinds[kind] for kind in kinds if kind in text), name
        checked += 1
    assert checked == len(resource.inputs)


@pytest.mark.parametrize("sdk_class,members", [
    (pulumi_command.remote.ConnectionArgs, command_package._CONNECTION.fields),
    (pulumi_command.remote.ProxyConnectionArgs, command_package._PROXY.fields),
    (pulumi_tls.CertRequestSubjectArgs, tls_package._SUBJECT_FIELDS),
    (pulumi_tls.SelfSignedCertSubjectArgs, tls_package._SUBJECT_FIELDS),
])
def test_nested_types_are_the_sdks(sdk_class: Any, members: dict[str, Any]) -> None:
    assert set(_types.input_type_py_to_pulumi_names(sdk_class).values()) == set(members)


def test_every_function_is_covered_or_listed() -> None:
    tokens = set()
    for package in (pulumi_command, pulumi_random, pulumi_tls):
        for path in Path(inspect.getfile(package)).parent.rglob("*.py"):
            tokens |= set(re.findall(r"runtime\.invoke\('([^']+)'", path.read_text()))
    assert "command:local:run" in tokens
    covered = {token for package, _ in PACKAGES.values() for token in package.functions}
    assert tokens - covered <= set(NOT_COVERED)
    assert covered <= tokens


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_plugin_folder_holds_what_it_imports(name: str) -> None:
    """The folder is installed alone: each module it imports must be linked into it."""
    folder = PROVIDERS / name / "standin"
    present = {path.stem for path in folder.glob("*.py")}
    assert {"__main__", "__init__", f"{name}_package"} <= present
    for path in folder.glob("*.py"):
        assert path.resolve() == PROVIDERS / "standin" / path.name
        imported = set(re.findall(r"^\s*from \.(\w+) import", path.read_text(), re.MULTILINE))
        imported |= set(re.findall(r"from \. import (\w+)", path.read_text()))
        assert imported <= present, path
