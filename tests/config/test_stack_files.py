"""The committed stack files: usable as they are, complete, and truthful about every default."""

from __future__ import annotations

import copy
import functools
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from config.clusters import Cluster
from config.load import from_stack_file, from_values, validate
from config.model import Settings, Tool
from config.reference import ARCHITECTURES, overlay

ROOT = Path(__file__).parents[2]
FILES = [ROOT / f"Pulumi.{name}.yaml" for name in ("standalone", "multicluster")]
# A setting that is commented out; prose has one space after its mark.
COMMENTED = re.compile(r"^( *)#(?=[A-Za-z]|  )")
EXAMPLE = re.compile(r"  # example$")

files = pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)


def uncommented(text: str, examples: bool) -> dict[str, Any]:
    """The file with every default taken out of its comment, and every example too if `examples`."""
    lines: list[str] = []
    inside: int | None = None
    for line in text.splitlines():
        plain = COMMENTED.sub(r"\1", line)
        if COMMENTED.match(line) and line.startswith("  #") and not line.startswith("  #opstella:"):
            plain = "  " + line[3:]  # the mark stands before the indentation
        indent = len(plain) - len(plain.lstrip())
        if inside is not None and indent > inside:
            continue
        inside = None
        if EXAMPLE.search(plain) and not examples:
            inside = indent
            continue
        lines.append(plain)
    return yaml.safe_load("\n".join(lines))["config"]


@functools.cache
def _values(file: Path, examples: bool) -> dict[str, Any]:
    return {k.removeprefix("opstella:"): v for k, v in uncommented(file.read_text(), examples).items()}


def values_of(file: Path, examples: bool) -> dict[str, Any]:
    return copy.deepcopy(_values(file, examples))


@files
def test_the_file_loads_without_any_key(file: Path) -> None:
    settings = from_stack_file(file)
    assert settings.architecture == file.stem.removeprefix("Pulumi.")


@files
def test_the_file_loads_with_its_key(file: Path, ssh_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text(ssh_key)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert from_stack_file(file, secrets=True).ssh.private_key.get_secret_value() == ssh_key


@files
def test_only_the_least_is_set(file: Path) -> None:
    """What is not commented out: what must be the user's own, and the firewall's default that closes the file."""
    config = yaml.safe_load(file.read_text())["config"]
    assert set(config) == {"opstella:architecture", "opstella:domain", "opstella:ssh", "opstella:firewall"}
    assert config["opstella:firewall"] == {"enabled": True}


@files
def test_defaults_in_comments_are_the_models(file: Path, ssh_key: str) -> None:
    shown = values_of(file, examples=False)
    assert set(shown) > {"clusters", "domains", "kubernetes"}
    shown["ssh"]["privateKey"] = ssh_key
    least = {name: shown[name] for name in ("architecture", "domain")} | {
        "ssh": {"user": shown["ssh"]["user"], "privateKey": ssh_key}
    }
    assert from_values(shown, file.name) == from_values(least, file.name)


@files
def test_examples_are_valid_values(file: Path, names: dict[str, str]) -> None:
    """Each value by itself; together they contradict each other (a certificate of one's own, yet source internal)."""

    def with_files(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: f"file:{names['ssh']}" if k == "privateKey" else with_files(v) for k, v in value.items()}
        if isinstance(value, list):
            return [with_files(v) for v in value]
        return f"file:{names['root']}" if isinstance(value, str) and value.startswith("file:") else value

    values = with_files(values_of(file, examples=True))
    settings = validate(overlay(ARCHITECTURES[values["architecture"]], values))
    assert settings.media.sha256 and settings.tools and settings.pki.intermediate


def paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every setting as a path; `*` stands for a name that the user chooses, `[]` for an item of a list."""
    found = []
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        found.append(path)
        annotation, step = field.annotation, ""
        while not isinstance(annotation, type) or typing.get_origin(annotation):
            arguments = [a for a in typing.get_args(annotation) if a not in (types.NoneType, Ellipsis)]
            if typing.get_origin(annotation) is dict:
                annotation, step = arguments[-1], ".*"
            elif typing.get_origin(annotation) is tuple:
                annotation, step = arguments[0], "[]"
            elif arguments and typing.get_origin(annotation) is not typing.Literal:
                annotation = arguments[0]
            else:
                break
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found += paths(annotation, f"{path}{step}.")
    return found


def present(values: Any, path: str) -> bool:
    head, _, rest = path.partition(".")
    if head == "*":
        return any(present(value, rest) for value in values.values())
    name = head.removesuffix("[]")
    if not isinstance(values, dict) or name not in values:
        return False
    inner = values[name]
    if not rest:
        return True
    return any(present(item, rest) for item in inner) if head.endswith("[]") else present(inner, rest)


def test_the_model_is_walked_to_its_leaves() -> None:
    every = paths(Settings)
    assert {"clusters.*.workers.taints[].effect", "pki.intermediate.chain", "tools.*.values", "ssh.privateKey"} <= set(
        every
    )
    assert {f"tools.*.{field.alias or name}" for name, field in Tool.model_fields.items()} <= set(every)
    assert {f"clusters.*.{field.alias}" for field in Cluster.model_fields.values()} <= set(every)
    assert len(every) > 100


@files
@pytest.mark.parametrize("path", paths(Settings))
def test_every_setting_stands_in_the_file(file: Path, path: str) -> None:
    assert present(values_of(file, examples=True), path), f"{file.name} does not show {path}"


@files
def test_settings_without_a_default_are_marked_as_examples(file: Path) -> None:
    """An unmarked line claims to be a default; those that have none must not."""
    defaults = values_of(file, examples=False)
    for path in (
        "bastion.address",
        "gitlab.version",
        "tls.certificate",
        "media.artifacts",
        "proxy.http",
        "dns.servers",
    ):
        assert not present(defaults, path)


@files
def test_lines_are_short_enough_to_read(file: Path) -> None:
    assert [line for line in file.read_text().splitlines() if len(line) > 120] == []


def test_the_project_file() -> None:
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    assert project["name"] == "opstella"
    assert project["runtime"] == {"name": "python", "options": {"toolchain": "pip", "virtualenv": "venv"}}
