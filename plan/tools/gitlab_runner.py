"""GitLab Runner: takes CI jobs from GitLab on its machine and runs each in a pod of its own.

A Job makes the runner in GitLab and keeps its token in a Secret, which the chart's pod mounts. A token that GitLab
refuses makes another runner; the chart's liveness probe asks GitLab too, and restarts the pod, which then reads the new
one. Jobs run in a namespace of their own, without privileges, without a token of Kubernetes, and reach only what is
outside of the cluster, the platform's public names among it.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from typing import Any

from plan import toml, versions
from plan.tools import minio_buckets
from plan.tools.common import PYTHON_IMAGE, beside_bundle, keeping, merge, provision_files, resources, trusting
from plan.tools.model import Manifest, Release, Secret, Tool, ToolInputs, Values, Workload
from plan.tools.needs import (
    GITLAB,
    KUBERNETES_API,
    OUTSIDE,
    PUBLIC,
    Bucket,
    Flow,
    GitLabAccess,
    Job,
    StorageAccess,
    through_proxy,
)
from plan.tools.sources import CaBundle

NAME = NAMESPACE = "gitlab-runner"
JOBS_NAMESPACE = "gitlab-jobs"
ACCESS_SECRET = "gitlab-runner-access"
"""The token by which runners are made."""
RUNNER_SECRET = f"{NAME}-token"
"""What the Job makes: the runner's own token, under the keys that the chart reads."""
CERTIFICATES_SECRET, CACHE_SECRET = "gitlab-runner-certificates", "gitlab-runner-cache"
METRICS = 9252
CPU, MEMORY, MEMORY_LIMIT = "50m", "96Mi", "256Mi"
LABELS = {"app": NAME}
# What the runner asks of Kubernetes, where its jobs are.
_RIGHTS: dict[str, tuple[str, ...]] = {
    "events": ("list",),
    "pods": ("create", "delete", "get", "list", "watch"),
    "pods/attach": ("create", "delete", "get", "patch"),
    "pods/exec": ("create", "delete", "get", "patch"),
    "pods/log": ("get", "list"),
    "secrets": ("create", "delete", "get", "update"),
    "serviceaccounts": ("get",),
    "services": ("create", "get"),
}


def runner(inputs: ToolInputs) -> Values:
    """The runner as GitLab knows it."""
    settings = inputs.gitlab_runner
    return {
        "runner_type": "instance_type",
        "description": f"opstella {inputs.cluster}",
        "tag_list": ",".join(settings.tags),
        "run_untagged": settings.untagged,
    }


def cache_user(inputs: ToolInputs) -> str:
    """Who the runner is to the object store; each cluster may have a runner of its own."""
    return minio_buckets.user_of(NAME, inputs)


def _bucket(inputs: ToolInputs) -> str:
    return f"{cache_user(inputs)}-cache"


def _configuration(inputs: ToolInputs, store: str) -> str:
    """The template of the runner's config.toml; `store` is the public name of the object store."""
    jobs = inputs.gitlab_runner.jobs
    kubernetes: dict[str, Any] = {
        "namespace": JOBS_NAMESPACE,
        "image": jobs.image or f"{versions.DEBIAN_IMAGE.name}:{versions.DEBIAN_IMAGE.version}",
        "privileged": False,
        "allow_privilege_escalation": False,
        "automount_service_account_token": False,
        "poll_timeout": 600,
        "cpu_request": f"{jobs.cpu_millicores}m",
        "memory_request": f"{jobs.memory_mb}Mi",
        "memory_limit": f"{jobs.memory_limit_mb}Mi",
        "helper_cpu_request": "50m",
        "helper_memory_request": "128Mi",
        "helper_memory_limit": "512Mi",
        "service_cpu_request": "50m",
        "service_memory_request": "128Mi",
        "service_memory_limit": "1Gi",
    }
    if inputs.ca_bundle:
        # The helper takes the file ca.crt of this folder into its trust: for the cache. Other images may do so.
        volume = {"name": inputs.ca_bundle, "mount_path": "/etc/gitlab-runner/certs", "read_only": True}
        kubernetes["volumes"] = {"config_map": [volume]}
    cache = {
        "Type": "s3",
        "Shared": True,
        "s3": {
            "ServerAddress": store,
            "BucketName": _bucket(inputs),
            "BucketLocation": "us-east-1",
            "AuthenticationType": "access-key",
        },
    }
    runner: dict[str, object] = {"cache": cache, "kubernetes": kubernetes}
    if inputs.proxy:
        # Programs disagree about the case.
        named = inputs.proxy.variables
        named |= {name.lower(): value for name, value in named.items()}
        runner["environment"] = [f"{name}={value}" for name, value in sorted(named.items())]
    return toml.render({"runners": [runner]})


def images(release: Release) -> tuple[str, ...]:
    """What the runner itself starts: the helper of each job, and the image of those that name none."""
    return _images(tomllib.loads(release.values["runners"]["config"])["runners"][0]["kubernetes"])


