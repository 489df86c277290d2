"""Harbor's provisioning against a double of its API, which holds every request to the real description."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from config.services import GitLabRunner
from plan.tools import harbor, harbor_job
from plan.tools.model import ToolInputs
from tests.support.delivery_doubles import serving
from tests.support.gitlab_ci_double import CiGitLab
from tests.support.gitlab_double import AccessToken
from tests.support.harbor_double import HarborDouble, Serving

HOSTS = {"harbor": "harbor.devops.example.com", "keycloak": "opstella-idp.devops.example.com"}
INPUTS = ToolInputs(
    domain="devops.example.com",
    hosts=HOSTS,
    all_hosts=HOSTS,
    nfs_server="192.0.2.1",
    nfs_path="/srv",
    nodes_mirror=True,
)


IN_NO_GROUP = replace(INPUTS, all_hosts={**HOSTS, "gitlab": "gitlab.devops.example.com"})
WITH_GITLAB = replace(IN_NO_GROUP, gitlab_runner=GitLabRunner(push_groups=("shop",)))
SETS_VARIABLES = {"present": frozenset({"harbor"})}  # nobody who comes before it is there
ROBOT = "robot$library+opstella-ci"
CI_TOKEN = "glci-of-an-administrator"


@dataclass
class Place:
    """The double, served, and what the Job is given."""

    double: HarborDouble
    url: str
    folder: Path
    client_secret: str
    gitlab: CiGitLab
    gitlab_url: str
    robot_secret: str = "Secret-of-the-robot-1"
    until: date = field(default_factory=lambda: datetime.now(UTC).date() + timedelta(days=200))
    """When the robot is to expire."""

    def run(self, inputs: ToolInputs = INPUTS, patience: int = 5) -> subprocess.CompletedProcess[str]:
        """The product's Job, here."""
        (job,) = harbor.release(inputs).jobs
        files = self.folder / "opstella"
        files.mkdir(exist_ok=True)
        for name, text in job.files.items():
            (files / name).write_text(text)
        contents = {
            "admin": {"HARBOR_ADMIN_PASSWORD": self.double.password},
            "oidc": {"clientSecret": self.client_secret},
        }
        if "GITLAB_URL" in job.environment:
            contents["gitlab-ci"] = {"token": CI_TOKEN}
        if "ROBOT" in job.environment:
            contents["harbor-robot"] = {"password": self.robot_secret}
        assert set(contents) == set(job.secret_files)
        for name, keys in contents.items():
            (files / "secrets" / name).mkdir(parents=True, exist_ok=True)
            for key, value in keys.items():
                (files / "secrets" / name / key).write_text(value)
        gitlab = {"VARIABLES_FILE": str(files / "ci_variables.json"), "CA_FILE": ""}
        if "GITLAB_URL" in job.environment:
            gitlab["GITLAB_URL"] = self.gitlab_url
        environment = {k: v for k, v in job.environment.items() if isinstance(v, str)} | gitlab | {
            "HARBOR_URL": self.url, "UNTIL": self.until.isoformat(), "SECRETS": str(files / "secrets"), "PATIENCE": str(patience), "PATH": os.environ["PATH"],
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(files / "harbor.py")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not self.double.complaints, self.double.complaints
        assert not self.gitlab.complaints, self.gitlab.complaints
        for secret in (self.double.password, self.client_secret, CI_TOKEN, "robotSecret", self.robot_secret):
            assert secret not in done.stdout + done.stderr
        return done


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    double = HarborDouble(secrets.token_hex(16))
    gitlab = CiGitLab({CI_TOKEN: AccessToken(scopes=frozenset({"api"}))})
    with Serving(double) as served, serving(gitlab) as gitlab_url:
        yield Place(double, served.url, tmp_path, secrets.token_hex(16), gitlab, gitlab_url)


def test_people_log_in_through_the_realm_and_administrators_by_their_group(place: Place) -> None:
    done = place.run()
    assert done.returncode == 0, done.stderr
    settings = place.double.settings
    assert settings["auth_mode"] == "oidc_auth" and settings["oidc_client_secret"] == place.client_secret
    assert settings["oidc_endpoint"] == "https://opstella-idp.devops.example.com/realms/opstella"
    assert (settings["oidc_client_id"], settings["oidc_groups_claim"], settings["oidc_admin_group"]) == (
        "harbor", "groups", "platform-admins",
    )  # fmt: skip
    assert settings["oidc_verify_cert"] is True and settings["self_registration"] is False


def test_every_registry_is_handed_on_by_a_public_project_of_its_name(place: Place) -> None:
    place.run()
    numbers = {registry["name"]: registry["id"] for registry in place.double.registries}
    projects = {p["name"]: p for p in place.double.projects if p["registry_id"] is not None}
    assert set(projects) == set(numbers) == set(harbor_job.PROXIED)
    assert all(p["registry_id"] == numbers[name] and p["metadata"]["public"] == "true" for name, p in projects.items())


def test_a_registry_of_a_type_that_no_project_may_hand_on_is_made_again_by_another(place: Place) -> None:
    """What a stack of an older version left: made by it, and refused to its project."""
    place.double.registries.append(
        {"id": 1, "name": "quay.io", "type": "quay", "url": "https://quay.io", "insecure": False, "description": "made by the Opstella stack"}
    )
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert "registry quay.io: removed, its type was quay\nchanged: registry quay.io: made" in done.stdout
    assert {r["name"]: r["type"] for r in place.double.registries}["quay.io"] == "docker-registry"
    assert place.run().stdout == "nothing to change\n"


def test_a_registry_of_another_type_that_its_project_hands_on_stays_as_it_is(place: Place) -> None:
    """Who permitted the type by core's environment keeps it."""
    place.run()
    (quay,) = (r for r in place.double.registries if r["name"] == "quay.io")
    quay["type"] = "quay"
    assert place.run().stdout == "nothing to change\n"


def test_a_registry_of_another_type_that_something_else_uses_is_named_with_the_way_out(place: Place) -> None:
    place.run()
    (quay,) = (r for r in place.double.registries if r["name"] == "quay.io")
    (project,) = (p for p in place.double.projects if p["name"] == "quay.io")
    quay["type"], project["name"] = "quay", "elsewhere"
    done = place.run()
    assert done.returncode == 1 and "is referenced by proxy cache project" in done.stderr
    assert "remove what uses it (projects, replication rules)" in done.stderr
    place.double.projects.remove(project)  # the remedy
    assert place.run().returncode == 0


def test_every_type_of_registry_is_one_that_the_deployed_configuration_permits(place: Place) -> None:
    place.double.permitted = tuple(kind for kind in place.double.permitted if kind != "github-ghcr")
    done = place.run()
    assert done.returncode == 1 and "unsupported registry type github-ghcr" in done.stderr
    assert "permit the type github-ghcr in core's PERMITTED_REGISTRY_TYPES_FOR_PROXY_CACHE" in done.stderr
    place.double.permitted = (*place.double.permitted, "github-ghcr")  # the remedy
    assert place.run().returncode == 0


def test_groups_have_their_roles(place: Place) -> None:
    place.run()
    assert {m["entity_name"]: m["role_id"] for m in place.double.members} == {"developers": 2, "viewers": 3}


def test_a_second_run_changes_nothing_and_says_so(place: Place) -> None:
    assert place.run().returncode == 0
    before = list(place.double.changes)
    done = place.run()
    assert (done.returncode, done.stdout, place.double.changes) == (0, "nothing to change\n", before)


def test_only_what_differs_is_changed(place: Place) -> None:
    place.run()
    place.double.settings["oidc_groups_claim"] = "roles"
    place.double.projects[-1]["metadata"]["public"] = "false"
    before = len(place.double.changes)
    done = place.run()
    assert "login: oidc_groups_claim\n" in done.stdout and "public again" in done.stdout
    assert len(place.double.changes) == before + 2


def test_a_new_secret_of_the_client_is_set_once(place: Place) -> None:
    place.run()
    place.client_secret = secrets.token_hex(16)
    assert "login: oidc_client_secret\n" in place.run().stdout
    assert place.double.settings["oidc_client_secret"] == place.client_secret
    assert place.run().stdout == "nothing to change\n"


@pytest.mark.parametrize("changes", (1, 2, 3, 4, 5, 11))
def test_a_run_that_was_cut_short_after_any_change_is_taken_up_again(place: Place, changes: int) -> None:
    place.double.stop_after = changes
    assert place.run().returncode == 1, "there are fewer changes"
    place.double.stop_after = None
    assert place.run().returncode == 0
    assert place.run().stdout == "nothing to change\n"
    assert len(place.double.registries) == len(harbor_job.PROXIED) and len(place.double.labels) == 1


def test_harbor_is_waited_for(place: Place) -> None:
    place.double.starting = 1
    assert place.run().returncode == 0


def test_nodes_that_do_without_the_mirror_get_none(place: Place) -> None:
    place.run(
        ToolInputs(domain="devops.example.com", hosts=HOSTS, all_hosts=HOSTS, nfs_server="192.0.2.1", nfs_path="/srv")
    )
    assert not place.double.registries and [p["name"] for p in place.double.projects] == ["library"]


# --- the robot of pipelines ---


def test_the_robot_pushes_to_the_shared_project_by_the_secret_of_the_stack(place: Place) -> None:
    done = place.run(WITH_GITLAB)
    assert done.returncode == 0, done.stderr
    (robot,) = place.double.robots
    assert (robot["name"], robot["secret"]) == (ROBOT, place.robot_secret)
    assert robot["permissions"][0]["access"] == [{"resource": "repository", "action": way} for way in ("pull", "push")]
    assert not robot["disable"] and robot["duration"] == 200, "Harbor counts the days from when it was made"
    assert place.gitlab.changes == [], "another tool's Job sets the variables"
    changes = list(place.double.changes)
    assert place.run(WITH_GITLAB).stdout == "nothing to change\n"
    assert place.double.changes == changes


def test_where_harbor_sets_the_variables_the_groups_protected_branches_may_push(place: Place) -> None:
    alone = replace(WITH_GITLAB, **SETS_VARIABLES)
    done = place.run(alone)
    assert done.returncode == 0, done.stderr
    # Every user's own project has a protected branch; what the instance has, all of them find.
    assert {key: one["value"] for key, one in place.gitlab.variables.items()} == {
        "HARBOR_HOST": "harbor.devops.example.com",
        "HARBOR_PROJECT": "library",
    }
    there = place.gitlab.groups["shop"]
    assert {key: one["value"] for key, one in there.items()} == {
        "HARBOR_USERNAME": ROBOT,
        "HARBOR_PASSWORD": place.robot_secret,
    }
    assert {key for key, one in there.items() if one["masked"]} == {"HARBOR_PASSWORD"}
    assert {key for key, one in there.items() if one["protected"]} == {"HARBOR_USERNAME", "HARBOR_PASSWORD"}
    assert there["HARBOR_USERNAME"]["raw"], "GitLab would take $library for a variable"
    (made,) = place.gitlab.made_groups
    assert (made["visibility"], made["project_creation_level"]) == ("private", "maintainer")
    harbor_changes, gitlab_changes = list(place.double.changes), list(place.gitlab.changes)
    assert place.run(alone).stdout == "nothing to change\n"
    assert (place.double.changes, place.gitlab.changes) == (harbor_changes, gitlab_changes)


def test_without_a_group_nobody_pushes_and_the_outputs_say_so(place: Place) -> None:
    assert place.run(replace(IN_NO_GROUP, **SETS_VARIABLES)).returncode == 0
    assert place.double.robots == [] and set(place.gitlab.variables) == {"HARBOR_HOST", "HARBOR_PROJECT"}
    (told,) = harbor_job.missing(IN_NO_GROUP)
    assert told.startswith("opstella:gitlabRunner.pushGroups: no pipeline pushes images")
    assert told in harbor.release(IN_NO_GROUP).missing
    assert harbor_job.missing(WITH_GITLAB) == harbor_job.missing(INPUTS) == ()


def test_what_every_pipeline_knew_is_worth_nothing_any_more(place: Place) -> None:
    """A stack of a former version: variables of the instance, and in them a secret that Harbor made."""
    alone = replace(WITH_GITLAB, **SETS_VARIABLES)
    place.run(alone)
    (robot,) = place.double.robots
    robot["secret"] = "of-Harbors-own-making"
    place.gitlab.variables |= place.gitlab.groups.pop("shop")
    done = place.run(alone)
    assert done.returncode == 0, done.stderr
    assert robot["secret"] == place.robot_secret and set(place.gitlab.variables) == {"HARBOR_HOST", "HARBOR_PROJECT"}
    assert place.gitlab.groups["shop"]["HARBOR_PASSWORD"]["value"] == robot["secret"]
    assert "CI variable HARBOR_PASSWORD: of the instance no more" in done.stdout
    place.gitlab.variables |= place.gitlab.groups.pop("shop")
    assert place.run(replace(IN_NO_GROUP, **SETS_VARIABLES)).returncode == 0
    assert place.double.robots == [] and set(place.gitlab.variables) == {"HARBOR_HOST", "HARBOR_PROJECT"}


def test_a_run_that_ended_between_two_groups_is_taken_up_again(place: Place) -> None:
    both = replace(WITH_GITLAB, **SETS_VARIABLES, gitlab_runner=GitLabRunner(push_groups=("shop", "tools")))
    place.run(both)
    del place.gitlab.groups["tools"]["HARBOR_PASSWORD"]
    assert place.run(both).returncode == 0
    assert {group: there["HARBOR_PASSWORD"]["value"] for group, there in place.gitlab.groups.items()} == {
        "shop": place.robot_secret, "tools": place.robot_secret,
    }  # fmt: skip


def test_a_group_below_another_has_to_be_there(place: Place) -> None:
    below = replace(WITH_GITLAB, **SETS_VARIABLES, gitlab_runner=GitLabRunner(push_groups=("shop/backend",)))
    done = place.run(below)
    assert done.returncode == 1 and "GitLab has no group shop/backend" in done.stderr and place.double.robots == []
    place.gitlab.groups["shop/backend"] = {}
    assert place.run(below).returncode == 0 and "HARBOR_PASSWORD" in place.gitlab.groups["shop/backend"]


def test_the_stacks_new_secret_and_one_changed_by_hand_are_set(place: Place) -> None:
    place.run(WITH_GITLAB)
    (robot,) = place.double.robots
    place.robot_secret = "Secret-of-the-robot-2"
    said = f"changed: robot {ROBOT}: its secret set\n1 changes\n"
    assert place.run(WITH_GITLAB).stdout == said and robot["secret"] == place.robot_secret
    robot["secret"] = "changed-by-hand"
    assert place.run(WITH_GITLAB).stdout == said and robot["secret"] == place.robot_secret


def test_a_robot_that_harbor_calls_by_another_prefix_is_no_login_of_pipelines(place: Place) -> None:
    place.run(WITH_GITLAB)
    (robot,) = place.double.robots
    robot["name"] = "bot_library+opstella-ci"
    done = place.run(WITH_GITLAB)
    assert done.returncode == 1 and "Robot Name Prefix" in done.stderr
    assert f"Harbor calls the robot of pipelines {robot['name']}, and they are told {ROBOT}" in done.stderr


def test_the_robots_rights_are_what_the_plan_says(place: Place) -> None:
    place.run(WITH_GITLAB)
    (robot,) = place.double.robots
    robot["permissions"][0]["access"].append({"resource": "repository", "action": "delete"})
    robot["disable"] = True
    done = place.run(WITH_GITLAB)
    assert done.stdout == f"changed: robot robot$library+opstella-ci: its rights, until {place.until}\n1 changes\n"
    assert len(robot["permissions"][0]["access"]) == 2 and not robot["disable"]


def test_the_robot_expires_and_is_renewed_with_its_secret(place: Place) -> None:
    place.run(WITH_GITLAB)
    (robot,) = place.double.robots
    place.until += timedelta(days=184)
    assert f"its rights, until {place.until}" in place.run(WITH_GITLAB).stdout
    assert (robot["duration"], robot["secret"]) == (384, place.robot_secret)
    # As a former version made it: for ever.
    robot["duration"] = -1
    assert place.run(WITH_GITLAB).returncode == 0 and robot["duration"] == 384


def test_anothers_robot_and_anothers_variable_are_refused_before_a_secret_is_set(place: Place) -> None:
    alone = replace(WITH_GITLAB, **SETS_VARIABLES)
    place.run(alone)
    (robot,) = place.double.robots
    place.gitlab.groups["shop"]["HARBOR_PASSWORD"]["description"] = "the team's own"
    robot["secret"] = "changed-by-hand"
    done = place.run(alone)
    assert done.returncode == 1 and "the CI variable HARBOR_PASSWORD that was not made by this stack" in done.stderr
    assert robot["secret"] == "changed-by-hand"
    place.gitlab.groups["shop"]["HARBOR_PASSWORD"]["description"] = "made by the Opstella stack"
    robot["description"] = "the team's own"
    done = place.run(alone)
    assert done.returncode == 1 and f"the robot {ROBOT} exists and was not made by this stack" in done.stderr
    assert robot["secret"] == "changed-by-hand" and "made anew" in done.stderr
