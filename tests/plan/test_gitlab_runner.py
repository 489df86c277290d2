"""GitLab Runner and the access tokens of GitLab: who gets one, what jobs may do, and what is missing without GitLab."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigurationError
from config.services import GitLabRunner, RunnerJobs
from plan import gitlab, versions
from plan.tools import gitlab_runner
from plan.tools.catalogue import catalogue
from plan.tools.model import Override, Release
from plan.tools.waves import waves
from tests.plan.stacks import plan
from tests.plan.test_tools import INPUTS, of_kind


def released(**changes: Any) -> Release:
    return next(r for r in catalogue(replace(INPUTS, **changes)) if r.name == gitlab_runner.NAME)


def configuration(**changes: Any) -> dict[str, Any]:
    (runner,) = tomllib.loads(released(**changes).values["runners"]["config"])["runners"]
    return dict(runner)


def off(tool: str) -> dict[str, Override]:
    return {tool: Override(enabled=False)}


def runners_tokens(releases: Mapping[str, Sequence[Release]]) -> list[gitlab.AccessToken]:
    return [token for token in gitlab.access_tokens(releases) if token.purpose is gitlab.PURPOSES["runners"]]


def test_without_the_runner_there_is_no_token_for_it() -> None:
    assert [token.name for token in runners_tokens(plan().releases)] == ["opstella standalone runners"]
    without = plan(tools={"gitlab-runner": {"enabled": False}})
    assert runners_tokens(without.releases) == []
    assert not [p for releases in without.releases.values() for r in releases for p in r.passwords if "gitlab-runner" in p.name]


def test_of_several_clusters_the_one_for_development_carries_it() -> None:
    found = plan("multicluster").releases
    assert [c for c, releases in found.items() if any(r.name == "gitlab-runner" for r in releases)] == ["dev"]
    (token,) = runners_tokens(found)
    assert (token.cluster, token.name) == ("dev", "opstella dev runners")


def test_each_cluster_may_have_one_with_names_of_its_own() -> None:
    found = plan("multicluster", tools={"gitlab-runner": {"clusters": ["dev", "prd"]}}).releases
    runners = [r for releases in found.values() for r in releases if r.name == "gitlab-runner"]
    assert [access.user for r in runners for access in r.storage] == ["gitlab-runner-dev", "gitlab-runner-prd"]
    assert [token.name for token in runners_tokens(found)] == ["opstella dev runners", "opstella prd runners"]
    assert len({(token.cluster, token.password) for token in runners_tokens(found)}) == 2


def test_each_purpose_has_the_least_scope_and_account() -> None:
    assert {name: (p.scopes, p.account.administrator) for name, p in gitlab.PURPOSES.items()} == {
        "runners": (("create_runner",), True), "ci-variables": (("api",), True), "sonarqube": (("read_api",), False),
    }  # fmt: skip


def test_without_a_name_gitlab_is_what_the_error_names() -> None:
    nameless = {service: host for service, host in INPUTS.all_hosts.items() if service != "gitlab"}
    with pytest.raises(ConfigurationError) as caught:
        catalogue(replace(INPUTS, all_hosts=nameless))
    assert "opstella:domains.gitlab: gitlab-runner needs gitlab, which has no name here" in str(caught.value)
    assert "opstella:tools.gitlab-runner.enabled" in str(caught.value)
    catalogue(replace(INPUTS, all_hosts=nameless, overrides=off("gitlab-runner")))


def test_without_the_object_store_both_are_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        catalogue(replace(INPUTS, overrides=off("minio")))
    assert "gitlab-runner needs minio, which is left out" in str(caught.value)


def test_the_need_of_what_stands_outside_orders_no_release() -> None:
    releases = catalogue(INPUTS)
    assert "gitlab" not in {name for wave in waves(releases) for name in wave}
    (job,) = released().jobs
    assert job.before and job.needs == ("gitlab",)


def test_its_token_is_a_secret_of_its_own_and_as_long_as_gitlab_wants() -> None:
    release = released()
    (access,) = (s for s in release.secrets if s.name == gitlab_runner.ACCESS_SECRET)
    (password,) = (p for p in release.passwords if p.name == "gitlab-runners")
    assert set(access.data) == {"token"} and password.length == 20 and not password.special


def test_jobs_have_no_privileges_and_a_namespace_of_their_own() -> None:
    release = released()
    kubernetes = configuration()["kubernetes"]
    assert kubernetes["namespace"] == "gitlab-jobs" != release.namespace
    assert (kubernetes["privileged"], kubernetes["allow_privilege_escalation"]) == (False, False)
    assert kubernetes["automount_service_account_token"] is False
    assert release.further_namespaces == {"gitlab-jobs": "baseline"} and release.pod_security == "restricted"
    (role,) = of_kind(release, "Role")
    assert role.body["metadata"]["namespace"] == "gitlab-jobs" and not of_kind(release, "ClusterRole")
    for rule in role.body["rules"]:
        assert "*" not in (*rule["resources"], *rule["verbs"]) and rule["apiGroups"] == [""]
    assert release.values["rbac"] == {"create": False}


def test_jobs_reach_what_is_outside_and_nothing_reaches_them() -> None:
    (policy,) = (p for p in of_kind(released(), "NetworkPolicy") if p.namespace == "gitlab-jobs")
    spec = policy.body["spec"]
    assert spec["podSelector"] == {} and spec["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in spec
    outside = next(rule for rule in spec["egress"] for peer in rule["to"] if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0")
    assert outside["to"][0]["ipBlock"]["except"][:2] == [INPUTS.pod_network, INPUTS.service_network]
    assert {port["port"] for port in outside["ports"]} == {80, 443}


def test_what_a_job_may_take_is_a_setting() -> None:
    runner = GitLabRunner(tags=("a", "b"), concurrent=9, jobs=RunnerJobs(cpu_millicores=700, memory_mb=300, memory_limit_mb=900))
    release = released(gitlab_runner=runner)
    kubernetes = configuration(gitlab_runner=runner)["kubernetes"]
    assert (kubernetes["cpu_request"], kubernetes["memory_request"], kubernetes["memory_limit"]) == ("700m", "300Mi", "900Mi")
    assert release.values["concurrent"] == 9
    (job,) = release.jobs
    assert json.loads(job.files["runner.json"])["runner"]["tag_list"] == "a,b"


def test_another_runner_in_gitlab_starts_the_pod_again() -> None:
    def mark(**settings: Any) -> str:
        return str(released(gitlab_runner=GitLabRunner(**settings)).values["podAnnotations"]["opstella.io/runner"])

    assert mark() == mark(concurrent=9) != mark(tags=("a",))


def test_the_cache_is_a_bucket_of_its_own_by_a_credential_of_its_own() -> None:
    release = released()
    (access,) = release.storage
    cache = configuration()["cache"]
    assert [bucket.name for bucket in access.buckets] == [cache["s3"]["BucketName"]] == ["gitlab-runner-cache"]
    assert release.values["runners"]["cache"] == {"secretName": access.secret} and cache["s3"]["AuthenticationType"] == "access-key"
    assert cache["s3"]["ServerAddress"] == INPUTS.hosts["minioApi"] and "AccessKey" not in cache["s3"]


def test_the_chart_reads_the_secret_that_the_job_writes() -> None:
    release = released()
    (job,) = release.jobs
    named = release.values["runners"]["secret"].replace("{{ .Release.Name }}", release.name)
    assert named == json.loads(job.files["runner.json"])["secret"] == gitlab_runner.RUNNER_SECRET


def test_gitlabs_authority_is_trusted_under_its_name() -> None:
    release = released()
    (trust,) = (s for s in release.secrets if s.name == release.values["certsSecretName"])
    assert list(trust.data) == [f"{INPUTS.all_hosts['gitlab']}.crt"]
    assert configuration()["kubernetes"]["volumes"]["config_map"][0]["name"] == INPUTS.ca_bundle


def test_the_runner_is_not_newer_than_gitlab() -> None:
    minors = [tuple(map(int, v.split(".")[:2])) for v in (versions.GITLAB_RUNNER.app_version, versions.GITLAB.version)]
    assert minors[0] <= minors[1]


@given(st.dates(date(2020, 1, 1), date(2100, 1, 1)))
def test_tokens_live_between_half_a_year_and_a_year_and_change_twice_a_year(day: date) -> None:
    until = date.fromisoformat(gitlab.tokens_until(day))
    assert 180 <= (until - day).days <= gitlab.LIFETIME_DAYS
    tomorrow = day + timedelta(days=1)
    changes = gitlab.tokens_until(tomorrow) != gitlab.tokens_until(day)
    assert changes == ((tomorrow.month, tomorrow.day) in ((1, 1), (7, 1)))


def test_the_halves_of_a_year_begin_in_january_and_july() -> None:
    found = [gitlab.tokens_until(date(2026, month, day)) for month, day in ((1, 1), (6, 30), (7, 1), (12, 31))]
    assert found == ["2027-01-01", "2027-01-01", "2027-07-01", "2027-07-01"]


def test_what_rails_is_told() -> None:
    tokens = runners_tokens(plan().releases)
    told = json.loads(gitlab.wanted_tokens(tokens, ["the value"], "git.example.com", "2027-07-01"))
    assert told == {
        "accounts": [
            {
                "username": "opstella-automation", "name": "Opstella automation", "administrator": True,
                "email_domain": "noreply.git.example.com",
            }
        ],
        "tokens": [
            {"name": "opstella standalone runners", "account": "opstella-automation", "scopes": ["create_runner"], "value": "the value"}
        ],
        "expires": "2027-07-01",
    }  # fmt: skip
