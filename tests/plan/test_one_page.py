"""Everything that is wrong with a stack file stands on one page, whoever finds it."""

from __future__ import annotations

from typing import Any

import pytest

from config.errors import ConfigurationError
from config.load import from_values
from config.pem import ENCRYPTED
from plan.checks import Draft, problems, problems_beside


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
