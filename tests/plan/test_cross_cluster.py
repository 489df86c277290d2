"""What clusters are to one another: who ships where and as whom, who trusts whom by what, who waits for whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import yaml

from plan import dns, rke2
from plan.plan import Plan
from plan.tools import agents, headlamp, realm, vault, vault_config, vault_issuer
from plan.tools.model import (
    ClusterAccountKeys,
    ClusterAuthority,
    Composed,
    Generated,
    Htpasswd,
    Manifest,
    Release,
    Source,
)
from plan.tools.needs import Job, is_elsewhere
from plan.tools.order import cluster_order
from tests.plan.stacks import plan

STORES = ("loki", "mimir", "tempo")
HAS_ITS_OWN = ("minio",)  # its chart takes the CA bundle as a Secret


def three() -> dict[str, Any]:
    """Clusters of the user's own, with places that no name of theirs says: `shop` ships to `watch`, trusts `main`."""
    clusters = {
        name: {
            "subnet": f"10.{number}.0.0/24",
            "podSubnet": f"172.{16 + number}.0.0/20",
            "serviceSubnet": f"172.31.{number * 4}.0/22",
            "masters": {"count": masters},
            "workers": {"count": 3, "cpu": 64, "memoryGb": 256},
        }
        for number, (name, masters) in enumerate({"main": 3, "watch": 1, "shop": 1}.items())
    }
    tools: dict[str, Any] = {store: {"clusters": ["watch"]} for store in (*STORES, "grafana")}
    tools |= {"minio": {"clusters": ["main", "watch"]}, "argo-cd": {"clusters": ["shop", "watch"]}}
    return {"clusters": clusters, "tools": tools}


@cache
def made(name: str) -> Plan:
    return plan(name, **three()) if name == "custom" else plan(name)


@pytest.fixture(params=["multicluster", "custom"])
def stack(request: pytest.FixtureRequest) -> Plan:
    return made(str(request.param))


def found(stack: Plan, cluster: str, tool: str) -> Release:
    return next(r for r in stack.releases[cluster] if r.name == tool)


def places(stack: Plan, tool: str) -> list[str]:
    return [cluster for cluster, releases in stack.releases.items() if any(r.name == tool for r in releases)]


def place(stack: Plan, tool: str) -> str:
    (cluster,) = places(stack, tool)
    return cluster


def secret(release: Release, name: str) -> dict[str, Source]:
    secrets = (*release.secrets, *(s for job in release.jobs for s in job.secrets))
    return dict(next(s.data for s in secrets if s.name == name))


def bodies(release: Release, kind: str) -> list[dict[str, Any]]:
    return [m.body for m in (*release.before, *release.after) if m.body["kind"] == kind]


def reaches(stack: Plan, cluster: str, tool: str, address: str, port: int) -> bool:
    """Whether the tool's network policies let it open a connection to an address outside of its cluster."""
    for policy in bodies(found(stack, cluster, tool), "NetworkPolicy"):
        for rule in policy["spec"].get("egress", ()):
            blocks = [peer["ipBlock"]["cidr"] for peer in rule.get("to", ()) if "ipBlock" in peer]
            if port in [p["port"] for p in rule.get("ports", ())] and f"{address}/32" in blocks:
                return True
    return False


def balancer(stack: Plan, cluster: str) -> str:
    return str(next(c for c in stack.topology.clusters if c.name == cluster).entrance)


# --- logs, metrics, traces ---


def test_every_cluster_ships_to_every_store_with_a_password_of_its_own(stack: Plan) -> None:
    passwords = []
    for cluster in stack.releases:
        alloy = found(stack, cluster, "alloy")
        text = alloy.values["alloy"]["configMap"]["content"]
        for store in STORES:
            there = place(stack, store)
            if there == cluster:
                assert f".{store}.svc.cluster.local" in text
                continue
            release = found(stack, there, store)
            assert f'"https://{release.host}' in text and f'= "{cluster}"' in text
            source = secret(alloy, "alloy-agents")[store]
            assert isinstance(source, Generated) and source.cluster == there
            passwords.append((there, source.password))
            assert source.password in {p.name for p in release.passwords}
            logins = secret(release, agents.NAME)["users"]
            assert isinstance(logins, Htpasswd) and logins.passwords[cluster] == source.password
            assert reaches(stack, cluster, "alloy", balancer(stack, there), 443)
    assert len(passwords) == len(set(passwords)) == (len(stack.releases) - 1) * len(STORES)


