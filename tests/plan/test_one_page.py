"""Everything that is wrong with a stack file stands on one page, whoever finds it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import verify.stack
from config.errors import ConfigurationError
from config.load import from_values
from config.pem import ENCRYPTED
from plan import images_list
from plan.checks import Draft, problems, problems_beside

ROOT = Path(__file__).parents[2]


def page(**sections: Any) -> list[str]:
    values = {"architecture": "standalone", "domain": "devops.example.com", "ssh": {"privateKey": ENCRYPTED}, **sections}
    try:
        settings = from_values(values, "test", problems_beside)
    except ConfigurationError as error:
        return [problem.key.removeprefix("opstella:") for problem in error.problems]
    return [problem.key.removeprefix("opstella:") for problem in problems(Draft(settings))]


AIRGAP = {"source": "airgap", "artifacts": "https://media.example.com/o", "chartRepository": "https://charts.example.com"}
UNKNOWN_NODE = {"standalone": {"workers": {"nodeLabels": {"worker-9": {"zone": "a"}}}}}


def test_a_bad_domain_hides_no_unknown_tool_and_no_missing_sum() -> None:
    found = page(domain="bad_domain", tools={"argocd": {"enabled": True}}, media=AIRGAP)
    assert sorted(set(found)) == ["domain", "media.sha256", "tools.argocd"]
    assert len(found) == 8


def test_what_the_plan_finds_stands_together() -> None:
    found = page(tools={"argocd": {"enabled": True}, "vault": {"replicas": 2}}, clusters=UNKNOWN_NODE, media=AIRGAP)
    assert set(found) >= {"tools.argocd", "tools.vault.replicas", "media.sha256"}
    assert any(name.startswith("clusters.standalone.workers.nodeLabels") for name in found)


@pytest.mark.parametrize(
    ("sections", "only"),
    [
        ({"clusters": {"standalone": {"workers": {"count": 0}}}}, "clusters.standalone.workers.count"),
        ({"clusters": {"standalone": {"masters": {"count": "3"}, **UNKNOWN_NODE["standalone"]}}}, "clusters.standalone.masters.count"),
        ({"architecture": "standalon", "tools": {"vault": {"replicas": 2}}}, "architecture"),
        ({"tools": {"vault": {"replicas": "2"}}}, "tools.vault.replicas"),
        ({"domains": {"keycloak": "a.b"}}, "domains.keycloak"),
    ],
)
def test_what_may_follow_from_a_fault_is_not_reported(sections: dict[str, Any], only: str) -> None:
    assert page(**sections) == [only]


@pytest.mark.parametrize(("written", "meant"), [("argocd", "argo-cd"), ("Grafana", "grafana"), ("cert_manager", "cert-manager")])
def test_an_unknown_tool_gets_the_name_that_was_meant(written: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"did you mean {meant}") as caught:
        raise ConfigurationError(
            problems(Draft(from_values({"architecture": "standalone", "domain": "devops.example.com",
                                        "ssh": {"privateKey": ENCRYPTED}, "tools": {written: {}}}, "test"))), "test"
        )  # fmt: skip
    assert len(caught.value.problems) == 1


def test_one_that_resembles_none_gets_them_all() -> None:
    [problem] = problems(Draft(from_values(
        {"architecture": "standalone", "domain": "devops.example.com", "ssh": {"privateKey": ENCRYPTED}, "tools": {"xyz": {}}}, "test"
    )))  # fmt: skip
    assert problem.fix.startswith("remove it; the tools are: alloy, argo-cd")


# --- whoever reads settings ---

FAULTY = {"architecture": "standalone", "domain": "bad_domain", "tools": {"argocd": {"enabled": True}}, "media": AIRGAP}


def on_one_page(text: str) -> bool:
    """Whether what the settings' checks find and what the plan's do stand together."""
    return all(word in text for word in ("opstella:domain", "opstella:tools.argocd", "opstella:media.sha256"))


def test_the_checks_from_outside_show_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {f"opstella:{name}": {"value": value if isinstance(value, str) else json.dumps(value)} for name, value in FAULTY.items()}
    given["opstella:ssh"] = {"value": json.dumps({"privateKey": ENCRYPTED}), "secret": True}
    monkeypatch.setattr(verify.stack, "_ask", lambda arguments: {"host_keys": {}} if arguments[0] == "stack" else given)
    with pytest.raises(verify.stack.StackUnreadable) as refused:
        verify.stack.read("s", None)
    assert on_one_page(str(refused.value))


def test_the_list_of_images_shows_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "Pulumi.s.yaml"
    file.write_text(yaml.safe_dump({"config": {f"opstella:{name}": value for name, value in FAULTY.items()}}))
    assert images_list.main(["--config-file", str(file)]) == 1
    assert on_one_page(capsys.readouterr().err)


def test_whoever_reads_a_users_settings_asks_for_the_one_page() -> None:
    readers = {"from_stack_file": 1, "from_pulumi": 3, "load": 0}  # to the place of `beyond`
    found: dict[str, bool] = {}
    for path in sorted(p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0] not in ("tests", "venv")):
        tree = ast.parse(path.read_text())
        names = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "config.load"
            for alias in node.names
        } | (set(readers) if path == ROOT / "config/load.py" else set())
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if name in names and name in readers:
                given = len(call.args) > readers[name] or "beyond" in {word.arg for word in call.keywords}
                found[f"{path.relative_to(ROOT)}:{call.lineno}"] = given
    assert len(found) >= 6
    assert [place for place, given in found.items() if not given] == []
