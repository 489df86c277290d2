"""Provisioning of SonarQube and DefectDojo, against doubles of their APIs that take no other names than the real ones."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest

from plan.tools import defectdojo, sonarqube
from plan.tools.model import Release
from tests.support.defectdojo_double import DefectDojo
from tests.support.delivery_doubles import Cluster, Double, SonarQube, serving
from tests.support.gitlab_ci_double import CiGitLab
from tests.support.gitlab_double import AccessToken
from tests.support.platform import plan_of

GROUPS = {"gitlabRunner": {"pushGroups": ["shop"]}}
RELEASES = {release.name: release for release in plan_of("standalone", changes=GROUPS).releases["standalone"]}
(WITHOUT_DOJO,) = (  # where it is SonarQube that sets the variables of all
    release
    for release in plan_of("standalone", changes={**GROUPS, "tools": {"defectdojo": {"enabled": False}}}).releases["standalone"]
    if release.name == "sonarqube"
)
PASSWORD, CI_PASSWORD, ROBOT = "Strong-password-0123456789", "Ci-password-0123456789", "Robot-secret-0123456789"
CI_TOKEN, READ_TOKEN = "glci-of-an-administrator", "glread-of-a-reader"
MARK = "made by the Opstella stack"


@dataclass
class Place:
    """A double, served beside a cluster's API and a GitLab, and what the Job is given."""

    double: Double
    release: Release
    url: str
    cluster: Cluster
    api: str
    gitlab: CiGitLab
    gitlab_url: str
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
        assert f"{name.upper()}_URL" in job.environment and "gitlab" in job.needs
        if "GITLAB_URL" in job.environment:
            environment |= {"GITLAB_URL": self.gitlab_url, "VARIABLES_FILE": str(self.folder / "ci_variables.json")}
        done = subprocess.run(
            [sys.executable, str(self.folder / f"{name}.py")],
            env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        for secret in (PASSWORD, CI_PASSWORD, "sqtoken", "token-of", CI_TOKEN, READ_TOKEN, ROBOT):
            assert secret not in done.stdout + done.stderr
        return done

    def applied(self) -> str:
        done = self.run()
        assert (done.returncode, self.double.complaints, self.gitlab.complaints) == (0, [], []), done.stderr
        return done.stdout

    def refused(self) -> str:
        changes = list(self.double.changes)
        done = self.run()
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert self.double.changes == changes
        return done.stderr


@pytest.fixture
def gitlab() -> CiGitLab:
    return CiGitLab({CI_TOKEN: AccessToken(scopes=frozenset({"api"}))})


@pytest.fixture
def sonar(tmp_path: Path, gitlab: CiGitLab) -> Iterator[Place]:
    double, cluster = SonarQube(), Cluster()
    secrets = {
        "admin": {"password": PASSWORD}, "gitlab": {"token": READ_TOKEN}, "gitlab-ci": {"token": CI_TOKEN},
        "harbor-robot": {"password": ROBOT},
    }  # fmt: skip
    with serving(double) as url, serving(cluster) as api, serving(gitlab) as there:
        yield Place(double, WITHOUT_DOJO, url, cluster, api, gitlab, there, tmp_path / "sonar", secrets)


@pytest.fixture
def dojo(tmp_path: Path, gitlab: CiGitLab) -> Iterator[Place]:
    double, cluster = DefectDojo(PASSWORD), Cluster()
    theirs = f"/api/v1/namespaces/{sonarqube.NAMESPACE}/secrets/{sonarqube.TOKENS_SECRET}"
    cluster.secrets[theirs] = {"metadata": {"resourceVersion": "1"}, "data": {"defectdojo": "c3F0b2tlbi1vZi1kb2pv", "ci": "c3F0b2tlbi1vZi1jaQ=="}}
    secrets = {
        "admin": {"DD_ADMIN_PASSWORD": PASSWORD}, "ci": {"password": CI_PASSWORD}, "gitlab-ci": {"token": CI_TOKEN},
        "harbor-robot": {"password": ROBOT},
    }  # fmt: skip
    with serving(double) as url, serving(cluster) as api, serving(gitlab) as there:
        yield Place(double, RELEASES["defectdojo"], url, cluster, api, gitlab, there, tmp_path / "dojo", secrets)


@pytest.mark.parametrize("name", ["sonar", "dojo"])
def test_a_second_run_changes_nothing_and_says_so(name: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(name)
    assert "changed: " in place.applied()
    changes, kept, told = list(place.double.changes), list(place.cluster.changes), list(place.gitlab.changes)
    assert place.applied() == "nothing to change\n"
    assert (place.double.changes, place.cluster.changes, place.gitlab.changes) == (changes, kept, told)


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
    done = sonar.applied()
    assert done == "changed: token opstella-ci: made\nchanged: CI variable SONAR_TOKEN: value\n2 changes\n"
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


def test_whoever_logs_in_to_sonarqube_may_do_no_more_than_their_groups(sonar: Place) -> None:
    """Everybody is in sonar-users, which may make projects and analyse them in every new SonarQube."""
    sonar.applied()
    double = sonar.double
    assert isinstance(double, SonarQube)
    assert double.permissions["sonar-users"] == set()
    # Without it, the administrator could make no token for analyses again.
    assert "scan" in double.permissions["sonar-administrators"]
    double.tokens.clear()
    assert "token opstella-ci: made" in sonar.applied()


SONAR_REFUSES = [
    ("/api/permissions/add_group", {"groupName": "sonar-users", "permission": "portfoliocreator"}, 400),
    ("/api/permissions/add_group", {"groupName": "nobody", "permission": "scan"}, 404),
    ("/api/permissions/remove_group", {"groupName": "sonar-administrators", "permission": "admin"}, 400),
    ("/api/settings/set", {"key": "sonar.auth.saml.user.name", "value": " "}, 400),
    ("/api/settings/set", {"key": "sonar.forceAuthentication", "value": "yes"}, 400),
    ("/api/settings/set", {"key": "sonar.auth.saml.user.name", "value": "x" * 4001}, 400),
    ("/api/settings/set", {"key": "sonar.auth.saml.user.name"}, 400),
    ("/api/user_tokens/generate", {"login": "admin", "name": "x", "type": "PROJECT"}, 400),
    ("/api/user_tokens/generate", {"login": "admin", "name": "x" * 101, "type": "USER_TOKEN"}, 400),
    ("/api/alm_settings/create_gitlab", {"key": "x", "url": "https://gitlab.example.com/api/v4"}, 400),
    ("/api/v2/authorizations/groups", {"name": "x", "description": "a form, where JSON is taken"}, 415),
]


@pytest.mark.parametrize(("path", "form", "status"), SONAR_REFUSES)
def test_the_double_refuses_what_sonarqube_does(path: str, form: dict[str, str], status: int) -> None:
    double = SonarQube()
    login = base64.b64encode(b"admin:admin").decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/x-www-form-urlencoded"}
    assert double.answer("POST", path, headers, urlencode(form).encode())[0] == status
    assert not double.complaints and not double.changes


def test_a_setting_that_sonarqube_would_keep_and_never_read_is_complained_of() -> None:
    double = SonarQube()
    login = base64.b64encode(b"admin:admin").decode()
    form = {"key": "sonar.auth.saml.providername", "value": "x"}
    assert double.answer("POST", "/api/settings/set", {"Authorization": f"Basic {login}"}, urlencode(form).encode())[0] == 400
    assert double.complaints


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
    assert done.returncode == 1 and "SonarQube's token is not there" in done.stderr


def test_a_user_of_cis_name_that_is_somebody_elses_is_refused(dojo: Place) -> None:
    assert isinstance(dojo.double, DefectDojo)
    dojo.double.insert("users", {"username": defectdojo.CI_USER, "password": "x", "last_name": "Smith"})
    done = dojo.run()
    assert done.returncode == 1 and f"a user {defectdojo.CI_USER} that was not made by this stack" in done.stderr


# --- what they tell one another ---


def test_the_one_that_sets_variables_sets_those_of_all_with_secrets_that_work(sonar: Place, dojo: Place) -> None:
    stated = {
        "SONAR_HOST_URL": f"https://{RELEASES['sonarqube'].host}",
        "HARBOR_HOST": RELEASES["harbor"].host,
        "HARBOR_PROJECT": "library",
        "VAULT_ADDR": f"https://{RELEASES['vault'].host}",
    }
    of_groups = {"HARBOR_USERNAME": "robot$library+opstella-ci", "HARBOR_PASSWORD": ROBOT}

    def found(place: Place) -> dict[str, str]:
        place.gitlab.variables.clear()
        place.gitlab.groups.clear()
        place.applied()
        assert {key: one["value"] for key, one in place.gitlab.groups["shop"].items()} == of_groups
        there = [*place.gitlab.variables.values(), *place.gitlab.groups["shop"].values()]
        assert all(one["raw"] and MARK in one["description"] for one in there)
        masked = {one["key"] for one in there if one["masked"]}
        assert masked == {one["key"] for one in there if "TOKEN" in one["key"] or "PASSWORD" in one["key"]}
        assert {one["key"] for one in there if one["protected"]} == set(of_groups)
        return {key: one["value"] for key, one in place.gitlab.variables.items()}

    alone = found(sonar)
    assert isinstance(sonar.double, SonarQube)
    assert alone == {**stated, "SONAR_TOKEN": sonar.double.tokens["opstella-ci"]}
    assert found(dojo) == {
        **stated,
        "SONAR_TOKEN": "sqtoken-of-ci",
        "DEFECTDOJO_URL": f"https://{RELEASES['defectdojo'].host}",
        "DEFECTDOJO_PRODUCT_TYPE": "GitLab",
        "DEFECTDOJO_TOKEN": DefectDojo.of(defectdojo.CI_USER),
    }


def test_with_defectdojo_beside_it_sonarqube_makes_its_token_and_asks_nothing_of_gitlab(sonar: Place) -> None:
    sonar.release = RELEASES["sonarqube"]
    del sonar.secrets["gitlab-ci"], sonar.secrets["harbor-robot"]
    sonar.gitlab_url = "http://127.0.0.1:1"
    sonar.applied()
    assert isinstance(sonar.double, SonarQube)
    assert sonar.cluster.value(sonarqube.NAMESPACE, sonarqube.TOKENS_SECRET, "ci") == sonar.double.tokens["opstella-ci"]


def test_defectdojo_hands_on_sonarqubes_new_token(dojo: Place) -> None:
    dojo.applied()
    (secret,) = (s for path, s in dojo.cluster.secrets.items() if path.endswith(sonarqube.TOKENS_SECRET))
    secret["data"]["ci"] = "c3F0b2tlbi10d28="
    assert dojo.applied() == "changed: CI variable SONAR_TOKEN: value\n1 changes\n"
    assert dojo.gitlab.variables["SONAR_TOKEN"]["value"] == "sqtoken-two"


def test_the_tools_own_settings_stand_before_gitlab_is_asked(sonar: Place) -> None:
    sonar.gitlab.tokens.clear()
    done = sonar.run()
    assert done.returncode == 1 and "GitLab does not let this stack's token at the CI variables" in done.stderr
    assert "401 Unauthorized" in done.stderr
    assert isinstance(sonar.double, SonarQube)
    kept = sonar.cluster.value(sonarqube.NAMESPACE, sonarqube.TOKENS_SECRET, "ci")
    assert kept == sonar.double.tokens["opstella-ci"]
    sonar.gitlab.tokens[CI_TOKEN] = AccessToken(scopes=frozenset({"api"}))
    assert "CI variable SONAR_TOKEN: made" in sonar.applied()
    assert sonar.gitlab.variables["SONAR_TOKEN"]["value"] == kept


def test_sonarqube_knows_gitlab_and_takes_its_new_token(sonar: Place) -> None:
    sonar.applied()
    assert isinstance(sonar.double, SonarQube)
    url = "https://gitlab.devops.example.com/api/v4"
    assert sonar.double.gitlabs == {sonarqube.GITLAB_KEY: {"url": url, "token": READ_TOKEN}}
    sonar.secrets["gitlab"]["token"] = "glread-another-one"
    assert sonar.applied() == f"changed: GitLab at {url}: changed\n1 changes\n"
    assert sonar.double.gitlabs[sonarqube.GITLAB_KEY]["token"] == "glread-another-one"
    sonar.double.gitlabs[sonarqube.GITLAB_KEY]["url"] = "https://elsewhere.example.com/api/v4"
    assert sonar.applied().endswith("1 changes\n") and sonar.double.gitlabs[sonarqube.GITLAB_KEY]["url"] == url
    assert sonar.applied() == "nothing to change\n"


def test_a_gitlab_that_somebody_else_told_sonarqube_of_is_refused_and_can_be_handed_over(sonar: Place) -> None:
    assert isinstance(sonar.double, SonarQube)
    sonar.double.gitlabs["ours"] = {"url": "https://gitlab.example.org/api/v4", "token": "theirs"}
    done = sonar.run()
    assert done.returncode == 1 and "not made by this stack: 'ours' at https://gitlab.example.org/api/v4" in done.stderr
    assert f"change its key to '{sonarqube.GITLAB_KEY}'" in done.stderr
    assert sonar.double.gitlabs["ours"]["token"] == "theirs" and not sonar.double.tokens
    sonar.double.gitlabs[sonarqube.GITLAB_KEY] = sonar.double.gitlabs.pop("ours")
    sonar.applied()
    assert sonar.double.gitlabs[sonarqube.GITLAB_KEY]["token"] == READ_TOKEN


def test_new_projects_are_measured_by_the_stated_gate(sonar: Place) -> None:
    assert isinstance(sonar.double, SonarQube)
    sonar.double.gates.append("Anything goes")
    sonar.double.gate = "Anything goes"
    assert "quality gate of new projects: Sonar way, it was Anything goes" in sonar.applied()
    assert sonar.double.gate == sonarqube.QUALITY_GATE
    sonar.double.gates.remove("Sonar way")
    assert "SonarQube has no quality gate 'Sonar way'" in sonar.refused()


def roles_of_ci(double: DefectDojo) -> tuple[list[str], list[tuple[str, str]]]:
    """Its roles over everything, and in product types."""
    tables = double.tables
    (user,) = (user["id"] for user in tables["users"] if user["username"] == defectdojo.CI_USER)
    names = {role["id"]: role["name"] for role in tables["roles"]}
    kinds = {kind["id"]: kind["name"] for kind in tables["product_types"]}
    everywhere = [names[one["role"]] for one in tables["global_roles"] if one["user"] == user]
    return everywhere, [
        (kinds[one["product_type"]], names[one["role"]]) for one in tables["product_type_members"] if one["user"] == user
    ]


def test_the_user_of_ci_has_rights_in_its_product_type_alone(dojo: Place) -> None:
    dojo.applied()
    double = dojo.double
    assert isinstance(double, DefectDojo)
    assert roles_of_ci(double) == ([], [("GitLab", "Maintainer")])
    (user,) = (user for user in double.tables["users"] if user["username"] == defectdojo.CI_USER)
    assert not user.get("is_superuser")
    (reader,) = (role["id"] for role in double.tables["roles"] if role["name"] == "Reader")
    double.insert("global_roles", {"user": user["id"], "group": None, "role": reader})
    next(one for one in double.tables["product_type_members"] if one["user"] == user["id"])["role"] = reader
    double.insert("dojo_group_members", {"group": double.number("dojo_groups", "name", "developers"), "user": user["id"], "role": reader})
    assert dojo.applied().endswith("3 changes\n")
    assert roles_of_ci(double) == ([], [("GitLab", "Maintainer")])
    assert groups_of(double, defectdojo.CI_USER) == set()


def groups_of(double: DefectDojo, username: str) -> set[str]:
    user = double.number("users", "username", username)
    members = [one["group"] for one in double.tables["dojo_group_members"] if one["user"] == user]
    assert len(members) == len(set(members))
    return {group["name"] for group in double.tables["dojo_groups"] if group["id"] in members}


def test_a_new_user_is_in_the_groups_of_the_settings_alone(dojo: Place) -> None:
    """DefectDojo lets whoever is made join its default group, whose role over everything is its members'."""
    people = {
        "ada": {"email": "ada@example.net", "groups": ["viewers", "developers"]},
        "bob": {"email": "bob@example.net", "groups": ["developers", "platform-admins"]},
    }
    plan = plan_of("standalone", {"identity": {"users": people}})
    dojo.release = next(release for release in plan.releases["standalone"] if release.name == "defectdojo")
    del dojo.secrets["harbor-robot"]  # no group pushes here
    dojo.applied()
    double = dojo.double
    assert isinstance(double, DefectDojo)
    assert groups_of(double, "ada") == {"viewers", "developers"}
    assert groups_of(double, "bob") == {"developers", "platform-admins"}
    assert groups_of(double, defectdojo.CI_USER) == set()
    double.insert("dojo_group_members", {"group": double.number("dojo_groups", "name", "viewers"),
                                         "user": double.number("users", "username", "bob"), "role": 1})  # fmt: skip
    assert dojo.applied() == "nothing to change\n"  # people are made once and never touched again
    assert groups_of(double, "bob") == {"viewers", "developers", "platform-admins"}


REFUSED = [
    ("POST", "users", {"username": "eve", "email": "eve@example.net"}, "non_field_errors"),
    ("POST", "users", {"username": "eve", "email": "eve@localhost", "password": "Strong-password-1"}, "email"),
    ("POST", "users", {"username": "eve", "email": "eve@example.net", "password": "Only1Letters"}, "password"),
    ("POST", "users", {"username": "eve", "email": "eve@example.net", "password": "Aa1!" * 13}, "password"),
    ("POST", "users", {"username": "e v", "email": "eve@example.net", "password": "Strong-password-1"}, "username"),
    ("POST", "users", {"username": "admin", "email": "a@example.net", "password": "Strong-password-1"}, "username"),
    ("POST", "dojo_groups", {"description": "x"}, "name"),
    ("POST", "dojo_groups", {"name": "x", "social_provider": "Keycloak"}, "social_provider"),
    ("POST", "dojo_groups", {"name": "x" * 256}, "name"),
    ("POST", "global_roles", {"user": None, "group": None, "role": 1}, "non_field_errors"),
    ("POST", "global_roles", {"user": None, "group": 999, "role": 1}, "group"),
    ("POST", "dojo_group_members", {"group": 999, "user": 7, "role": "Reader"}, "role"),
    ("POST", "tool_types", {"name": None}, "name"),
    ("POST", "tool_configurations", {"name": "x", "tool_type": 1, "authentication_type": "Token"}, "authentication_type"),
    ("PATCH", "system_settings/6", {"default_group": None, "default_group_role": 1}, "non_field_errors"),
]


@pytest.mark.parametrize(("method", "path", "data", "name"), REFUSED)
def test_the_double_refuses_what_defectdojo_does(method: str, path: str, data: dict[str, object], name: str) -> None:
    double = DefectDojo(PASSWORD)
    headers = {"Authorization": f"Token {DefectDojo.of('admin')}", "Content-Type": "application/json"}
    before = json.dumps(double.tables)
    status, answer = double.answer(method, f"/api/v2/{path}/", headers, json.dumps(data).encode())
    assert status == 400 and name in answer and not double.complaints
    assert json.dumps(double.tables) == before


@pytest.mark.parametrize("request_line", ["POST /api/v2/roles/", "PATCH /api/v2/dojo_group_members/1/", "GET /api/v2/groups/"])
def test_the_double_has_no_other_requests(request_line: str) -> None:
    double = DefectDojo(PASSWORD)
    method, path = request_line.split()
    assert double.answer(method, path, {"Authorization": f"Token {DefectDojo.of('admin')}"}, b"")[0] == 400
    assert double.complaints


def test_a_product_type_of_somebody_elses_is_refused(dojo: Place) -> None:
    assert isinstance(dojo.double, DefectDojo)
    dojo.double.insert("product_types", {"name": "GitLab", "description": "our projects"})
    done = dojo.run()
    assert done.returncode == 1 and "a product type GitLab that was not made by this stack" in done.stderr
    assert not any(user["username"] == defectdojo.CI_USER for user in dojo.double.tables["users"])