def test_no_cluster_writes_as_another(stack: Plan) -> None:
    """Whatever tenant a request names, the door writes the user who logged in over it."""
    for store in STORES:
        release = found(stack, place(stack, store), store)
        (door,) = (m for m in bodies(release, "Middleware") if m["metadata"]["name"] == agents.NAME)
        assert door["spec"]["basicAuth"]["headerField"] == agents.TENANT
        logins = secret(release, agents.NAME)["users"]
        assert isinstance(logins, Htpasswd)
        assert set(logins.passwords) == set(stack.releases) - {place(stack, store)}
        for ingress in bodies(release, "Ingress"):
            if ingress["metadata"]["name"] == agents.NAME:
                (chain,) = ingress["metadata"]["annotations"].values()
                assert chain == f"{store}-{agents.NAME}@kubernetescrd"


def test_grafana_reads_every_cluster(stack: Plan) -> None:
    text = json.dumps(found(stack, place(stack, "grafana"), "grafana").values)
    assert "|".join(sorted(stack.releases)) in text


# --- images, logins, certificates ---


def test_harbor_is_every_nodes_mirror(stack: Plan) -> None:
    harbor = found(stack, place(stack, "harbor"), "harbor").host
    assert stack.registry == harbor
    mirrors = rke2.registries(stack.settings.media, stack.registry)["mirrors"]
    assert set(mirrors) == set(rke2.MIRRORED)
    assert {mirror["endpoint"][0] for mirror in mirrors.values()} == {f"https://{harbor}"}


def test_keycloak_is_every_api_servers_issuer(stack: Plan) -> None:
    keycloak = found(stack, place(stack, "keycloak"), "keycloak").host
    assert stack.issuer == f"https://{keycloak}/realms/{stack.settings.identity.realm}"
    for cluster in stack.topology.clusters:
        name = dns.api_name(stack.settings, cluster.name)
        for host in cluster.nodes:
            config = rke2.node_config(cluster, host, stack.settings.kubernetes, name, stack.issuer)
            flags = config.get("kube-apiserver-arg", [])
            assert (f"oidc-issuer-url={stack.issuer}" in flags) == (host.role == "master"), host.name
            assert host.role == "worker" or name in config["tls-san"]


def realm_of(stack: Plan) -> dict[str, Any]:
    (job,) = found(stack, place(stack, "keycloak"), "keycloak").jobs
    data: dict[str, Any] = json.loads(job.files["realm.json"])
    return data


def test_one_realm_knows_every_clusters_clients_each_once(stack: Plan) -> None:
    clients = [c["representation"] for c in realm_of(stack)["clients"]]
    ids = [c["clientId"] for c in clients]
    assert len(ids) == len(set(ids))
    declared = {(cluster, c.client_id) for cluster, rs in stack.releases.items() for r in rs for c in r.clients}
    assert {client_id for _, client_id in declared} <= set(ids) and len(declared) > 10
    secrets = secret(found(stack, place(stack, "keycloak"), "keycloak"), "keycloak-clients")
    for cluster, client_id in declared:
        if client_id in secrets and cluster != place(stack, "keycloak"):
            assert secrets[client_id] == Generated(password=f"client-{client_id}", cluster=cluster)


def test_every_cluster_has_the_authority_and_hands_the_bundle_to_every_namespace(stack: Plan) -> None:
    for cluster, releases in stack.releases.items():
        issuers = {m["metadata"]["name"] for m in bodies(found(stack, cluster, "cert-manager"), "ClusterIssuer")}
        assert "opstella-ca" in issuers
        (certificate,) = bodies(found(stack, cluster, "traefik"), "Certificate")
        assert f"*.{stack.settings.domain}" in certificate["spec"]["dnsNames"]
        (bundle,) = (b for b in bodies(found(stack, cluster, "trust-manager"), "Bundle") if b["metadata"]["name"] == "opstella-trust")
        assert "namespaceSelector" not in bundle["spec"]["target"]
        # What speaks TLS to another cluster verifies it.
        assert all(r.ca_bundle for r in releases if r.clients or r.jobs or r.name == "alloy" if r.name not in HAS_ITS_OWN)


