"""Which stack file a command line means."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from config.errors import ConfigurationError
from config.stack_choice import FOLDER, add_arguments, of_stack, stack_file


def chosen(*arguments: str) -> Path:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    below = parser.add_subparsers().add_parser("below")
    add_arguments(below, default=False)
    return stack_file(parser.parse_args(arguments))


@pytest.mark.parametrize("arguments", [("--stack", "multicluster"), ("--stack", "multicluster", "below"), ("below", "--stack", "multicluster")])
def test_a_stack_is_its_file(arguments: tuple[str, ...]) -> None:
    assert chosen(*arguments) == FOLDER / "Pulumi.multicluster.yaml"


def test_without_one_the_environment_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STACK", raising=False)
    assert chosen().name == "Pulumi.standalone.yaml"
    monkeypatch.setenv("STACK", "multicluster")
    assert chosen("below").name == "Pulumi.multicluster.yaml"
    assert chosen("--stack", "standalone").name == "Pulumi.standalone.yaml"
    monkeypatch.setenv("STACK", "")
    assert chosen().name == "Pulumi.standalone.yaml"


def test_any_other_file_is_taken_as_it_is() -> None:
    assert chosen("--config-file", "there/mine.yaml") == Path("there/mine.yaml")
    assert chosen("below", "--config-file", "mine.yaml") == Path("mine.yaml")


def test_a_stack_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no stack 'prd'\n    fix: there is none yet; any other file by"):
        of_stack("prd", tmp_path)
    for name in ("acme-prod", "acme-test"):
        (tmp_path / f"Pulumi.{name}.yaml").touch()
    with pytest.raises(ConfigurationError, match="fix: write --stack acme-prod; there are: acme-prod, acme-test; any"):
        of_stack("acme-prd", tmp_path)
    with pytest.raises(ConfigurationError, match="there is no stack '../x'\n    fix: there are: acme-prod, acme-test"):
        of_stack("../x", tmp_path)
