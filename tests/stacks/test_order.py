"""The order of a whole deployment, read from what every request waits for."""

from __future__ import annotations

import pytest

from plan.tools.needs import GITLAB
from tests.support.platform import RECORDED, deployed, four_clusters, plan_of, reference
from tests.support.stack import Recording, Registered

HELM = "kubernetes:helm.sh/v3:Release"


# Four clusters are recorded for seconds.
@pytest.fixture(params=RECORDED)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def found(request: pytest.FixtureRequest, architecture: str) -> Recording:
    return reference(architecture, bool(request.param))


def ending(found: Recording, *ends: str) -> list[Registered]:
    resources = [r for r in found.commands if r.name.endswith(ends)]
    assert resources, ends
    return resources


def test_no_machine_is_changed_before_all_have_been_met(found: Recording) -> None:
    preflights = {r.urn for r in ending(found, "-preflight")}
    assert len(preflights) == len(found.of_type("opstella:host:Host"))
    distinct = found.named("host-distinct")
    assert all(found.before(found.by_urn[urn], distinct) for urn in preflights)
    for resource in found.commands:
        if not resource.name.endswith(("-preflight", "-hostkey", "-distinct")):
            assert found.before(distinct, resource), resource.name


def test_the_bastion_is_confirmed_before_any_other_machine_is_prepared(found: Recording) -> None:
    confirmed = found.named("host-bastion-confirm")
    for resource in ending(found, "-prepare"):
        assert found.before(confirmed, resource) == (resource.name != "host-bastion-prepare"), resource.name


def test_a_machines_role_waits_for_its_confirmed_base(found: Recording, architecture: str) -> None:
    plan = plan_of(architecture)
    roles = {"gitlab": "gitlab-omnibus"}
    for cluster in plan.topology.clusters:
        roles |= {cluster.load_balancers[0].name: f"{cluster.name}-lb-haproxy", cluster.nfs.name: f"{cluster.name}-nfs-nfs"}
        roles |= {node.name: f"{cluster.name}-nodes-{node.name}-rke2" for node in cluster.nodes}
    assert len(roles) == len(plan.topology.hosts) - 1
    for host, role in roles.items():
        for step in ("prepare", "confirm"):
            assert found.before(found.named(f"host-{host}-{step}"), found.named(role)), role


def test_clusters_join_in_order(found: Recording, architecture: str) -> None:
    for cluster in plan_of(architecture).topology.clusters:
        name = f"{cluster.name}-nodes"
        servers = [found.named(f"{name}-{m.name}-rke2") for m in cluster.masters]
        ready = [found.named(f"{name}-{m.name}-ready") for m in cluster.masters]
        assert found.before(found.named(f"{cluster.name}-lb-haproxy"), servers[0])
        for seen, server in zip(ready, servers[1:], strict=False):
            assert found.before(seen, server)
        for worker in cluster.workers:
            agent = found.named(f"{name}-{worker.name}-rke2")
            assert all(found.before(seen, agent) for seen in ready)
            for other in cluster.workers:
                assert not found.before(found.named(f"{name}-{other.name}-rke2"), agent)


def test_a_cluster_joins_through_the_load_balancer_that_it_shares() -> None:
    """Its own address is put on the other cluster's machines before its first server looks for it."""
    room = {"count": 1, "cpu": 64, "memoryGb": 256}
    one = {"subnet": "10.1.0.0/24", "masters": {"count": 1}, "workers": room}
    shared = {"loadBalancer": {"sharedWith": "two", "virtualAddress": "10.2.0.9"}}
    plan = plan_of("custom", {"clusters": {"one": {**one, **shared}, "two": {**one, "subnet": "10.2.0.0/24"}}})
    found = deployed(plan)
    assert [r.name for r in found.of_type("opstella:network:LoadBalancer")] == ["two-lb"]
    assert len(found.of_type("opstella:host:Host")) == len(plan.topology.hosts) == 2 + 1 + 2 * 3
    for cluster in ("one", "two"):
        for before in ("two-lb-haproxy", "two-lb-keepalived"):
            assert found.before(found.named(before), found.named(f"{cluster}-nodes-{cluster}-master-1-rke2"))
    assert found.exports["kubernetes_api"]["one"] == "https://10.2.0.9:6443"


