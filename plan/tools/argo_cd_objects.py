"""What Argo CD is given: the repositories of the settings, the app of apps, and trust in GitLab's certificate."""

from __future__ import annotations

from typing import Any

from plan.tools.model import CA_BUNDLE_KEY, Manifest, ToolInputs
from plan.tools.sources import Clear, Given, Secret

NAMESPACE, RELEASE = "argocd", "argo-cd"
PROJECT = "platform-apps"
TRUST_MANAGER = "trust-manager"
# Fixed in Argo CD: by host name, the certificates that a repository's server is verified by.
CERTIFICATES = "argocd-tls-certs-cm"
_LABELS = {"app.kubernetes.io/part-of": "argocd", "argocd.argoproj.io/secret-type": "repository"}


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
    """The project of the given repositories, the app of apps, and the certificates of repositories."""
    found = []
    if inputs.argocd.repositories:
        found.append(_manifest(PROJECT, "AppProject", _project(inputs)))
    if inputs.argocd.apps:
        found.append(_manifest("apps", "Application", _apps(inputs)))
    if trusts_gitlab(inputs):
        found.append(_certificates(inputs))
    return tuple(found)


def trusts_gitlab(inputs: ToolInputs) -> bool:
    """Whether GitLab's certificate comes from the stack's own CA, and trust-manager can hand that out."""
    return TRUST_MANAGER in inputs.present and "gitlab" in inputs.all_hosts and inputs.ca_bundle is not None


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


def _certificates(inputs: ToolInputs) -> Manifest:
    body = {
        "apiVersion": "trust.cert-manager.io/v1alpha1",
        "kind": "Bundle",
        "metadata": {"name": CERTIFICATES},
        "spec": {
            "sources": [{"configMap": {"name": inputs.ca_bundle, "key": CA_BUNDLE_KEY}}],
            "target": {
                "configMap": {"key": inputs.all_hosts["gitlab"]},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
            },
        },
    }
    return Manifest(name=CERTIFICATES, needs=(TRUST_MANAGER,), body=body)
