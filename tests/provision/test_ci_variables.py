"""CI variables of GitLab's instance, by the Job that does nothing else, where Vault stands alone; against a double of GitLab's API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.delivery_doubles import serving
from tests.support.gitlab_ci_double import CiGitLab
from tests.support.gitlab_double import AccessToken
from tests.support.platform import plan_of

OFF = {tool: {"enabled": False} for tool in ("defectdojo", "sonarqube", "harbor")}
(JOB,) = (
    job
    for release in plan_of(changes={"tools": OFF, "kubernetes": {"registryMirror": "none"}}).releases["standalone"]
    for job in release.jobs
    if job.name == "vault-ci-variables"
)
TOKEN, ADDRESS = "glci-of-an-administrator", "https://vault.devops.example.com"
ADMINISTRATOR = AccessToken(scopes=frozenset({"api"}))


@dataclass
class Place:
    """GitLab, served, and what the Job is given."""

    gitlab: CiGitLab
    url: str
    folder: Path

    def run(self, **changes: dict[str, object]) -> subprocess.CompletedProcess[str]:
        """The product's Job, here; `changes` are of the variables that it wants."""
        wanted = json.loads(JOB.files["ci_variables.json"])
        for key, change in changes.items():
            wanted[key] = {**wanted.get(key, {}), **change}
        files = {**JOB.files, "ci_variables.json": json.dumps(wanted), "secrets/gitlab-ci/token": TOKEN}
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        environment = {
            "GITLAB_URL": self.url, "VARIABLES_FILE": str(self.folder / "ci_variables.json"), "PATIENCE": "1",
            "SECRETS": str(self.folder / "secrets"), "PATH": os.environ["PATH"],
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(self.folder / Path(JOB.command[1]).name)],
            env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert TOKEN not in done.stdout + done.stderr and "Traceback" not in done.stderr
        assert not self.gitlab.complaints
        return done

    def refused(self, **changes: dict[str, object]) -> str:
        """The page of a run that changes nothing."""
        before = list(self.gitlab.changes)
        done = self.run(**changes)
        assert (done.returncode, done.stdout, self.gitlab.changes) == (1, "", before)
        return done.stderr


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    gitlab = CiGitLab({TOKEN: ADMINISTRATOR})
    with serving(gitlab) as url:
        yield Place(gitlab, url, tmp_path)


def test_a_variable_is_made_once(place: Place) -> None:
    assert place.run().stdout == "changed: CI variable VAULT_ADDR: made\n1 changes\n"
    assert place.gitlab.variables == {
        "VAULT_ADDR": {
            "key": "VAULT_ADDR", "value": ADDRESS, "description": "Vault (made by the Opstella stack)",
            "variable_type": "env_var", "masked": False, "protected": False, "raw": True,
        }
    }  # fmt: skip
    done = place.run()
    assert (done.stdout, place.gitlab.changes) == ("nothing to change\n", ["POST VAULT_ADDR"])


def test_what_was_changed_by_hand_is_changed_back(place: Place) -> None:
    place.run()
    place.gitlab.variables["VAULT_ADDR"] |= {"value": "https://elsewhere.example.com", "protected": True}
    assert place.run().stdout == "changed: CI variable VAULT_ADDR: value, protected\n1 changes\n"
    assert place.gitlab.variables["VAULT_ADDR"]["value"] == ADDRESS


def test_a_variable_of_somebody_elses_is_refused_and_can_be_handed_over(place: Place) -> None:
    place.run()
    place.gitlab.variables["VAULT_ADDR"] |= {"value": "https://theirs.example.com", "description": None}
    page = place.refused(OTHER={"about": "Another", "value": "x", "masked": False, "protected": False})
    assert "GitLab has the CI variable VAULT_ADDR that was not made by this stack" in page
    assert "write those words into its description" in page
    place.gitlab.variables["VAULT_ADDR"]["description"] = "theirs, made by the Opstella stack"
    assert place.run().stdout == "changed: CI variable VAULT_ADDR: value, description\n1 changes\n"


@pytest.mark.parametrize(
    ("token", "answer"),
    [
        (AccessToken(scopes=frozenset({"read_api"})), "insufficient_scope"),
        (AccessToken(scopes=frozenset({"create_runner"})), "insufficient_scope"),
        (AccessToken(scopes=frozenset({"api"}), administrator=False), "403 Forbidden"),
        (AccessToken(scopes=frozenset({"api"}), state="expired"), "Token was expired"),
        (AccessToken(scopes=frozenset({"api"}), state="revoked"), "Token was revoked"),
    ],
)
def test_a_token_that_may_not_is_named_as_the_reason(place: Place, token: AccessToken, answer: str) -> None:
    place.gitlab.tokens[TOKEN] = token
    page = place.refused()
    assert "GitLab does not let this stack's token at the CI variables" in page and answer in page
    assert "an administrator's, with the scope api" in page


def test_a_variable_that_names_a_secret_has_what_is_in_it(place: Place) -> None:
    (place.folder / "secrets/harbor-robot").mkdir(parents=True)
    (place.folder / "secrets/harbor-robot/password").write_text("of-the-Secret-1")
    assert place.run(VAULT_ADDR={"value": None, "secret": "harbor-robot", "masked": True}).returncode == 0
    assert place.gitlab.variables["VAULT_ADDR"]["value"] == "of-the-Secret-1"


@pytest.mark.parametrize("value", ["short", "two words of text", "two\nlines-of-text"])
def test_a_secret_that_gitlab_cannot_mask_is_not_handed_to_it(place: Place, value: str) -> None:
    page = place.refused(VAULT_ADDR={"value": value, "masked": True})
    assert "the value of VAULT_ADDR cannot be masked" in page and value not in page


def test_a_gitlab_that_is_away_is_named(place: Place) -> None:
    place.url = "http://127.0.0.1:1"
    page = place.refused()
    assert "the service cannot be reached for 1 s: GitLab" in page
    assert "gitlab-ctl status" in page and "http://127.0.0.1:1/api/v4/admin/ci/variables/VAULT_ADDR" in page


HEADERS = {"PRIVATE-TOKEN": TOKEN, "Content-Type": "application/json"}
REFUSED = [
    ("/admin/ci/variables", {"key": "A", "value": "x", "variable_type": "var"}, "variable_type"),
    ("/admin/ci/variables", {"key": "A-B", "value": "x"}, "letters, digits"),
    ("/admin/ci/variables", {"key": "A", "value": "x", "description": "x" * 256}, "maximum is 255"),
    ("/admin/ci/variables", {"key": "A", "value": "x" * 10_001}, "maximum is 10000"),
    ("/groups", {"name": "a", "path": "a", "visibility": "secret"}, "visibility"),
    ("/groups", {"name": "a", "path": "a", "project_creation_level": "maintainers"}, "project_creation_level"),
    ("/groups", {"name": "a", "path": "a b"}, "path"),
    ("/user/runners", {"runner_type": "instance"}, "runner_type"),
    ("/user/runners", {"runner_type": "instance_type", "tag_list": ",".join(map(str, range(51)))}, "limit the number of tags to 50"),
]


@pytest.mark.parametrize(("path", "data", "why"), REFUSED)
def test_the_double_refuses_what_gitlab_does(path: str, data: dict[str, str], why: str) -> None:
    gitlab = CiGitLab({TOKEN: ADMINISTRATOR})
    status, answer = gitlab.answer("POST", f"/api/v4{path}", HEADERS, json.dumps(data).encode())
    assert status == 400 and why in json.dumps(answer)
    assert not gitlab.changes and not gitlab.variables and not gitlab.groups and not gitlab.runners