def _images(own: Values) -> tuple[str, str]:
    helper = f"registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper:x86_64-v{versions.GITLAB_RUNNER.app_version}"
    return (own["image"], own.get("helper_image", helper))


def with_images(values: Values, pinned: Callable[[str], str]) -> Values:
    """`values`, in which the runner starts the images that `pinned` makes of its own."""
    configuration = tomllib.loads(values["runners"]["config"])
    own = configuration["runners"][0]["kubernetes"]
    changed = {k: new for k, old in zip(("image", "helper_image"), _images(own), strict=True) if (new := pinned(old)) != old}
    if not changed:
        return values
    own |= changed
    return merge(values, {"runners": {"config": toml.render(configuration)}})


def _values(inputs: ToolInputs, host: str, store: str) -> Values:
    made = json.dumps(runner(inputs), sort_keys=True)
    return {
        "gitlabUrl": f"https://{host}",
        "certsSecretName": beside_bundle(CERTIFICATES_SECRET, inputs),
        "concurrent": inputs.gitlab_runner.concurrent,
        "rbac": {"create": False},  # the chart's are for its own namespace
        "serviceAccount": {"create": True, "name": NAME},
        "metrics": {"enabled": True, "port": METRICS},
        # Another runner in GitLab is another token: the pod reads it when it starts.
        "podAnnotations": {"opstella.io/runner": hashlib.sha256(made.encode()).hexdigest()[:16]},
        "podSecurityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "resources": resources(CPU, MEMORY, MEMORY_LIMIT),
        "runners": {
            # Its name, as a template: as plain text below this key it would look like the secret itself.
            "secret": "{{ .Release.Name }}-token",
            "cache": {"secretName": CACHE_SECRET},
            "config": _configuration(inputs, store),
        },
    }


def _rights() -> tuple[Manifest, ...]:
    """The runner may do in the jobs' namespace what the executor does, and nothing elsewhere."""
    api, meta = "rbac.authorization.k8s.io", {"name": NAME, "namespace": JOBS_NAMESPACE}
    rules = [
        {"apiGroups": [""], "resources": [resource], "verbs": list(verbs)} for resource, verbs in _RIGHTS.items()
    ]
    bodies: tuple[Values, ...] = (
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        },
    )
    return tuple(
        Manifest(name=f"{JOBS_NAMESPACE}-{body['kind'].lower()}", namespace=JOBS_NAMESPACE, needs=(), body=body)
        for body in bodies
    )


def _registration(inputs: ToolInputs, host: str) -> Job:
    wanted = {"runner": runner(inputs), "namespace": NAMESPACE, "secret": RUNNER_SECRET}
    return Job(
        name="gitlab-runner-registration",
        image=PYTHON_IMAGE,
        command=("python3", "/opstella/gitlab_runner.py"),
        files={
            **provision_files("client.py", "vault_api.py", "gitlab_runner.py"),
            "runner.json": json.dumps(wanted, indent=1),
        },
        environment={"GITLAB_URL": f"https://{host}", **trusting(inputs)},
        secret_files={"gitlab": ACCESS_SECRET},
        rules=keeping(RUNNER_SECRET),
        needs=(GITLAB,),
        before=True,
    )


def release(inputs: ToolInputs) -> Release:
    """One runner, which runs several jobs at the same time."""
    host = inputs.all_hosts.get(GITLAB, "")
    store = inputs.hosts.get("minioApi") or next(
        (name for service, name in inputs.all_hosts.items() if service.startswith("minioApi")), ""
    )
    pipelines = (
        Flow(peer=OUTSIDE, ports=(80, 443), why="what pipelines download: packages, images, sources"),
        *through_proxy(inputs.proxy.ports if inputs.proxy else ()),
        Flow(peer=PUBLIC, ports=(443,), why="GitLab, Harbor, SonarQube and whatever else pipelines use"),
    )
    return Release.of(
        versions.GITLAB_RUNNER,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, host, store),
        further_namespaces={JOBS_NAMESPACE: "baseline"},  # images of jobs run as root, as most do
        secrets=(
            Secret(
                name=beside_bundle(CERTIFICATES_SECRET, inputs), namespace=NAMESPACE, data={f"{host}.crt": CaBundle()}
            ),
        ),
        further_flows={JOBS_NAMESPACE: pipelines},
        before=_rights(),
        gitlab=(GitLabAccess(purpose="runners", secret=ACCESS_SECRET),),
        storage=(
            StorageAccess(
                user=cache_user(inputs),
                buckets=(Bucket(name=_bucket(inputs), expire_days=30),),
                secret=CACHE_SECRET,
                access_key="accesskey",
                secret_key="secretkey",
            ),
        ),
        jobs=(_registration(inputs, host),),
        flows=(Flow(peer=KUBERNETES_API, ports=(6443,), why="makes a pod for each job of a pipeline"),),
        ports_for_metrics=(METRICS,),
        workloads=(
            Workload(kind="Deployment", name=NAME, namespace=NAMESPACE, cpu=CPU, memory=MEMORY, selector=LABELS),
        ),
        ca_bundle=inputs.ca_bundle,
    )


TOOL = Tool(name=NAME, release=release)
