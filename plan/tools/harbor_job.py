"""The Job that sets Harbor up by its API, and what pipelines are told of Harbor."""

from __future__ import annotations

from config.errors import key
from plan.rke2 import MIRRORED as PROXIED
from plan.tools import ci
from plan.tools.common import PYTHON_IMAGE, issuer, provision_files, service
from plan.tools.harbor_secrets import ADMIN_SECRET, NAME, NAMESPACE
from plan.tools.model import ToolInputs
from plan.tools.needs import ITSELF, Flow, Job

CLIENT_SECRET = "harbor-oidc"
PROJECT, ROBOT = "library", "opstella-ci"
"""The project that every Harbor has, and the robot account by which pipelines push there."""


def _variables(inputs: ToolInputs, host: str) -> dict[str, ci.Variable]:
    groups = inputs.gitlab_runner.push_groups
    return {
        "HARBOR_HOST": ci.Variable(about="Harbor, as images are named", value=host),
        "HARBOR_PROJECT": ci.Variable(about="Where HARBOR_USERNAME pushes", value=PROJECT),
        # What is pushed gets deployed, so it comes from groups that were chosen for it, and there from branches and tags
        # that not every member may write.
        "HARBOR_USERNAME": ci.Variable(about="A robot account of Harbor", protected=True, groups=groups),
        "HARBOR_PASSWORD": ci.Variable(about="Its secret", masked=True, protected=True, groups=groups),
    }


def provisioning(inputs: ToolInputs, host: str) -> Job:
    """Harbor's own settings, once it is up: login, the mirror's projects, the groups' roles, the robot of pipelines."""
    job = Job(
        name="harbor-provisioning",
        image=PYTHON_IMAGE,
        command=("python3", "/opstella/harbor.py"),
        files=provision_files(*ci.FILES, "harbor.py"),
        environment={
            "HARBOR_URL": service(f"{NAME}-core", NAMESPACE, 80),
            "OIDC_ENDPOINT": issuer(inputs),
            "OIDC_CLIENT": NAME,
            "ADMIN_GROUP": "platform-admins",
            "PROXIED": " ".join(PROXIED if inputs.nodes_mirror else ()),
            "MEMBERS": "developers=developer viewers=guest",
            **({"ROBOT": ROBOT} if ci.there(inputs) else {}),
        },
        secret_files={"admin": ADMIN_SECRET, "oidc": CLIENT_SECRET},
        flows=(Flow(peer=ITSELF, ports=(8080,), why="sets Harbor up by its API"),),
        until=ci.there(inputs),
    )
    return ci.publishing(job, inputs, _variables(inputs, host))


def missing(inputs: ToolInputs) -> tuple[str, ...]:
    """What the user still has to say, so that pipelines push."""
    if not ci.there(inputs) or inputs.gitlab_runner.push_groups:
        return ()
    return (
        f"{key('gitlabRunner.pushGroups')}: no pipeline pushes images to Harbor until it names a group of GitLab whose"
        " pipelines may",
    )
