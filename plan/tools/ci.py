"""What pipelines find in GitLab: variables of the instance or of groups, all set by one Job of each cluster.

docs/ci.md says what they are for. GitLab hides variables (`hidden`) of projects and groups only: those of the instance
can be read again by its administrators.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from plan.tools.common import PYTHON_IMAGE, provision_files, trusting
from plan.tools.model import Generated, Secret, ToolInputs
from plan.tools.needs import GITLAB, GitLabAccess, Job

SECRET = "gitlab-ci"
"""The token by which the Job sets them, in the namespace of its tool; and the folder in which the Job finds it."""
FILES = ("client.py", "ci_variables.py")
"""Of provision/: what every script that sets variables has beside it, also where it sets none."""
PUBLISHERS = ("defectdojo", "sonarqube", "harbor", "vault")
"""The tools with variables. The first of them that a cluster has sets those of all: so the token, an administrator's, is in
one namespace. Each knows the secrets of those behind it: DefectDojo's Job reads SonarQube's tokens anyway, and the
secret of Harbor's robot is the stack's own."""
PRODUCT_TYPE = "GitLab"
"""Where pipelines make a product of DefectDojo for each project of GitLab; the user of CI sees nothing outside of it."""
PROJECT = "library"
"""The project that every Harbor has, where pipelines push."""
ROBOT = f"robot${PROJECT}+opstella-ci"
"""The robot account by which they do, as Harbor calls it: by its own prefix, and by the project."""
ROBOT_SECRET, ROBOT_KEY = "harbor-robot", "password"


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A CI variable of the instance, or of `groups` (full paths) alone; without `value` the Job knows it.

    What lets a pipeline change what others use is for groups, whose members somebody chose: every user has a project with
    a protected branch of their own, and there finds all that the instance has.

    `secret`: its value is the only key of that Secret, ROBOT_KEY, beside the Job. `masked`: blanked in the logs of
    pipelines. `protected`: given only to pipelines of protected branches and tags.
    """

    about: str
    value: str | None = None
    secret: str | None = None
    masked: bool = False
    protected: bool = False
    groups: tuple[str, ...] | None = None


def there(inputs: ToolInputs) -> bool:
    """Whether the platform has a GitLab."""
    return GITLAB in inputs.all_hosts


def publishes(tool: str, inputs: ToolInputs) -> bool:
    """Whether a Job of `tool` sets the variables of all tools of its cluster."""
    return there(inputs) and tool == next((name for name in PUBLISHERS if name in inputs.present), None)


def robot_password(inputs: ToolInputs) -> str | None:
    """Name of the Password that is the secret of Harbor's robot: another one for other groups, so that one which is named no
    more knows none that works. None where no group pushes."""
    groups = inputs.gitlab_runner.push_groups
    if not groups or not there(inputs):
        return None
    return f"{ROBOT_SECRET}-{hashlib.sha256(chr(10).join(sorted(groups)).encode()).hexdigest()[:12]}"


def robot_secret(namespace: str, inputs: ToolInputs) -> tuple[Secret, ...]:
    """The Secret that holds it in `namespace`."""
    password = robot_password(inputs)
    data = {ROBOT_KEY: Generated(password=password)} if password else {}
    return (Secret(name=ROBOT_SECRET, namespace=namespace, data=data),) if data else ()


def access(tool: str, inputs: ToolInputs) -> tuple[GitLabAccess, ...]:
    """The token that `publishing` needs."""
    return (GitLabAccess(purpose="ci-variables", secret=SECRET),) if publishes(tool, inputs) else ()


def secrets(tool: str, namespace: str, inputs: ToolInputs) -> tuple[Secret, ...]:
    """The Secrets of other tools that `publishing` needs, in the namespace of `tool`."""
    others = tool != "harbor" and "harbor" in inputs.present and publishes(tool, inputs)
    return robot_secret(namespace, inputs) if others else ()


def publishing(tool: str, job: Job, inputs: ToolInputs) -> Job:
    """`job`, given what its script needs to set the variables in GitLab, and waiting for it; itself if others do."""
    if not publishes(tool, inputs):
        return job
    found = variables(inputs)
    wanted = json.dumps({key: asdict(variable) for key, variable in found.items()}, indent=1)
    held = {variable.secret: variable.secret for variable in found.values() if variable.secret}
    return replace(
        job,
        files={**job.files, "ci_variables.json": wanted},
        environment={
            **job.environment,
            "GITLAB_URL": f"https://{inputs.all_hosts[GITLAB]}",
            **trusting(inputs),
        },
        secret_files={**job.secret_files, SECRET: SECRET, **held},
        needs=tuple(dict.fromkeys((*job.needs, GITLAB))),
    )


def job(tool: str, name: str, inputs: ToolInputs) -> tuple[Job, ...]:
    """A Job of `tool` that does nothing else, for values that stand in the plan; none where another tool sets them."""
    script = provision_files(*FILES)
    alone = Job(name=name, image=PYTHON_IMAGE, command=("python3", "/opstella/ci_variables.py"), files=script)
    return (publishing(tool, alone, inputs),) if publishes(tool, inputs) else ()


def variables(inputs: ToolInputs) -> dict[str, Variable]:
    """Those of all tools of the cluster, by key."""
    return {key: one for tool in PUBLISHERS if tool in inputs.present for key, one in _OF[tool](inputs).items()}


def _sonarqube(inputs: ToolInputs) -> dict[str, Variable]:
    # Not protected: branches are to be analysed before they are merged.
    return {
        "SONAR_HOST_URL": Variable(about="SonarQube", value=f"https://{inputs.hosts['sonarqube']}"),
        "SONAR_TOKEN": Variable(about="Analyses projects in SonarQube, and does nothing else", masked=True),
    }


def _defectdojo(inputs: ToolInputs) -> dict[str, Variable]:
    # Not protected: what is found in a branch is to be known before it is merged.
    return {
        "DEFECTDOJO_URL": Variable(about="DefectDojo", value=f"https://{inputs.hosts['defectdojo']}"),
        "DEFECTDOJO_PRODUCT_TYPE": Variable(about="Where DEFECTDOJO_TOKEN makes products", value=PRODUCT_TYPE),
        "DEFECTDOJO_TOKEN": Variable(about="Hands in reports to DefectDojo", masked=True),
    }


def _harbor(inputs: ToolInputs) -> dict[str, Variable]:
    groups = inputs.gitlab_runner.push_groups
    held = ROBOT_SECRET if groups else None
    return {
        "HARBOR_HOST": Variable(about="Harbor, as images are named", value=inputs.hosts["harbor"]),
        "HARBOR_PROJECT": Variable(about="Where HARBOR_USERNAME pushes", value=PROJECT),
        # What is pushed gets deployed, so it comes from groups that were chosen for it, and there from branches and tags
        # that not every member may write.
        "HARBOR_USERNAME": Variable(about="A robot account of Harbor", value=ROBOT, protected=True, groups=groups),
        "HARBOR_PASSWORD": Variable(about="Its secret", secret=held, masked=True, protected=True, groups=groups),
    }


def _vault(inputs: ToolInputs) -> dict[str, Variable]:
    return {"VAULT_ADDR": Variable(about="Vault", value=f"https://{inputs.hosts['vault']}")}


_OF: dict[str, Callable[[ToolInputs], dict[str, Variable]]] = {
    "sonarqube": _sonarqube,
    "defectdojo": _defectdojo,
    "harbor": _harbor,
    "vault": _vault,
}
