"""Argo CD's login, its rights by group, and what it is given from the settings."""

from __future__ import annotations

from dataclasses import replace

import yaml

from config.services import Apps, ArgoCd, GitRepository
from plan.tools import argo_cd
from plan.tools.model import Release, ToolInputs
from plan.tools.realm import GROUPS
from plan.tools.sources import CaBundle, Clear, Given

HOSTS = {"argocd": "argocd.example.com", "keycloak": "idp.example.com", "gitlab": "gitlab.example.com"}
INPUTS = ToolInputs(
    domain="example.com", hosts=HOSTS, all_hosts=HOSTS, nfs_server="192.168.72.13", nfs_path="/srv/nfs",
    clusters=("standalone",), present=frozenset({"trust-manager"}),
)  # fmt: skip
REPOSITORIES = {
    "apps": GitRepository(url="https://gitlab.example.com/platform/apps.git", username="argocd", password="apps-token"),
    "charts": GitRepository(url="https://git.example.org/charts.git"),
}


def released(**argocd: object) -> Release:
    return argo_cd.release(replace(INPUTS, argocd=ArgoCd.model_validate(argocd, by_name=True)))


def test_login_is_the_realms_and_its_secret_is_only_named() -> None:
    release = released()
    login = yaml.safe_load(release.values["configs"]["cm"]["oidc.config"])
    assert login["issuer"] == "https://idp.example.com/realms/opstella"
    web, cli = release.clients
    assert (login["clientID"], login["cliClientID"]) == (web.client_id, cli.client_id)
    # Argo CD resolves `$<Secret>:<key>`, and only in Secrets with the label that marks its own.
    assert login["clientSecret"] == f"${web.secret}:{web.secret_key}"
    assert web.labels == {"app.kubernetes.io/part-of": "argocd"}
    assert web.redirect_uris == ("https://argocd.example.com/auth/callback",)
    assert cli.public and cli.pkce and cli.secret is None
    assert web.pkce is login["enablePKCEAuthentication"] is True and not web.public
    assert "groups" in login["requestedScopes"]


def test_every_group_has_the_role_that_its_client_promises() -> None:
    release = released()
    rbac = release.values["configs"]["rbac"]
    rules = [tuple(part.strip() for part in line.split(",")) for line in rbac["policy.csv"].splitlines()]
    assert {rule[1]: rule[2] for rule in rules if rule[0] == "g" and rule[1] in GROUPS} == release.clients[0].roles
    assert rbac["policy.default"] == "" and rbac["scopes"] == "[groups]"  # nobody else may anything
    developer = {(rule[2], rule[3]) for rule in rules if rule[:2] == ("p", "role:developer")}
    assert ("applications", "sync") in developer
    assert not {what for what, action in developer if action in ("create", "delete", "update", "*")}


def test_two_argo_cds_are_two_clients() -> None:
    names = {
        client.client_id
        for cluster in ("dev", "prd")
        for client in argo_cd.release(replace(INPUTS, cluster=cluster, clusters=("dev", "prd"))).clients
    }
    assert names == {"argocd-dev", "argocd-dev-cli", "argocd-prd", "argocd-prd-cli"}


def test_repositories_name_their_secret() -> None:
    secrets = {s.name: s for s in released(repositories=REPOSITORIES).secrets}
    apps, charts = secrets["repository-apps"], secrets["repository-charts"]
    assert apps.labels["argocd.argoproj.io/secret-type"] == "repository"
    assert apps.data["password"] == Given(name="apps-token") and apps.data["username"] == Clear(text="argocd")
    assert "password" not in charts.data and "username" not in charts.data


def test_app_of_apps_comes_from_a_repository_of_the_settings_and_prunes_nothing() -> None:
    release = released(repositories=REPOSITORIES, apps=Apps(repository="apps", path="root"))
    bodies = {m.body["kind"]: m.body for m in release.after}
    application, project = bodies["Application"]["spec"], bodies["AppProject"]["spec"]
    assert application["source"]["repoURL"] == REPOSITORIES["apps"].url in project["sourceRepos"]
    assert application["source"]["path"] == "root"
    assert application["project"] == bodies["AppProject"]["metadata"]["name"]
    assert application["syncPolicy"]["automated"]["prune"] is False


def test_gitlabs_certificate_is_trusted_before_the_pods_that_mount_it_start() -> None:
    release = released()
    (certificates,) = release.config_maps
    assert (certificates.name, certificates.namespace) == ("argocd-tls-certs-cm", "argocd")
    # Argo CD looks the server up by its name, and lists only what has its label.
    assert certificates.data == {"gitlab.example.com": CaBundle()}
    assert certificates.labels == {"app.kubernetes.io/part-of": "argocd"}
    assert release.values["configs"]["tls"] == {"create": False} and release.after == ()
    without = argo_cd.release(replace(INPUTS, all_hosts={k: v for k, v in HOSTS.items() if k != "gitlab"}))
    assert without.config_maps == () and "tls" not in without.values["configs"]


def test_the_chart_opens_nothing_that_the_plan_closes() -> None:
    assert released().values["global"]["networkPolicy"] == {"create": False}