# --- Vault ---


def provisioning(release: Release) -> Job:
    """The Job that sets Vault up; another one tells GitLab where Vault is."""
    return next(job for job in release.jobs if "vault.json" in job.files)


def methods(stack: Plan) -> Iterator[tuple[str, dict[str, Any]]]:
    job = provisioning(found(stack, place(stack, "vault"), "vault"))
    yield from json.loads(job.files["vault.json"])["methods"].items()


def test_vault_trusts_each_clusters_accounts_by_that_clusters_keys(stack: Plan) -> None:
    home = place(stack, "vault")
    others = set(stack.releases) - {home}
    release = found(stack, home, "vault")
    job = provisioning(release)
    config = json.loads(job.files["vault.json"])
    assert {name for name, m in config["methods"].items() if m["type"] == "jwt"} == {f"kubernetes-{c}" for c in others}
    assert secret(release, vault.CLUSTERS_SECRET) == {c: ClusterAccountKeys(cluster=c) for c in others}
    assert stack.clusters_verified(ClusterAccountKeys) == others
    # The release itself waits for no other cluster, only its Job does.
    assert vault.CLUSTERS_SECRET not in {s.name for s in release.secrets}
    items = {item["path"]: item for item in config["items"]}
    for cluster in others:
        method = f"auth/{vault_config.method(cluster)}"
        assert items[f"{method}/config"]["keys"] == {"jwt_validation_pubkeys": [vault_config.CLUSTER_FILES, cluster]}
        roles = [path for path in items if path.startswith(f"{method}/role/")]
        assert roles == [f"{method}/role/{vault_config.ISSUER}"]
        role = items[roles[0]]["data"]
        assert role["bound_subject"] == "system:serviceaccount:cert-manager:vault-issuer"
        assert role["bound_audiences"] == ["vault://vault-issuer"] and role["token_policies"] == [vault_config.ISSUER]
        assert role["token_max_ttl"] <= 15 * 60
        assert items[f"{method}/config"]["path"] in json.loads(config["policies"][vault_config.PROVISIONER])["path"]


def test_every_cluster_can_have_certificates_of_vault(stack: Plan) -> None:
    home = place(stack, "vault")
    name = found(stack, home, "vault").host
    for cluster in stack.releases:
        carrier = found(stack, cluster, "vault" if cluster == home else "cert-manager")
        issuer: Manifest = next(m for m in carrier.after if m.name == vault_config.ISSUER)
        server = issuer.body["spec"]["vault"]
        mount = server["auth"]["kubernetes"]["mountPath"].removeprefix("/v1/auth/")
        assert mount in dict(methods(stack))
        assert secret(carrier, vault_issuer.CA_SECRET)
        if cluster == home:
            assert issuer.wait_for and mount == "kubernetes"
            continue
        assert server["server"] == f"https://{name}" and mount == f"kubernetes-{cluster}"
        assert issuer.wait_for is None, "a cluster does not wait for another one's Vault"
        assert reaches(stack, cluster, "cert-manager", balancer(stack, home), 443)


# --- Headlamp, Argo CD ---


