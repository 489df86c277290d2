"""What pipelines find in GitLab: variables of the instance or of groups, each set by a Job of the tool that its value is of.

docs/ci.md says what they are for. GitLab hides variables (`hidden`) of projects and groups only: those of the instance
can be read again by its administrators.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from plan.tools.common import PYTHON_IMAGE, provision_files, trusting
from plan.tools.model import ToolInputs
from plan.tools.needs import GITLAB, GitLabAccess, Job

SECRET = "gitlab-ci"
"""The token by which a Job sets them, in the namespace of its tool; and the folder in which the Job finds it."""
FILES = ("client.py", "ci_variables.py")
"""Of provision/: what every script that sets variables has beside it, also where there is no GitLab."""


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A CI variable of the instance, or of `groups` (full paths) alone; without `value` the Job knows it.

    What lets a pipeline change what others use is for groups, whose members somebody chose: every user has a project with
    a protected branch of their own, and there finds all that the instance has.

    `masked`: blanked in the logs of pipelines. `protected`: given only to pipelines of protected branches and tags.
    """

    about: str
    value: str | None = None
    masked: bool = False
    protected: bool = False
    groups: tuple[str, ...] | None = None


def there(inputs: ToolInputs) -> bool:
    """Whether the platform has a GitLab."""
    return GITLAB in inputs.all_hosts


def access(inputs: ToolInputs) -> tuple[GitLabAccess, ...]:
    """The token that `publishing` needs."""
    return (GitLabAccess(purpose="ci-variables", secret=SECRET),) if there(inputs) else ()


def publishing(job: Job, inputs: ToolInputs, variables: dict[str, Variable]) -> Job:
    """`job`, given what its script needs to set `variables` in GitLab, and waiting for it; itself if there is none."""
    if not there(inputs):
        return job
    wanted = json.dumps({key: asdict(variable) for key, variable in variables.items()}, indent=1)
    return replace(
        job,
        files={**job.files, "ci_variables.json": wanted},
        environment={
            **job.environment,
            "GITLAB_URL": f"https://{inputs.all_hosts[GITLAB]}",
            **trusting(inputs),
        },
        secret_files={**job.secret_files, SECRET: SECRET},
        needs=(*job.needs, GITLAB),
    )


def job(name: str, inputs: ToolInputs, variables: dict[str, Variable]) -> tuple[Job, ...]:
    """A Job that does nothing else, for values that stand in the plan; none where there is no GitLab."""
    script = provision_files(*FILES)
    alone = Job(name=name, image=PYTHON_IMAGE, command=("python3", "/opstella/ci_variables.py"), files=script)
    return (publishing(alone, inputs, variables),) if there(inputs) else ()
