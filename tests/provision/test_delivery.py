"""Provisioning of SonarQube and DefectDojo, against doubles of their APIs that take no other names than the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from plan.tools import defectdojo, sonarqube
from plan.tools.model import Release
from tests.support.delivery_doubles import Cluster, DefectDojo, Double, SonarQube, serving
from tests.support.platform import plan_of

RELEASES = {release.name: release for release in plan_of("standalone").releases["standalone"]}
PASSWORD, CI_PASSWORD = "Strong-password-0123456789", "Ci-password-0123456789"
MARK = "made by the Opstella stack"


@dataclass
class Place:
    """A double, served beside a cluster's API, and what the Job is given."""

    double: Double
    release: Release
    url: str
    cluster: Cluster
    api: str
    folder: Path
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)

    def run(self) -> subprocess.CompletedProcess[str]:
        """The product's Job, here."""
        (job,) = self.release.jobs
        name = self.release.name
        files = {"account/token": "account", "account/namespace": name, "account/ca.crt": "", **job.files}
        configuration = json.loads(files[f"{name}.json"])
        if "descriptor" in configuration:
            configuration["descriptor"] = f"{self.api}/descriptor"
        files[f"{name}.json"] = json.dumps(configuration)
        assert set(self.secrets) == set(job.secret_files)
        files |= {f"secrets/{s}/{key}": value for s, keys in self.secrets.items() for key, value in keys.items()}
        for path, text in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text)
        environment = {
            f"{name.upper()}_URL": self.url, "KUBERNETES_API": self.api, "SERVICE_ACCOUNT": str(self.folder / "account"),
            "SECRETS": str(self.folder / "secrets"), "CONFIG_FILE": str(self.folder / f"{name}.json"), "PATIENCE": "2",
            "PATH": os.environ["PATH"],
        }  # fmt: skip
        assert f"{name.upper()}_URL" in job.environment
        done = subprocess.run(
            [sys.executable, str(self.folder / f"{name}.py")],
            env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        for secret in (PASSWORD, CI_PASSWORD, "sqtoken", "token-of"):
            assert secret not in done.stdout + done.stderr
        return done

    def applied(self) -> str:
        done = self.run()
        assert (done.returncode, self.double.complaints) == (0, []), done.stderr
        return done.stdout

    def refused(self) -> str:
        changes = list(self.double.changes)
        done = self.run()
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert self.double.changes == changes
        return done.stderr


@pytest.fixture
def sonar(tmp_path: Path) -> Iterator[Place]:
    double, cluster = SonarQube(), Cluster()
    with serving(double) as url, serving(cluster) as api:
        yield Place(double, RELEASES["sonarqube"], url, cluster, api, tmp_path, {"admin": {"password": PASSWORD}})


@pytest.fixture
def dojo(tmp_path: Path) -> Iterator[Place]:
    double, cluster = DefectDojo(PASSWORD), Cluster()
    theirs = f"/api/v1/namespaces/{sonarqube.NAMESPACE}/secrets/{sonarqube.TOKENS_SECRET}"
    cluster.secrets[theirs] = {"metadata": {"resourceVersion": "1"}, "data": {"defectdojo": "c3F0b2tlbi1vZi1kb2pv"}}
    secrets = {"admin": {"DD_ADMIN_PASSWORD": PASSWORD}, "ci": {"password": CI_PASSWORD}}
    with serving(double) as url, serving(cluster) as api:
        yield Place(double, RELEASES["defectdojo"], url, cluster, api, tmp_path, secrets)


@pytest.mark.parametrize("name", ["sonar", "dojo"])
def test_a_second_run_changes_nothing_and_says_so(name: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(name)
    assert "changed: " in place.applied()
    changes, kept = list(place.double.changes), list(place.cluster.changes)
    assert place.applied() == "nothing to change\n"
    assert (place.double.changes, place.cluster.changes) == (changes, kept)


def test_sonarqube_takes_the_realms_logins_and_groups(sonar: Place) -> None:
    sonar.applied()
    double = sonar.double
    assert isinstance(double, SonarQube)
    assert double.password == PASSWORD
    assert double.values["sonar.auth.saml.certificate.secured"] == "MIIBcertificateOne"
    assert double.values["sonar.auth.saml.enabled"] == "true"
    assert double.values["sonar.auth.saml.providerId"].startswith("https://")
    assert double.permissions["platform-admins"] == set(sonarqube.PERMISSIONS["platform-admins"])
    assert double.permissions["developers"] == {"provisioning", "scan"}
    for key, name in (("ci", "opstella-ci"), ("defectdojo", "opstella-defectdojo")):
        assert sonar.cluster.value(sonarqube.NAMESPACE, sonarqube.TOKENS_SECRET, key) == double.tokens[name]


def test_sonarqube_follows_a_new_certificate_and_a_permission_taken_by_hand(sonar: Place) -> None:
    sonar.applied()
    assert isinstance(sonar.double, SonarQube)
    sonar.cluster.certificate = "MIIBcertificateTwo"
    sonar.double.permissions["developers"] = {"scan", "admin"}
    text = sonar.applied()
    assert sonar.double.values["sonar.auth.saml.certificate.secured"] == "MIIBcertificateTwo"
    assert sonar.double.permissions["developers"] == {"provisioning", "scan"}
    assert text.endswith("3 changes\n")


def test_a_token_that_was_revoked_is_made_anew(sonar: Place) -> None:
    sonar.applied()
    assert isinstance(sonar.double, SonarQube)
    before = dict(sonar.double.tokens)
    del sonar.double.tokens["opstella-ci"]
    assert sonar.applied() == "changed: token opstella-ci: made\n1 changes\n"
    assert sonar.double.tokens["opstella-defectdojo"] == before["opstella-defectdojo"]
    kept = sonar.cluster.value(sonarqube.NAMESPACE, sonarqube.TOKENS_SECRET, "ci")
    assert kept == sonar.double.tokens["opstella-ci"] != before["opstella-ci"]


def test_sonarqube_with_another_password_is_refused(sonar: Place) -> None:
    assert isinstance(sonar.double, SonarQube)
    sonar.double.password = "somebody changed it"
    assert "neither the password of this stack for admin, nor its first one" in sonar.refused()


def test_a_group_of_somebody_else_is_refused(sonar: Place, dojo: Place) -> None:
    sonar.applied()
    dojo.applied()
    assert isinstance(sonar.double, SonarQube) and isinstance(dojo.double, DefectDojo)
    sonar.double.groups[-1]["description"] = dojo.double.tables["dojo_groups"][0]["description"] = "ours"
    assert "SonarQube has a group viewers that was not made by this stack" in sonar.refused()
    assert "DefectDojo has a group platform-admins that was not made by this stack" in dojo.refused()


def test_sonarqube_whose_database_waits_for_a_person_says_so(sonar: Place) -> None:
    assert isinstance(sonar.double, SonarQube)
    sonar.double.status = "DB_MIGRATION_NEEDED"
    assert "open /setup in a browser" in sonar.refused()


def test_defectdojo_knows_groups_people_ci_and_sonarqube(dojo: Place) -> None:
    dojo.applied()
    assert isinstance(dojo.double, DefectDojo)
    tables = dojo.double.tables
    groups = {group["name"]: group["id"] for group in tables["dojo_groups"]}
    roles = {role["id"]: role["name"] for role in tables["roles"]}
    given = {one["group"]: roles[one["role"]] for one in tables["global_roles"] if one["group"]}
    assert {name: given[number] for name, number in groups.items()} == defectdojo.ROLES
    assert tables["system_settings"][0]["default_group"] == groups["viewers"]
    (admin,) = (user for user in tables["users"] if user["username"] == "opstella-admin")
    assert admin["is_superuser"] and admin["email"].endswith("@devops.example.com")
    (tool,) = tables["tool_configurations"]
    assert (tool["api_key"], tool["url"]) == (
        "sqtoken-of-dojo",
        "http://sonarqube.sonarqube.svc.cluster.local:9000/api",
    )
    token = dojo.cluster.value(defectdojo.NAMESPACE, defectdojo.TOKENS_SECRET, "ci")
    assert token == DefectDojo.of(defectdojo.CI_USER)


def test_defectdojo_takes_sonarqubes_new_token(dojo: Place) -> None:
    dojo.applied()
    assert isinstance(dojo.double, DefectDojo)
    (secret,) = (s for path, s in dojo.cluster.secrets.items() if path.endswith(sonarqube.TOKENS_SECRET))
    secret["data"]["defectdojo"] = "c3F0b2tlbi10d28="
    assert dojo.applied() == "changed: tool SonarQube of the platform\n1 changes\n"
    assert dojo.double.tables["tool_configurations"][0]["api_key"] == "sqtoken-two"


def test_defectdojo_with_another_password_is_refused(dojo: Place) -> None:
    dojo.secrets["admin"]["DD_ADMIN_PASSWORD"] = "not-the-password"
    assert "the service answered 400" in dojo.refused()


def test_defectdojo_says_when_sonarqubes_token_is_not_there(dojo: Place) -> None:
    dojo.cluster.secrets.clear()
    done = dojo.run()
    assert done.returncode == 1 and "SonarQube's token for DefectDojo is not there" in done.stderr


def test_a_user_of_cis_name_that_is_somebody_elses_is_refused(dojo: Place) -> None:
    assert isinstance(dojo.double, DefectDojo)
    dojo.double.add("users", {"username": defectdojo.CI_USER, "password": "x", "last_name": "Smith"})
    done = dojo.run()
    assert done.returncode == 1 and f"a user {defectdojo.CI_USER} that was not made by this stack" in done.stderr
