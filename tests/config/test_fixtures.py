"""One stack file a case: those under valid/ load, each under invalid/ has one fault and gets that one's message."""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from config.errors import ConfigurationError, Problem
from config.load import from_pulumi, from_stack_file
from config.model import Settings
from plan.checks import Draft, problems, problems_beside
from tests.config import remedies
from tests.config.material import CANARY

FIXTURES = Path(__file__).parents[1] / "fixtures"
VALID = sorted((FIXTURES / "valid").glob("*.yaml"))
INVALID = sorted((FIXTURES / "invalid").glob("*.yaml"))


def load(fixture: Path, names: dict[str, str], folder: Path) -> Settings:
    path = folder / fixture.name
    path.write_text(Template(fixture.read_text()).substitute(names))
    return from_stack_file(path, secrets=True, beyond=problems_beside)


def planned(settings: Settings, source: str) -> None:
    """Raises ConfigurationError with all that the plan finds wrong. Equal settings are planned once."""
    known = settings.model_dump_json()
    if known not in PLANNED:
        PLANNED[known] = problems(Draft(settings))
    if PLANNED[known]:
        raise ConfigurationError(PLANNED[known], source)


def refused(fixture: Path, names: dict[str, str], folder: Path) -> ConfigurationError:
    """The page of a fixture with a fault, made once."""
    if fixture not in REFUSED:
        with pytest.raises(ConfigurationError) as caught:
            planned(load(fixture, names, folder), fixture.name)
        REFUSED[fixture] = caught.value
    return REFUSED[fixture]


PLANNED: dict[str, list[Problem]] = {}
REFUSED: dict[Path, ConfigurationError] = {}


def test_there_are_fixtures() -> None:
    assert len(VALID) >= 10
    assert len(INVALID) >= 100


@pytest.mark.parametrize("fixture", VALID, ids=lambda p: p.stem)
def test_valid(fixture: Path, names: dict[str, str], tmp_path: Path) -> None:
    settings = load(fixture, names, tmp_path)
    assert settings.domain == "devops.example.com"
    assert settings.clusters


@pytest.mark.parametrize("fixture", INVALID, ids=lambda p: p.stem)
def test_invalid(fixture: Path, names: dict[str, str], tmp_path: Path) -> None:
    expected = [
        line.removeprefix("# expect: ") for line in fixture.read_text().splitlines() if line.startswith("# expect: ")
    ]
    assert expected, "a fixture says at its top what it expects"
    error = refused(fixture, names, tmp_path)
    assert len(error.problems) == 1, str(error)
    problem = str(error.problems[0])
    assert [text for text in expected if text not in problem] == [], problem
    assert str(error).startswith(f"{fixture.name}: 1 problem; nothing was changed.")
    secrets = [text for name, text in names.items() if name.endswith(("key_text", "ssh_text"))]
    assert secrets
    for secret in secrets:
        for line in json.loads(secret).splitlines()[1:-1]:
            assert line not in str(error)
    assert CANARY not in str(error)
    assert "7777" not in str(error)


@pytest.mark.toolchain  # half a minute: a plan for each
@pytest.mark.parametrize("fixture", INVALID, ids=lambda p: p.stem)
def test_the_remedy_helps(fixture: Path, names: dict[str, str], tmp_path: Path) -> None:
    """Applied to what is wrong, it leaves nothing to report."""
    error = refused(fixture, names, tmp_path)
    [problem] = error.problems
    assert problem.change or remedies.stated(fixture), f"what does {problem.fix!r} mean here?"
    if not remedies.stated(fixture):
        for value in problem.change.values():
            assert remedies.written(value).lower() in problem.fix.lower(), problem.fix
    path = tmp_path / f"Pulumi.{fixture.stem}.yaml"
    path.write_text(remedies.applied(fixture, problem, names))
    try:
        planned(from_stack_file(path, secrets=True, beyond=problems_beside), path.name)
    except ConfigurationError as further:
        pytest.fail(f"{problem}\nleads to:\n{further}")


def as_the_engine_hands_it_over(document: dict[str, Any]) -> dict[str, str]:
    """Structures as JSON, scalars as text, under full keys."""
    return {
        name if ":" in name else f"opstella:{name}": "" if value is None else
        json.dumps(value) if isinstance(value, dict | list) else str(value)
        for name, value in document["config"].items()
    }  # fmt: skip


@pytest.mark.parametrize(
    "fixture",
    [p for p in VALID if p.stem not in ("encrypted-keys", "encrypted-secrets", "yaml-dialect")],
    ids=lambda p: p.stem,
)
def test_the_engine_and_the_file_say_the_same(fixture: Path, names: dict[str, str], tmp_path: Path) -> None:
    document = yaml.safe_load(Template(fixture.read_text()).substitute(names))
    handed_over = from_pulumi(as_the_engine_hands_it_over(document), set(), "stack")
    assert handed_over == load(fixture, names, tmp_path)


def loaded(stem: str, names: dict[str, str], folder: Path) -> Settings:
    return load(FIXTURES / "valid" / f"{stem}.yaml", names, folder)


def test_the_minimum_is_the_reference(names: dict[str, str], tmp_path: Path) -> None:
    settings = loaded("minimal", names, tmp_path)
    cluster = settings.clusters["standalone"]
    assert (cluster.masters.count, cluster.workers.count) == (1, 5)
    assert (cluster.workers.cpu, cluster.workers.memory_gb, cluster.workers.disk_gb) == (4, 10, 40)
    assert str(cluster.pod_subnet) == "172.16.72.0/22"
    many = loaded("multicluster", names, tmp_path)
    assert list(many.clusters) == ["devsecops", "observability", "dev", "prd"]
    assert [c.workers.count for c in many.clusters.values()] == [3, 3, 3, 5]


def test_a_key_without_a_value_says_nothing(names: dict[str, str], tmp_path: Path) -> None:
    assert loaded("every-section-empty", names, tmp_path) == loaded("minimal", names, tmp_path)


def test_null_in_chart_values_is_kept(names: dict[str, str], tmp_path: Path) -> None:
    values = loaded("tool-values", names, tmp_path).tools["traefik"].values
    assert values == {"ports": {"web": None}, "deployment": {"replicas": 2}}


def test_yaml_is_read_as_the_engine_reads_it(names: dict[str, str], tmp_path: Path) -> None:
    settings = loaded("yaml-dialect", names, tmp_path)
    assert (settings.pki.organization, settings.ssh.user, settings.ssh.port) == ("yes", "on", 22)


def test_values_are_normalized(names: dict[str, str], tmp_path: Path) -> None:
    settings = loaded("airgap", names, tmp_path)
    assert settings.media.sha256["rke2.linux-amd64.tar.gz"] == "ab" * 32
    assert settings.proxy.http == "http://proxy.example.com:3128"


def test_keys_without_a_namespace_are_the_projects(names: dict[str, str], tmp_path: Path) -> None:
    assert loaded("other-namespaces-and-own-keys", names, tmp_path).gitlab.edition == "ee"
