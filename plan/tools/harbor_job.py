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


def provisioning(inputs: ToolInputs) -> Job:
    """Harbor's own settings, once it is up: login, the mirror's projects, the groups' roles, the robot of pipelines."""
    pushed = ci.robot_password(inputs) is not None
    robot = {"ROBOT" if pushed else "FORMER_ROBOT": ci.ROBOT} if ci.there(inputs) else {}
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
            **robot,
        },
        secret_files={
            "admin": ADMIN_SECRET,
            "oidc": CLIENT_SECRET,
            **({ci.ROBOT_SECRET: ci.ROBOT_SECRET} if pushed else {}),
        },
        flows=(Flow(peer=ITSELF, ports=(8080,), why="sets Harbor up by its API"),),
        until=pushed,
    )
    return ci.publishing(NAME, job, inputs)


def missing(inputs: ToolInputs) -> tuple[str, ...]:
    """What the user still has to say, so that pipelines push."""
    if not ci.there(inputs) or inputs.gitlab_runner.push_groups:
        return ()
    return (
        f"{key('gitlabRunner.pushGroups')}: no pipeline pushes images to Harbor until it names a group of GitLab whose"
        " pipelines may",
    )
