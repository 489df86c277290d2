"""Projects: which objects each cluster gets, and which names are refused."""

from __future__ import annotations

from typing import Any

import pytest

from config.errors import ConfigurationError
from plan.plan import Plan
from tests.plan.stacks import plan


def projects(architecture: str = "standalone", **given: Any) -> Plan:
    return plan(architecture, kubernetes={"projects": given})


def of(stack: Plan, kind: str, cluster: str = "standalone") -> dict[str, Any]:
    found = [m.body for m in stack.projects[cluster] if m.body["kind"] == kind]
    return {body["metadata"].get("namespace", body["metadata"]["name"]): body for body in found}


def test_without_projects_there_is_nothing() -> None:
    assert plan().projects == {"standalone": ()}


def test_a_project_is_where_it_is_wanted() -> None:
    stack = projects("multicluster", **{"team-a": {"clusters": ["dev", "prd"]}, "team-b": {}})
    found = {cluster: set(of(stack, "Namespace", cluster)) for cluster in stack.projects}
    both, second = {"team-a", "team-b"}, {"team-b"}
    assert found == {"devsecops": second, "observability": second, "dev": both, "prd": both}


def test_bounds_are_the_users() -> None:
    stack = projects(team={"cpu": 2, "memoryGb": 4, "storageGb": 7, "pods": 3, "podSecurity": "baseline", "groups": ["a", "B"]})
    hard = of(stack, "ResourceQuota")["team"]["spec"]["hard"]
    assert (hard["requests.cpu"], hard["limits.memory"], hard["requests.storage"], hard["pods"]) == ("2", "4Gi", "7Gi", "3")
    labels = of(stack, "Namespace")["team"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    bound = [m.body for m in stack.projects["standalone"] if m.body["kind"] == "RoleBinding"]
    assert [b["subjects"][0]["name"] for b in bound] == ["oidc:a", "oidc:B"]
    assert {b["roleRef"]["name"] for b in bound} == {"edit"}


def test_pods_of_a_project_reach_no_machine_but_by_the_platforms_names() -> None:
    stack = projects(team={})
    spec = of(stack, "NetworkPolicy")["team"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    blocks = [peer["ipBlock"] for rule in spec["egress"] for peer in rule["to"] if "ipBlock" in peer]
    (internet,) = [b for b in blocks if b["cidr"] == "0.0.0.0/0"]
    assert internet["except"][:3] == ["172.16.72.0/22", "172.16.76.0/22", "192.168.72.0/24"]
    assert [b["cidr"] for b in blocks if b is not internet] == ["192.168.72.12/32", "192.168.72.14/32"]


def test_outside_is_for_a_project_what_it_is_for_a_pipelines_jobs() -> None:
    """Without the metadata of a cloud, and with what has its place between the machines and is none of them."""
    stack = plan(kubernetes={"projects": {"team": {}}}, network={"neighbours": ["192.168.72.240/28"]}, firewall={"enabled": False})
    (runner,) = [r for r in stack.releases["standalone"] if r.name == "gitlab-runner"]
    policies = [of(stack, "NetworkPolicy")["team"], *(m.body for m in runner.before if m.body["kind"] == "NetworkPolicy")]
    found = [
        peer["ipBlock"]["except"]
        for body in policies
        for rule in body["spec"].get("egress", ())
        for peer in rule["to"]
        if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0"
    ]
    assert len(found) >= 2
    assert all(inside == found[0] for inside in found)
    assert {"169.254.0.0/16", "192.168.72.128/26"} <= set(found[0])
    assert "192.168.72.0/24" not in found[0]


def test_a_namespace_outlives_its_project_and_nothing_else_does() -> None:
    assert [m.name for m in projects(team={}).projects["standalone"] if m.kept] == ["project-team"]


@pytest.mark.parametrize(
    ("name", "owner"), [("keycloak", "keycloak"), ("argocd", "argo-cd"), ("default", "Kubernetes"), ("kube-apps", "Kubernetes")]
)
def test_a_project_takes_no_namespace_of_others(name: str, owner: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        projects(**{name: {}})
    (problem,) = caught.value.problems
    assert problem.key == f"opstella:kubernetes.projects.{name}"
    assert problem.what.startswith(f"the namespace '{name}' is that of {owner}")
    assert projects(**{f"team-{name}": {}})  # as the remedy says


def test_a_group_that_is_named_twice_is_bound_once() -> None:
    names = [m.name for m in projects(team={"groups": ["a", "B", "a"]}).projects["standalone"]]
    assert len(names) == len(set(names))
    assert names[-3:] == ["project-team-group-a", "project-team-group-B", "project-team-policy"]


@pytest.mark.parametrize("name", ["team-quota", "team-limits", "team-account", "team-policy", "team-group-ops"])
def test_no_project_is_called_like_an_object_of_another(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        projects(**{"team": {"groups": ["ops"]}, name: {}})
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"opstella:kubernetes.projects.{name}: '{name}' is how the project 'team' calls an object")
    both = projects(**{"team": {"groups": ["ops"]}, f"team-{name}": {}}).projects["standalone"]  # as the remedy says
    assert len({m.name for m in both}) == len(both)


def test_a_cluster_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        projects(team={"clusters": ["prd"]})
    assert str(caught.value.problems[0]).startswith(
        "opstella:kubernetes.projects.team.clusters: there is no cluster 'prd'\n    fix: name some of standalone, or"
    )
