"""What pipelines find: all variables are set by one Job of a cluster, which is given all that it needs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plan import gitlab
from plan.plan import Plan
from plan.tools import ci, sonarqube, vault
from plan.tools.model import Generated, Release
from plan.tools.needs import GITLAB, Job
from tests.plan.test_policies import Pod, passes
from tests.plan.test_tools import INPUTS
from tests.support.platform import ARCHITECTURES, plan_of

PREFIX = {"sonarqube": "SONAR_", "defectdojo": "DEFECTDOJO_", "harbor": "HARBOR_", "vault": "VAULT_"}
GROUPS = {"gitlabRunner": {"pushGroups": ["shop"]}}
NO_MIRROR = {"kubernetes": {"registryMirror": "none"}}
PAGE = Path(__file__).resolve().parents[2] / "docs/ci.md"


def publishing(plan: Plan) -> list[tuple[str, Release, Job]]:
    """Cluster, release and Job, of each that sets variables."""
    return [
        (cluster, release, job)
        for cluster, releases in plan.releases.items()
        for release in releases
        for job in release.jobs
        if "ci_variables.json" in job.files
    ]


def variables(plan: Plan) -> dict[str, Mapping[str, Any]]:
    """All of them; no two Jobs set the same one."""
    found: dict[str, Mapping[str, Any]] = {}
    for _, _, job in publishing(plan):
        for key, about in json.loads(job.files["ci_variables.json"]).items():
            assert key not in found and key.startswith(tuple(PREFIX.values()))
            found[key] = about
    return found


def off(*tools: str) -> dict[str, Any]:
    """Settings without them."""
    return {"tools": {tool: {"enabled": False} for tool in tools}, **(NO_MIRROR if "harbor" in tools else {})}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_job_that_sets_variables_has_its_token_its_scripts_and_its_way_to_gitlab(architecture: str) -> None:
    plan = plan_of(architecture, changes=GROUPS)
    found = publishing(plan)
    assert [release.name for _, release, _ in found] == ["defectdojo"]
    assert {prefix for prefix in PREFIX.values() for key in variables(plan) if key.startswith(prefix)} == set(PREFIX.values())
    address = str(plan.topology.gitlab.address)
    for cluster, release, job in found:
        assert GITLAB in job.needs and job.environment["GITLAB_URL"] == "https://gitlab.devops.example.com"
        assert set(ci.FILES) <= set(job.files)
        secrets = {secret.name: secret for secret in release.secrets}
        token = secrets[job.secret_files["gitlab-ci"]].data["token"]
        assert token == Generated(password=gitlab.password("ci-variables"))
        assert set(job.secret_files.values()) <= set(secrets)
        bodies = [m.body for r in plan.releases[cluster] for m in r.before if m.body["kind"] == "NetworkPolicy"]
        assert passes(bodies, Pod(release.namespace, {"opstella.io/job": job.name}), address, 443)


@pytest.mark.parametrize("number", range(len(ci.PUBLISHERS)))
def test_the_first_that_is_there_sets_the_variables_of_all_and_alone_has_the_token(number: int) -> None:
    gone, publisher = ci.PUBLISHERS[:number], ci.PUBLISHERS[number]
    plan = plan_of(changes={**off(*gone), **GROUPS})
    ((_, release, job),) = publishing(plan)
    assert release.name == publisher
    held = {r.name for r in plan.releases["standalone"] for s in r.secrets if s.name == ci.SECRET}
    assert held == {publisher}
    assert {prefix for prefix in PREFIX.values() for key in variables(plan) if key.startswith(prefix)} == {
        PREFIX[tool] for tool in PREFIX if tool not in gone
    }
    # What the Job does not know itself stands in Secrets beside it.
    beside = {secret.name for secret in release.secrets if secret.namespace == release.namespace}
    named = {about["secret"] for about in variables(plan).values() if about["secret"]}
    assert named <= set(job.secret_files.values()) <= beside


def test_tools_in_clusters_of_their_own_are_told_of_by_a_job_of_each() -> None:
    base = plan_of("multicluster")
    (home,) = (cluster for cluster, releases in base.releases.items() if any(r.name == "harbor" for r in releases))
    apart = {cluster: {r.name for r in releases} & set(PREFIX) for cluster, releases in base.releases.items()}
    found = publishing(base)
    assert [cluster for cluster, _, _ in found] == [cluster for cluster, tools in apart.items() if tools]
    assert home in apart


def test_the_secret_of_harbors_robot_is_another_one_for_other_groups() -> None:
    def password(*groups: str) -> tuple[str, bool, int]:
        plan = plan_of(changes={"gitlabRunner": {"pushGroups": list(groups)}})
        releases = {release.name: release for release in plan.releases["standalone"]}
        sources = {
            secret.namespace: secret.data[ci.ROBOT_KEY]
            for release in releases.values()
            for secret in release.secrets
            if secret.name == ci.ROBOT_SECRET
        }
        assert set(sources) == {"harbor", "defectdojo"} and len({str(source) for source in sources.values()}) == 1
        (source,) = {str(source): source for source in sources.values()}.values()
        assert isinstance(source, Generated)
        (made,) = (one for one in releases["harbor"].passwords if one.name == source.password)
        return made.name, made.special, made.length

    name, special, length = password("shop", "tools")
    # Special: with one of each kind, which Harbor asks for.
    assert special and 8 <= length <= 128
    assert password("tools", "shop")[0] == name != password("shop")[0]
    held = {secret.name for release in plan_of().releases["standalone"] for secret in release.secrets}
    assert ci.ROBOT_SECRET not in held, "nobody pushes"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_purpose_is_one_token_and_one_password_of_a_cluster(architecture: str) -> None:
    plan = plan_of(architecture)
    tokens = gitlab.access_tokens(plan.releases)
    assert len({token.name for token in tokens}) == len(tokens)
    for token in tokens:
        named = [p for r in plan.releases[token.cluster] for p in r.passwords if p.name == token.password]
        assert [p.length for p in named] == [gitlab.TOKEN_LENGTH]
    assert {token.purpose.account.username for token in tokens if "api" in token.purpose.scopes} == {"opstella-automation"}


@pytest.mark.parametrize("tool", PREFIX)
def test_without_a_tool_pipelines_find_nothing_of_it_and_nothing_dangles(tool: str) -> None:
    every, without = plan_of(), plan_of(changes={"tools": {tool: {"enabled": False}}})
    left = {key for key in variables(every) if not key.startswith(PREFIX[tool])}
    assert set(variables(without)) == left
    uses = {access.purpose for r in without.releases["standalone"] for access in r.gitlab}
    assert ("sonarqube" in uses) == (tool != "sonarqube")
    held = {p.name for r in without.releases["standalone"] for p in r.passwords}
    assert {gitlab.password(purpose) for purpose in uses} <= held


def test_the_namespaces_with_an_administrators_token_are_those_that_the_page_on_security_names() -> None:
    wide: list[str] = []
    for number in range(len(ci.PUBLISHERS)):
        wide += [
            release.namespace
            for release in plan_of(changes=off(*ci.PUBLISHERS[:number])).releases["standalone"]
            for access in release.gitlab
            if (purpose := gitlab.PURPOSES[access.purpose]).account.administrator and "api" in purpose.scopes
        ]
    (row,) = re.findall(r"^\| A token of an administrator of GitLab .*? \|", PAGE.with_name("security.md").read_text(), re.M)
    assert [name for name in re.findall(r"`([a-z-]+)`", row) if name != "api"] == wide


def test_without_any_of_them_no_token_for_variables_is_made() -> None:
    plan = plan_of(changes=off(*PREFIX))
    assert publishing(plan) == []
    assert "opstella standalone ci-variables" not in {token.name for token in gitlab.access_tokens(plan.releases)}


def test_a_platform_without_a_gitlab_has_neither_token_nor_job_for_it() -> None:
    alone = replace(INPUTS, all_hosts={k: v for k, v in INPUTS.all_hosts.items() if k != GITLAB})
    for tool, make in (("sonarqube", sonarqube.release), ("vault", vault.release)):
        release = make(replace(alone, present=frozenset({tool})))
        assert release.gitlab == () and [GITLAB in job.needs for job in release.jobs] == [False]
        assert "GITLAB_URL" not in release.jobs[0].environment


def test_what_is_secret_is_masked_and_stands_in_no_plan() -> None:
    found = variables(plan_of())
    secret = {key for key, about in found.items() if about["value"] is None}
    assert secret == {"SONAR_TOKEN", "DEFECTDOJO_TOKEN", "HARBOR_PASSWORD"}
    assert {key for key, about in found.items() if about["masked"]} == secret
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", key) for key in found)


def test_what_is_for_protected_branches_is_for_chosen_groups_alone() -> None:
    """The default branch of every user's own project is protected, and its owner may push there."""
    found = variables(plan_of(changes={"gitlabRunner": {"pushGroups": ["shop", "team/backend"]}}))
    for_groups = {key for key, about in found.items() if about["groups"] is not None}
    assert for_groups == {key for key, about in found.items() if about["protected"]} == {"HARBOR_USERNAME", "HARBOR_PASSWORD"}
    assert all(found[key]["groups"] == ["shop", "team/backend"] for key in for_groups)
    without = variables(plan_of())
    assert all(without[key]["groups"] == [] for key in for_groups), "nobody's, unless the settings name somebody"


def test_the_page_lists_them_as_they_are() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| (yes|no) \| (yes|no) \|", PAGE.read_text(encoding="utf-8"), re.M)
    word = {True: "yes", False: "no"}
    expected = {(key, word[about["masked"]], word[about["protected"]]) for key, about in variables(plan_of()).items()}
    assert set(rows) == expected and len(rows) == len(expected)