def test_headlamp_shows_every_cluster_with_nobodys_credential(stack: Plan) -> None:
    home = place(stack, "headlamp")
    release = found(stack, home, "headlamp")
    assert release.values["config"]["inClusterContextName"] == home
    data = secret(release, headlamp.CLUSTERS_SECRET)
    source = data.pop(headlamp.KUBECONFIG)
    assert isinstance(source, Composed) and source.passwords == ("client-headlamp",)
    config = yaml.safe_load(source.template.format(**{"client-headlamp": "s3cret"}))
    clusters = {c["name"]: c["cluster"] for c in config["clusters"]}
    assert set(clusters) == {c["name"] for c in config["contexts"]} == set(stack.releases) - {home}
    (person,) = config["users"]
    assert set(person["user"]) == {"auth-provider"}
    login = person["user"]["auth-provider"]["config"]
    assert login["client-secret"] == "s3cret" and login["idp-issuer-url"] == stack.issuer
    records = {record.name: str(record.address) for record in stack.records}
    for name, cluster in clusters.items():
        host = dns.api_name(stack.settings, name)
        assert cluster["server"] == f"https://{host}:6443" and records[host] == balancer(stack, name)
        file = cluster["certificate-authority"].removeprefix(f"{headlamp.CLUSTERS_FOLDER}/")
        assert data.pop(file) == ClusterAuthority(cluster=name)
        assert reaches(stack, home, "headlamp", balancer(stack, name), 6443)
    assert not data
    mounts = {m["name"]: m["mountPath"] for m in release.values["volumeMounts"]}
    assert f"-kubeconfig={mounts['clusters']}/{headlamp.KUBECONFIG}" in release.values["config"]["extraArgs"]


def test_the_groups_have_the_same_rights_in_every_cluster(stack: Plan) -> None:
    (text,) = rke2.manifests(stack.issuer).values()
    bound = {subject["name"] for binding in yaml.safe_load_all(text) for subject in binding["subjects"]}
    assert bound == {f"oidc:{group}" for group in realm.GROUPS}


def test_each_argo_cd_manages_its_own_cluster_under_its_own_name(stack: Plan) -> None:
    clients = {c["representation"]["clientId"]: c["representation"] for c in realm_of(stack)["clients"]}
    homes = places(stack, "argo-cd")
    assert len(homes) == 2
    for cluster in homes:
        release = found(stack, cluster, "argo-cd")
        web, cli = (clients[c.client_id] for c in release.clients)
        assert web["redirectUris"] == [f"https://{release.host}/auth/callback"] and cli["publicClient"]
        config = yaml.safe_load(release.values["configs"]["cm"]["oidc.config"])
        assert (config["clientID"], config["cliClientID"]) == (web["clientId"], cli["clientId"])
        assert config["issuer"] == stack.issuer
        # No Secret registers another cluster with it: all it knows is the one it runs in.
        assert not [s for s in release.secrets if s.labels.get("argocd.argoproj.io/secret-type") == "cluster"]
        assert not reaches(stack, cluster, "argo-cd", balancer(stack, place(stack, "headlamp")), 6443)
    hosts = {found(stack, cluster, "argo-cd").host for cluster in homes}
    assert len(hosts) == 2


# --- order ---


def test_a_cluster_waits_for_another_one_only_where_it_would_fail(stack: Plan) -> None:
    login = place(stack, "keycloak")
    waiting = {
        (cluster, release.name, need)
        for cluster, releases in stack.releases.items()
        for release in releases
        for need in release.needs
        if is_elsewhere(need)
    }
    asking = {
        (cluster, release.name, f"{login}/keycloak")
        for cluster, releases in stack.releases.items()
        for release in releases
        if cluster != login and release.name in ("minio", "oauth2-proxy", "vault")
    }
    assert waiting == asking and waiting
    order = cluster_order(stack.releases)
    assert set(order) == set(stack.releases)
    for cluster, _, need in waiting:
        assert order.index(need.partition("/")[0]) < order.index(cluster)


def test_clusters_that_wait_for_one_another_are_refused() -> None:
    releases = made("multicluster").releases
    one = replace(releases["dev"][0], needs=("prd/x",))
    two = replace(releases["prd"][0], needs=("dev/x",))
    with pytest.raises(ValueError, match="dev waits for prd; prd waits for dev"):
        cluster_order({"dev": (one,), "prd": (two,), "devsecops": ()})


def test_one_cluster_alone_trusts_ships_to_and_waits_for_nobody() -> None:
    stack = made("standalone")
    assert not stack.clusters_verified(ClusterAccountKeys) and not stack.clusters_verified(ClusterAuthority)
    assert not [need for r in stack.releases["standalone"] for need in r.needs if is_elsewhere(need)]
    assert {m["type"] for _, m in methods(stack)} == {"kubernetes", "oidc"}
    assert "-kubeconfig" not in json.dumps(found(stack, "standalone", "headlamp").values)
