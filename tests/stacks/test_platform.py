"""Whole stacks: what they register, what they tell, and how certificates and media change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plan import cilium
from plan.tools.catalogue import NAMES
from tests.config import material
from tests.support.platform import RECORDED, airgap, deployed, four_clusters, plan_of, provided, reference
from tests.support.sent import sent
from tests.support.stack import CERTIFICATE, UNKNOWN, Recording, Secret, bare, kubeconfig

HELM = "kubernetes:helm.sh/v3:Release"
ROOT, MIDDLE = (CERTIFICATE.format(name=name) for name in ("pki-root", "pki-intermediate"))
OUTPUTS = {
    "urls", "kubernetes_api", "kubeconfigs", "credentials", "ca_bundle", "dns_records", "host_keys", "sizing",
    "missing",
}  # fmt: skip
TOOLS = {release.name for release in plan_of().releases["standalone"]}

architectures = pytest.mark.parametrize("architecture", RECORDED)
both = pytest.mark.parametrize("preview", [False, True], ids=["update", "preview"])


def components(found: Recording) -> dict[str, int]:
    counted: dict[str, int] = {}
    for one in found.components:
        counted[one.type.rpartition(":")[2]] = counted.get(one.type.rpartition(":")[2], 0) + 1
    return counted


@both
def test_standalone_is_ten_machines(preview: bool) -> None:
    assert components(reference("standalone", preview)) == {
        "PkiChain": 1, "Passwords": 1, "Fleet": 1, "Host": 10, "GitLabServer": 1, "LoadBalancer": 1, "NfsShare": 1,
        "ClusterNodes": 1, "ToolStack": 1,
    }  # fmt: skip
    assert {r.name for r in reference("standalone", preview).of_type(HELM)} == {f"standalone-tools-{t}" for t in TOOLS}


@four_clusters
@both
def test_multicluster_is_thirty_six_machines(preview: bool) -> None:
    found = reference("multicluster", preview)
    assert components(found) == {
        "PkiChain": 1, "Passwords": 1, "Fleet": 1, "Host": 36, "GitLabServer": 1, "LoadBalancer": 4, "NfsShare": 4,
        "ClusterNodes": 4, "ToolStack": 4,
    }  # fmt: skip
    plan = plan_of("multicluster")
    assert {r.name for r in found.of_type(HELM)} == {
        f"{cluster}-tools-{release.name}" for cluster, releases in plan.releases.items() for release in releases
    }
    assert {r.name for r in plan.releases["dev"]} >= {"argo-cd"}


@both
@architectures
def test_preview_and_update_register_the_same(architecture: str, preview: bool) -> None:
    """Nothing that is registered depends on a value that only an update knows."""
    one, other = reference(architecture, preview), reference(architecture, not preview)
    assert [r.urn for r in sorted(one.resources, key=lambda r: r.urn)] == sorted(r.urn for r in other.resources)
    for resource in one.resources:
        twin = other.by_urn[resource.urn]
        assert resource.waits_for == twin.waits_for, resource.name
        assert set(resource.inputs) == set(twin.inputs), resource.name


@both
@architectures
def test_outputs(architecture: str, preview: bool) -> None:
    plan = plan_of(architecture)
    found = reference(architecture, preview)
    told = found.exports
    assert set(told) == OUTPUTS
    names = {c.name for c in plan.topology.clusters}
    assert set(told["kubeconfigs"]) == set(told["kubernetes_api"]) == names
    for cluster in plan.topology.clusters:
        assert told["kubernetes_api"][cluster.name] == f"https://{cluster.entrance}:6443"
        config = told["kubeconfigs"][cluster.name]
        assert config is UNKNOWN if preview else config == Secret(kubeconfig(f"stdout-of-{cluster.name}-nodes-kubeconfig"))
    assert set(told["host_keys"]) == {h.name for h in plan.topology.hosts}
    for name, key in told["host_keys"].items():
        assert key is UNKNOWN if preview else key == f"stdout-of-host-{name}-hostkey"
    assert told["dns_records"] == {r.name: str(r.address) for r in plan.records}
    assert told["sizing"]["true"]["nodes"] == len(plan.topology.hosts)
    assert [sentence.split(": ")[0] for sentence in told["missing"]][:3] == [
        f"opstella:opstella.{part}.image" for part in ("ui", "core", "clearSession")
    ]
    assert told["ca_bundle"] is UNKNOWN if preview else told["ca_bundle"] == ROOT


@architectures
def test_urls_are_of_what_is_deployed_only(architecture: str) -> None:
    told = reference(architecture).exports["urls"]
    argo_cd = ("argocd",) if architecture == "standalone" else ("argocdDev", "argocdPrd")
    assert {"gitlab", "keycloak", "headlamp", *argo_cd} <= set(told)
    assert "opstella" not in told, "its image is not named"
    assert told["gitlab"] == "https://gitlab.devops.example.com"
    assert all(url.startswith("https://") and url.endswith(".devops.example.com") for url in told.values())


def test_a_tool_that_is_left_out_leaves_no_url_and_no_login() -> None:
    told = deployed(plan_of(changes={"tools": {"argo-cd": {"enabled": False}}})).exports
    everything = reference("standalone").exports
    assert set(told["urls"]) == set(everything["urls"]) - {"argocd"} != set(everything["urls"])
    assert set(told["credentials"]) == set(everything["credentials"]) - {"argo-cd"} != set(everything["credentials"])


@architectures
def test_credentials_are_secret(architecture: str) -> None:
    told = reference(architecture).exports["credentials"]
    assert set(told) >= (
        {"gitlab", "keycloak", "user-opstella-admin", "argo-cd"}
        if architecture == "standalone"
        else {"gitlab", "keycloak-devsecops", "user-opstella-admin-devsecops", "argo-cd-dev", "argo-cd-prd"}
    )
    for entry in told.values():
        assert set(entry) == {"url", "username", "password"}
        assert isinstance(entry["password"], Secret) and bare(entry["password"]).startswith("hidden-")


# ---- certificates ---------------------------------------------------------------------------


def trusted_by_hosts(found: Recording) -> set[str]:
    return {sent(r).values["ca_bundle"] for r in found.commands if r.name.endswith("-prepare")}


def issuer(found: Recording) -> dict[str, Any]:
    return found.named("standalone-tools-cert-manager-opstella-ca").inputs["stringData"]


def test_internal_certificates_come_from_our_root() -> None:
    found = reference("standalone")
    gitlab = sent(found.named("gitlab-omnibus")).values
    assert gitlab["certificate"] == CERTIFICATE.format(name="pki-gitlab") + MIDDLE
    assert gitlab["private_key"] == found.named("pki-gitlab-key").outputs["privateKeyPem"].value
    assert gitlab["trusted_ca"] == ROOT
    assert trusted_by_hosts(found) == {ROOT}
    assert issuer(found)["tls.crt"] == MIDDLE + ROOT
    assert issuer(found)["tls.key"] == found.named("pki-intermediate-key").outputs["privateKeyPem"].value
    maps = found.of_type("kubernetes:core/v1:ConfigMap")
    bundles = [r for r in maps if r.inputs["metadata"]["name"] == "opstella-ca-bundle"]
    assert bundles and {r.inputs["data"]["ca.crt"] for r in bundles} == {ROOT}


def test_a_provided_certificate_is_shown_by_gitlab_and_ingress_and_its_issuers_are_trusted(tmp_path: Path) -> None:
    plan = provided(tmp_path)
    found = deployed(plan)
    leaf, chain = ((tmp_path / f"{name}.pem").read_text() for name in ("leaf", "chain"))
    key = (tmp_path / "leaf_key.pem").read_text()
    gitlab = sent(found.named("gitlab-omnibus")).values
    assert (gitlab["certificate"], gitlab["private_key"]) == (leaf + chain, key)
    assert trusted_by_hosts(found) == {ROOT + chain} == {found.exports["ca_bundle"]}
    shown = [r.inputs["stringData"] for r in found.of_type("kubernetes:core/v1:Secret") if key in r.inputs["stringData"].values()]  # fmt: skip
    assert shown == [{"tls.crt": leaf + chain, "tls.key": key}]
    assert not [r.name for r in found.resources if r.name.startswith("pki-gitlab")]
    # Inside the cluster, cert-manager still signs with our own intermediate.
    assert issuer(found)["tls.crt"] == MIDDLE + ROOT


def test_the_users_intermediate_replaces_root_and_intermediate(tmp_path: Path) -> None:
    names = material.make(tmp_path)
    given = {"certificate": "intermediate", "privateKey": "intermediate_key", "chain": "root"}
    found = deployed(plan_of(changes={"pki": {"intermediate": {k: f"file:{names[v]}" for k, v in given.items()}}}))
    middle, key, root = ((tmp_path / f"{name}.pem").read_text() for name in given.values())
    assert not found.of_type("tls:index/selfSignedCert:SelfSignedCert")
    assert trusted_by_hosts(found) == {root} == {found.exports["ca_bundle"]}
    assert issuer(found) == {"tls.crt": middle + root, "tls.key": key}
    assert sent(found.named("gitlab-omnibus")).values["certificate"] == CERTIFICATE.format(name="pki-gitlab") + middle


def test_extra_authorities_are_trusted_everywhere(tmp_path: Path) -> None:
    material.make(tmp_path)
    company = (tmp_path / "other_root.pem").read_text()
    found = deployed(plan_of(changes={"extraCaCertificates": [company]}))
    assert trusted_by_hosts(found) == {ROOT + company}
    assert sent(found.named("gitlab-omnibus")).values["trusted_ca"] == ROOT + company
    # First contact already fetches, before anything is installed.
    assert {sent(r).values["ca_bundle"] for r in found.commands if r.name.endswith("-preflight")} == {company}


# ---- media ------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["online", "airgap"])
def test_media(source: str) -> None:
    found = deployed(plan_of(changes=airgap())) if source == "airgap" else reference("standalone")
    everything = [r for r in found.commands if r.name.endswith(("-rke2", "-omnibus"))]
    assert len(everything) == 7
    for command in everything:
        told = sent(command).values
        assert told["source"] == source
        place = told.get("artifacts_url", told.get("package_url"))
        assert str(place).startswith("http://media.example.com/opstella") == (source == "airgap")
    repositories = {r.inputs["repositoryOpts"]["repo"] for r in found.of_type(HELM) if "repositoryOpts" in r.inputs}
    assert (repositories == {"https://charts.example.com"}) == (source == "airgap")
    looked_for = {u for r in found.commands if r.name.endswith("-preflight") for u in sent(r).values["urls"].split()}
    assert looked_for and all(u.startswith("http://media.example.com/") == (source == "airgap") for u in looked_for)


# ---- what every machine is told of the whole platform ----------------------------------------


@architectures
def test_every_node_asks_harbor_first_and_every_api_server_knows_the_realm(architecture: str) -> None:
    plan, found = plan_of(architecture), reference(architecture)
    assert plan.registry and plan.issuer
    for cluster in plan.topology.clusters:
        for node in cluster.nodes:
            told = sent(found.named(f"{cluster.name}-nodes-{node.name}-rke2")).values
            assert f"https://{plan.registry}" in told["registries_yaml"], node.name
            master = node.role == "master"
            assert (f"oidc-issuer-url={plan.issuer}" in told["config_yaml"]) == master, node.name
            assert (told["oidc_ca"] == ROOT) == master
            assert ("platform-admins" in "".join(v for k, v in told.items() if k.startswith("manifest_"))) == master


@architectures
def test_every_server_of_a_cluster_with_cilium_has_its_clusters_host_policies(architecture: str) -> None:
    without_tools = {name: {"enabled": False} for name in NAMES}
    plan = plan_of(architecture, changes={"kubernetes": {"cni": "cilium"}, "tools": without_tools})
    found = deployed(plan)
    for cluster in plan.topology.clusters:
        (text,) = [t for name, t in cilium.manifests(plan.contract, cluster).items() if "policies" in name]
        for node in cluster.nodes:
            told = sent(found.named(f"{cluster.name}-nodes-{node.name}-rke2")).values
            assert (text in told.values()) == (node.role == "master"), node.name


@architectures
def test_every_machine_and_every_cluster_has_the_same_ca_bundle(architecture: str) -> None:
    plan, found = plan_of(architecture), reference(architecture)
    for host in plan.topology.hosts:
        assert sent(found.named(f"host-{host.name}-prepare")).values["ca_bundle"] == ROOT, host.name
    bundles = [r for r in found.of_type("kubernetes:core/v1:ConfigMap") if r.name.endswith("-opstella-ca-bundle")]
    assert {r.name.partition("-tools-")[0] for r in bundles} == {c.name for c in plan.topology.clusters}
    assert all(bundle.inputs["data"] == {"ca.crt": ROOT} for bundle in bundles)


def protected(found: Recording) -> set[str]:
    return {resource.name for resource in found.resources if resource.request.protect}


@four_clusters
@both
def test_what_holds_a_clusters_data_is_protected_and_nothing_else(preview: bool) -> None:
    """Its first server and its share; a worker, a tool or a load balancer may go."""
    names = {"standalone-nfs-nfs", "standalone-nodes-master-1-rke2"}
    assert protected(reference("standalone", preview)) == names
    clusters = ("devsecops", "observability", "dev", "prd")
    assert protected(reference("multicluster", preview)) == {
        name for c in clusters for name in (f"{c}-nfs-nfs", f"{c}-nodes-{c}-master-1-rke2")
    }


@four_clusters
def test_a_removable_cluster_is_not_protected() -> None:
    found = deployed(plan_of("multicluster", {"clusters": {"prd": {"removable": True}}}))
    assert protected(found) == {n for n in protected(reference("multicluster")) if not n.startswith("prd-")}