@four_clusters
def test_clusters_do_not_wait_for_each_other() -> None:
    found = reference("multicluster")
    names = [c.name for c in plan_of("multicluster").topology.clusters]
    for one in names:
        for two in names:
            if one != two:
                first = found.named(f"{one}-nodes-{one}-master-1-rke2")
                last = found.named(f"{two}-tools-cert-manager", HELM)
                assert not found.before(first, last), (one, two)


@four_clusters
def test_a_tool_waits_for_another_cluster_only_where_it_needs_it(preview: bool) -> None:
    found = reference("multicluster", preview)
    realm = found.named("devsecops-tools-keycloak-keycloak-realm", "kubernetes:batch/v1:Job")
    for name in ("minio", "oauth2-proxy", "loki"):  # Loki keeps its chunks in MinIO
        assert found.before(realm, found.named(f"observability-tools-{name}", HELM)), name
    for name in ("cert-manager", "traefik", "grafana", "kube-prometheus-stack"):
        assert not found.before(realm, found.named(f"observability-tools-{name}", HELM)), name
    for tool in ("alloy", "argo-cd"):
        for other in ("devsecops", "observability"):
            assert not found.before(found.named(f"{other}-nodes-kubeconfig"), found.named(f"dev-tools-{tool}", HELM))


@four_clusters
def test_only_what_verifies_other_clusters_waits_for_their_first_server(preview: bool) -> None:
    found = reference("multicluster", preview)
    setup = found.named("devsecops-tools-vault-vault-setup", "kubernetes:batch/v1:Job")
    for cluster in ("observability", "dev", "prd"):
        keys, config = found.named(f"{cluster}-nodes-account-keys"), found.named(f"{cluster}-nodes-kubeconfig")
        assert found.before(keys, setup) and not found.before(keys, found.named("devsecops-tools-vault", HELM))
        assert found.before(config, found.named("devsecops-tools-headlamp", HELM))
        for tool in ("keycloak", "harbor", "minio", "sonarqube"):
            chart = found.named(f"devsecops-tools-{tool}", HELM)
            assert not found.before(keys, chart) and not found.before(config, chart), tool
    assert not [r for r in reference("standalone", preview).commands if r.name.endswith("-account-keys")]


def test_tools_come_when_all_nodes_are_ready_and_the_share_is_exported(found: Recording, architecture: str) -> None:
    plan = plan_of(architecture)
    for cluster in plan.topology.clusters:
        inside = [
            r for r in found.resources if r.type.startswith("kubernetes:") and r.name.startswith(f"{cluster.name}-tools-")
        ]
        assert len(inside) > len(plan.releases[cluster.name])
        needed = [found.named(f"{cluster.name}-nodes-{n.name}-ready") for n in cluster.nodes]
        needed += [found.named(f"{cluster.name}-nfs-nfs"), found.named(f"{cluster.name}-nodes-kubeconfig")]
        for resource in inside:
            assert all(found.before(first, resource) for first in needed), resource.name


def test_what_uses_gitlab_waits_for_its_tokens(found: Recording, architecture: str) -> None:
    """GitLab with its tokens, then the Jobs that ask it; of the charts, only the runner's comes after one of those."""
    tokens = found.named("gitlab-tokens")
    assert found.before(found.named("gitlab-omnibus"), tokens)
    for cluster, releases in plan_of(architecture).releases.items():
        for release in releases:
            chart = found.named(f"{cluster}-tools-{release.name}", HELM)
            assert found.before(tokens, chart) == any(job.before for job in release.jobs), release.name
            for job in release.jobs:
                made = found.named(f"{cluster}-tools-{release.namespace}-{job.name}", "kubernetes:batch/v1:Job")
                assert found.before(tokens, made) or GITLAB not in job.needs, job.name
                assert not job.before or found.before(made, chart)


def test_releases_come_after_what_they_need(found: Recording, architecture: str) -> None:
    for cluster, releases in plan_of(architecture).releases.items():
        for release in releases:
            chart = found.named(f"{cluster}-tools-{release.name}", HELM)
            for need in release.needs:
                there, _, name = need.rpartition("/")  # of another cluster, or of this one
                assert found.before(found.named(f"{there or cluster}-tools-{name}", HELM), chart)
            for secret in release.secrets:
                assert found.before(found.named(f"{cluster}-tools-{secret.namespace}-{secret.name}"), chart)
