"""What Argo CD is given: the repositories of the settings, the app of apps, and trust in GitLab's certificate."""

from __future__ import annotations

from typing import Any

from plan.tools.model import Manifest, ToolInputs
from plan.tools.sources import CaBundle, Clear, ConfigMap, Given, Secret

NAMESPACE, RELEASE = "argocd", "argo-cd"
PROJECT = "platform-apps"
# Fixed in Argo CD: by host name, the certificates that a repository's server is verified by.
CERTIFICATES = "argocd-tls-certs-cm"
PART_OF = {"app.kubernetes.io/part-of": "argocd"}
"""Argo CD reads Secrets and ConfigMaps only if they carry it."""
_LABELS = {**PART_OF, "argocd.argoproj.io/secret-type": "repository"}


def repositories(inputs: ToolInputs) -> tuple[Secret, ...]:
    """A Secret a repository."""
    return tuple(
        Secret(
            name=f"repository-{name}",
            namespace=NAMESPACE,
            labels=_LABELS,
            data={
                "type": Clear(text="git"),
                "name": Clear(text=name),
                "url": Clear(text=repository.url),
                "project": Clear(text=PROJECT),
                **({"username": Clear(text=repository.username)} if repository.username else {}),
                **({"password": Given(name=repository.password)} if repository.password else {}),
            },
        )
        for name, repository in sorted(inputs.argocd.repositories.items())
    )


def manifests(inputs: ToolInputs) -> tuple[Manifest, ...]:
    """The project of the given repositories, and the app of apps."""
    found = []
    if inputs.argocd.repositories:
        found.append(_manifest(PROJECT, "AppProject", _project(inputs)))
    if inputs.argocd.apps:
        found.append(_manifest("apps", "Application", _apps(inputs)))
    return tuple(found)


def trusts_gitlab(inputs: ToolInputs) -> bool:
    """Whether there is a GitLab whose certificate comes from the stack's own CA."""
    return "gitlab" in inputs.all_hosts and inputs.ca_bundle is not None


def certificates(inputs: ToolInputs) -> tuple[ConfigMap, ...]:
    """The authorities that GitLab's certificate is verified by, under its name.

    Every pod of Argo CD that reads repositories mounts it, so it stands before they do. Argo CD lists only what has its
    label.
    """
    if not trusts_gitlab(inputs):
        return ()
    data = {inputs.all_hosts["gitlab"]: CaBundle()}
    return (ConfigMap(name=CERTIFICATES, namespace=NAMESPACE, labels=PART_OF, data=data),)


def _manifest(name: str, kind: str, spec: dict[str, Any]) -> Manifest:
    body = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
    return Manifest(name=f"argocd-{name}", namespace=NAMESPACE, needs=(RELEASE,), body=body)


def _project(inputs: ToolInputs) -> dict[str, Any]:
    return {
        "description": "Applications from the repositories of the settings",
        "sourceRepos": [repository.url for _, repository in sorted(inputs.argocd.repositories.items())],
        "destinations": [{"server": "https://kubernetes.default.svc", "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    }


def _apps(inputs: ToolInputs) -> dict[str, Any]:
    apps = inputs.argocd.apps
    assert apps is not None
    return {
        "project": PROJECT,
        "source": {
            "repoURL": inputs.argocd.repositories[apps.repository].url,
            "path": apps.path,
            "targetRevision": apps.revision,
        },
        "destination": {"server": "https://kubernetes.default.svc", "namespace": NAMESPACE},
        # No pruning: a folder that is empty by mistake must not take the applications with it.
        "syncPolicy": {"automated": {"prune": False, "selfHeal": True}},
    }
