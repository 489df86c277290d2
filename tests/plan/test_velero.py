"""Velero: what is saved, when, where to, and by whose credential, in one cluster and in several."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from config.errors import ConfigurationError
from plan.plan import Plan
from plan.tools import catalogue, minio_buckets
from plan.tools.model import Release, ToolInputs
from plan.tools.sources import CaBundle, Composed, Generated
from tests.plan.stacks import plan

STANDALONE, MULTICLUSTER = plan(), plan("multicluster")


def of(made: Plan, cluster: str) -> Release:
    return next(r for r in made.releases[cluster] if r.name == "velero")


def spec(release: Release, kind: str, name: str) -> dict[str, Any]:
    body = next(m.body for m in release.after if m.body["kind"] == kind and m.body["metadata"]["name"] == name)
    return dict(body["spec"])


def location(release: Release) -> dict[str, Any]:
    return spec(release, "BackupStorageLocation", "default")


def test_every_cluster_has_one() -> None:
    for made in (STANDALONE, MULTICLUSTER):
        assert all(of(made, cluster) for cluster in made.releases)


def test_the_store_of_the_own_cluster_is_asked_directly() -> None:
    store = location(of(STANDALONE, "standalone"))
    assert store["config"]["s3Url"] == "http://minio.minio.svc.cluster.local:9000"
    assert store["objectStorage"] == {"bucket": "velero", "prefix": "standalone"}
    assert "minio" in of(STANDALONE, "standalone").needs


def test_another_clusters_store_is_asked_by_its_public_name_and_verified() -> None:
    release = of(MULTICLUSTER, "prd")
    store = location(release)
    first = next(r for r in MULTICLUSTER.releases["devsecops"] if r.name == "minio")
    assert store["config"]["s3Url"] == f"https://{first.other_hosts[0]}"
    assert store["objectStorage"]["caCertRef"] == {"name": "velero-s3", "key": "ca.crt"}
    assert "minio" not in release.needs
    secret = next(s for s in release.secrets if s.name == "velero-s3")
    assert secret.data["ca.crt"] == CaBundle()


def test_each_cluster_has_a_credential_of_its_own_that_reaches_its_own_prefix() -> None:
    users = {}
    for cluster in MULTICLUSTER.releases:
        release = of(MULTICLUSTER, cluster)
        (access,) = release.storage
        users[cluster] = access.user
        assert access.prefix == f"{location(release)['objectStorage']['prefix']}/" == f"{cluster}/"
        file = next(s for s in release.secrets if s.name == "velero-s3").data["cloud"]
        assert isinstance(file, Composed) and file.passwords == (f"s3-{access.user}",)
        assert f"aws_access_key_id={access.user}\n" in file.template
    assert users == {c: f"velero-{c}" for c in MULTICLUSTER.releases}
    served = {
        cluster: next(s for r in releases for s in r.secrets if s.name == "minio-users").data
        for cluster, releases in MULTICLUSTER.releases.items()
        if any(r.name == "minio" for r in releases)
    }
    assert served["devsecops"]["velero-prd"] == Generated(password="s3-velero-prd", cluster="prd")
    assert "velero-observability" in served["observability"] and "velero-prd" not in served["observability"]


@pytest.mark.parametrize("tool", ["velero", "gitlab-runner"])
@pytest.mark.parametrize("cluster", ["a-cluster-with-a-long-name", "another-cluster-with-a-long-name"])
def test_a_long_name_of_a_cluster_becomes_one_that_the_store_takes(tool: str, cluster: str) -> None:
    inputs = ToolInputs(domain="x", hosts={}, nfs_server="n", nfs_path="/", cluster=cluster, clusters=(cluster, "b"))
    assert len(minio_buckets.user_of(tool, inputs)) <= 20
    assert minio_buckets.user_of(tool, inputs) != minio_buckets.user_of(tool, replace(inputs, cluster=f"{cluster}2"))


def test_objects_and_volumes_are_saved_each_night_for_thirty_days() -> None:
    release = of(STANDALONE, "standalone")
    objects, volumes = (spec(release, "Schedule", name) for name in ("objects", "volumes"))
    for schedule in (objects, volumes):
        assert schedule["template"]["ttl"] == "720h0m0s" and schedule["template"]["snapshotVolumes"] is False
        assert schedule["template"]["storageLocation"] == "default"
        minute, hour, *rest = schedule["schedule"].split()
        assert minute.isdigit() and hour.isdigit() and rest == ["*", "*", "*"]
    assert objects["schedule"] != volumes["schedule"]
    assert "excludedNamespaces" not in objects["template"] and not objects["template"]["defaultVolumesToFsBackup"]
    assert volumes["template"]["defaultVolumesToFsBackup"] is True


def test_volumes_that_are_kept_elsewhere_are_left_out() -> None:
    release = of(STANDALONE, "standalone")
    template = spec(release, "Schedule", "volumes")["template"]
    namespaces = {r.namespace for releases in STANDALONE.releases.values() for r in releases}
    assert set(template["excludedNamespaces"]) <= namespaces
    assert {"minio", "vault"} <= set(template["excludedNamespaces"])
    assert not {"defectdojo", "sonarqube", "keycloak"} & set(template["excludedNamespaces"])
    named = template["resourcePolicy"]["name"]
    (policy,) = (m.body["data"] for m in release.before if m.body["metadata"]["name"] == named)
    (text,) = policy.values()  # Velero wants exactly one
    rules = yaml.safe_load(text)["volumePolicies"]
    assert {"pvcLabels": {"cnpg.io/pvcRole": "PG_DATA"}} in [rule["conditions"] for rule in rules]
    assert {rule["action"]["type"] for rule in rules} == {"skip"}


def test_agents_read_one_volume_at_a_time() -> None:
    release = of(STANDALONE, "standalone")
    (argument,) = release.values["nodeAgent"]["extraArgs"]
    name = argument.partition("=")[2]
    (data,) = (m.body["data"] for m in release.before if m.body["metadata"]["name"] == name)
    (text,) = data.values()
    assert json.loads(text)["loadConcurrency"] == {"globalConfig": 1}


def test_every_pod_that_velero_starts_is_bounded() -> None:
    """Those that read volumes, and those that clean up a repository."""
    release = of(STANDALONE, "standalone")
    maintenance = release.values["configuration"]["repositoryMaintenanceJob"]["repositoryConfigData"]["global"]
    (text,) = (t for m in release.before for name, t in m.body.get("data", {}).items() if name == "node-agent.json")
    for found in (maintenance["podResources"], json.loads(text)["podResources"]):
        assert set(found) == {"cpuRequest", "cpuLimit", "memoryRequest", "memoryLimit"} and all(found.values())


def test_the_repository_has_a_password_of_its_own() -> None:
    """Velero takes one that everybody knows where it finds no Secret of this name and key."""
    secret = next(s for s in of(STANDALONE, "standalone").secrets if s.name == "velero-repo-credentials")
    assert secret.data == {"repository-password": Generated(password="velero-repository")}


def test_it_can_be_switched_off_and_needs_a_store() -> None:
    off = plan(tools={"velero": {"enabled": False}})
    assert "velero" not in {r.name for r in off.releases["standalone"]}
    with pytest.raises(ConfigurationError, match="velero needs minio, which is left out"):
        plan(tools={"minio": {"enabled": False}})
    alone = ToolInputs(domain="x", hosts={}, nfs_server="n", nfs_path="/", tools=("velero",))
    assert catalogue.catalogue(alone) == ()
