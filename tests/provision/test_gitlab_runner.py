"""The runner's registration, against doubles of GitLab's API and of the cluster's Secrets."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from config.services import GitLabRunner
from plan.gitlab import PURPOSES
from plan.tools import gitlab_runner
from plan.tools.model import ToolInputs
from tests.support.delivery_doubles import Cluster, serving
from tests.support.gitlab_double import AccessToken, GitLab

HOST = "gitlab.devops.example.com"
INPUTS = ToolInputs(
    domain="devops.example.com", hosts={}, all_hosts={"gitlab": HOST}, nfs_server="192.0.2.1", nfs_path="/srv"
)
ACCESS = "Access-token-0123456"
PURPOSE = PURPOSES["runners"]
PATH = f"/api/v1/namespaces/{gitlab_runner.NAMESPACE}/secrets/{gitlab_runner.RUNNER_SECRET}"


@dataclass
class Place:
    """Both doubles, served, and where the Job's files go."""

    gitlab: GitLab
    url: str
    cluster: Cluster
    api: str
    folder: Path

    def run(self, inputs: ToolInputs = INPUTS) -> subprocess.CompletedProcess[str]:
        """The product's Job, here."""
        (job,) = gitlab_runner.release(inputs).jobs
        assert job.environment["GITLAB_URL"] == f"https://{HOST}" and set(job.secret_files) == {"gitlab"}
        files = {
            **job.files, "secrets/gitlab/token": ACCESS, "account/token": "account", "account/ca.crt": "",
            "account/namespace": gitlab_runner.NAMESPACE,
        }  # fmt: skip
        for path, text in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text)
        environment = {
            "GITLAB_URL": self.url, "KUBERNETES_API": self.api, "SERVICE_ACCOUNT": str(self.folder / "account"),
            "SECRETS": str(self.folder / "secrets"), "PATIENCE": "2", "PATH": os.environ["PATH"],
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(self.folder / Path(job.command[1]).name)],
            env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        for hidden in (ACCESS, "glrt-"):
            assert hidden not in done.stdout + done.stderr
        return done

    def applied(self, inputs: ToolInputs = INPUTS) -> str:
        done = self.run(inputs)
        assert (done.returncode, self.gitlab.complaints, self.cluster.complaints) == (0, [], []), done.stderr
        return done.stdout

    def refused(self) -> str:
        done = self.run()
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr

    @property
    def token(self) -> str:
        assert self.cluster.value(gitlab_runner.NAMESPACE, gitlab_runner.RUNNER_SECRET, "runner-registration-token") == ""
        return self.cluster.value(gitlab_runner.NAMESPACE, gitlab_runner.RUNNER_SECRET, "runner-token")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    access = AccessToken(scopes=frozenset(PURPOSE.scopes), administrator=PURPOSE.account.administrator)
    double, cluster = GitLab({ACCESS: access}), Cluster()
    with serving(double) as url, serving(cluster) as api:
        yield Place(double, url, cluster, api, tmp_path)


def test_the_runner_is_made_once(place: Place) -> None:
    assert "changed: runner 'opstella standalone': made" in place.applied()
    assert place.gitlab.runners == {
        place.token: {
            "runner_type": "instance_type", "description": "opstella standalone", "tag_list": "", "run_untagged": True,
        }
    }  # fmt: skip
    token, changes = place.token, list(place.cluster.changes)
    assert place.applied() == "nothing to change\n"
    assert (place.token, list(place.gitlab.runners), place.cluster.changes) == (token, [token], changes)


def test_a_refused_token_makes_another_runner(place: Place) -> None:
    place.applied()
    former = place.token
    place.gitlab.runners.clear()
    assert "made" in place.applied()
    assert list(place.gitlab.runners) == [place.token] != [former]


def test_other_settings_make_another_runner_and_remove_the_former(place: Place) -> None:
    place.applied()
    former = place.token
    changed = replace(INPUTS, gitlab_runner=GitLabRunner(tags=("docker", "large"), untagged=False))
    assert "the former runner: removed" in place.applied(changed)
    assert place.token != former
    (fields,) = place.gitlab.runners.values()
    assert fields["tag_list"] == "docker,large" and fields["run_untagged"] is False


def test_a_secret_without_the_token_is_filled(place: Place) -> None:
    place.cluster.secrets[PATH] = {"metadata": {"resourceVersion": "1"}, "data": {"runner-token": ""}}
    place.applied()
    assert list(place.gitlab.runners) == [place.token]


def test_a_runner_whose_token_could_not_be_kept_is_removed(place: Place) -> None:
    read: Any = place.cluster.answer

    def read_only(method: str, *rest: Any) -> Any:
        return read(method, *rest) if method == "GET" else (403, {"message": "forbidden"})

    place.cluster.answer = read_only  # type: ignore[method-assign]
    assert "403" in place.refused()
    assert place.gitlab.made == 1 and not place.gitlab.runners


@pytest.mark.parametrize(
    "access",
    [
        AccessToken(scopes=frozenset({"create_runner"}), state="revoked"),
        AccessToken(scopes=frozenset({"create_runner"}), state="expired"),
        AccessToken(scopes=frozenset({"read_api"})),
        AccessToken(scopes=frozenset({"create_runner"}), administrator=False),
    ],
)
def test_an_access_token_that_may_not_is_named_with_the_remedy(place: Place, access: AccessToken) -> None:
    place.gitlab.tokens[ACCESS] = access
    said = place.refused()
    assert "refuses the token by which runners are made" in said and "pulumi up" in said
    assert not place.gitlab.runners and not place.cluster.secrets


def test_the_job_may_write_this_secret_and_no_other() -> None:
    (job,) = gitlab_runner.release(INPUTS).jobs
    assert [rule for rule in job.rules if "get" in rule["verbs"]] == [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "update"], "resourceNames": ["gitlab-runner-token"]}
    ]
    assert not job.cluster_rules and json.loads(job.files["runner.json"])["secret"] == "gitlab-runner-token"
    assert base64.b64encode(ACCESS.encode()).decode() not in "".join(job.files.values())
