"""No default credential, and no open set-up page, is reachable at a public name at any moment.

For each tool that a new installation of would let anybody in: why ours does not, from its release being made on.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from plan import gitlab
from plan.tools import argo_cd, defectdojo, grafana, harbor, keycloak, minio, sonarqube, vault
from plan.tools.model import Clear, Generated, Release
from plan.tools.realm import SETTINGS
from tests.plan.stacks import plan

PLAN = plan()
RELEASES = {release.name: release for release in PLAN.releases["standalone"]}


def secret(release: Release, name: str, key: str) -> Any:
    """Where the value comes from. Secrets are made before the release."""
    (found,) = (one for one in release.secrets if one.name == name)
    return found.data[key]


def ingresses(manifests: Any) -> list[dict[str, Any]]:
    return [one.body for one in manifests if one.body["kind"] == "Ingress"]


def test_sonarqube_is_public_only_after_its_job_changed_the_password() -> None:
    """The stack makes what is in `after` when the Jobs have succeeded (tests/components/test_tool_stack.py)."""
    release = RELEASES[sonarqube.NAME]
    assert release.values["ingress"] == {"enabled": False}
    assert ingresses(release.before) == [] and [job.before for job in release.jobs] == [False]
    (way,) = ingresses(release.after)
    (rule,) = way["spec"]["rules"]
    assert rule["host"] == release.host and way["spec"]["ingressClassName"] == "traefik"
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "sonarqube", "port": {"number": sonarqube.PORT}}


def test_every_other_first_administrator_has_the_stacks_password_from_the_first_start() -> None:
    found = {
        harbor.NAME: secret(RELEASES["harbor"], RELEASES["harbor"].values["existingSecretAdminPassword"], "HARBOR_ADMIN_PASSWORD"),
        grafana.NAME: secret(RELEASES["grafana"], RELEASES["grafana"].values["admin"]["existingSecret"], "admin-password"),
        minio.NAME: secret(RELEASES["minio"], RELEASES["minio"].values["existingSecret"], "rootPassword"),
        defectdojo.NAME: secret(RELEASES["defectdojo"], defectdojo.SECRET, "DD_ADMIN_PASSWORD"),
        argo_cd.NAME: secret(RELEASES["argo-cd"], argo_cd.SECRET, "admin.password"),
    }
    environment = {one["name"]: one for one in yaml.safe_load(RELEASES["keycloak"].values["extraEnv"])}
    reference = environment["KC_BOOTSTRAP_ADMIN_PASSWORD"]["valueFrom"]["secretKeyRef"]
    found[keycloak.NAME] = secret(RELEASES["keycloak"], reference["name"], reference["key"])
    assert not any(isinstance(one, Clear) for one in found.values())
    known = {release.name for release in RELEASES.values() if release.login} - {sonarqube.NAME}
    assert set(found) == known, "a tool with a login that is not looked at here"
    assert all(isinstance(one, Generated) for name, one in found.items() if name != argo_cd.NAME)


def test_nobody_signs_up() -> None:
    assert "gitlab_rails['gitlab_signup_enabled'] = false" in gitlab.gitlab_rb("git.example.com", "19.3.1")
    assert SETTINGS["registrationAllowed"] is False
    assert RELEASES["grafana"].values["grafana.ini"]["auth.generic_oauth"]["role_attribute_strict"] is True


def closed(release: Release) -> dict[str, set[str]]:
    """Host to paths that answer 403, by middlewares that are there before the release."""
    shut = {
        f"{one.body['metadata']['namespace']}-{one.body['metadata']['name']}@kubernetescrd"
        for one in release.before
        if one.body["kind"] == "Middleware" and one.body["spec"] == {"ipAllowList": {"sourceRange": ["127.0.0.1/32"]}}
    }
    found: dict[str, set[str]] = {}
    for way in ingresses(release.before):
        if way["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"] in shut:
            for rule in way["spec"]["rules"]:
                found.setdefault(rule["host"], set()).update(path["path"] for path in rule["http"]["paths"])
    return found


def test_what_is_for_emergencies_or_for_the_inside_is_closed_from_the_beginning() -> None:
    assert closed(RELEASES["vault"]) == {RELEASES["vault"].host: {"/v1/sys/generate-root"}}
    assert closed(RELEASES["keycloak"]) == {
        RELEASES["keycloak"].host: {"/admin/master", "/admin/realms/master", "/realms/master"}
    }
    assert closed(RELEASES["minio"]) == {
        RELEASES["minio"].other_hosts[0]: {"/minio/metrics", "/minio/prometheus", "/minio/v2/metrics"}
    }


def test_vault_is_open_without_a_token_only_where_the_public_name_does_not_lead() -> None:
    config = json.loads(RELEASES["vault"].values["server"]["ha"]["raft"]["config"])
    assert [f"/v1/sys/{name}" for name in config["enable_unauthenticated_access"]] == list(vault.CLOSED)


def test_the_administrators_realm_is_opened_by_a_setting() -> None:
    opened = plan(identity={"masterConsole": True})
    (release,) = (r for r in opened.releases["standalone"] if r.name == "keycloak")
    assert closed(release) == {} and release.login is not None
    assert release.login.url == f"https://{release.host}/admin/"
    assert RELEASES["keycloak"].login is not None and "svc.cluster.local" in RELEASES["keycloak"].login.url


def test_a_developer_synchronises_what_an_application_says_and_no_other_revision() -> None:
    configs = RELEASES["argo-cd"].values["configs"]
    assert configs["cm"]["application.sync.requireOverridePrivilegeForRevisionSync"] == "true"
    granted = [line.split(", ")[2:4] for line in configs["rbac"]["policy.csv"].splitlines() if line.startswith("p, role:developer")]
    assert ["applications", "sync"] in granted and ["applications", "override"] not in granted
