"""The ClusterIssuer that asks Vault: in Vault's own cluster, and in every other one, by that cluster's own login."""

from __future__ import annotations

from plan.tools import vault_config
from plan.tools.common import elsewhere
from plan.tools.model import CA_BUNDLE_KEY, CaBundle, Manifest, Secret, ToolInputs, Values

TOOL = "vault"
CERT_MANAGER = "cert-manager"  # the release, its namespace and its controller's account
CA_SECRET = "vault-issuer-ca"  # the CA bundle, where a ClusterIssuer reads it
RBAC = "rbac.authorization.k8s.io"


def authority() -> Secret:
    """A ClusterIssuer reads its secrets in cert-manager's own namespace."""
    return Secret(name=CA_SECRET, namespace=CERT_MANAGER, data={CA_BUNDLE_KEY: CaBundle()})


def is_elsewhere(inputs: ToolInputs) -> bool:
    """Whether another cluster's Vault signs for this one."""
    return elsewhere(inputs, TOOL, TOOL) is not None


def from_elsewhere(inputs: ToolInputs) -> tuple[Manifest, ...]:
    """The issuer of another cluster's Vault, which becomes ready when that answers: nothing here waits for it."""
    return manifests(f"https://{inputs.all_hosts[TOOL]}", vault_config.method(inputs.cluster), wait_for=None)


def manifests(server: str, method: str, *, wait_for: str | None) -> tuple[Manifest, ...]:
    """The ClusterIssuer, and the one ServiceAccount whose tokens cert-manager may ask for; `method`: Vault's login."""
    name = vault_config.ISSUER
    rule = {
        "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [name], "verbs": ["create"],
    }  # fmt: skip
    account = {"kind": "ServiceAccount", "name": CERT_MANAGER, "namespace": CERT_MANAGER}
    spec = {
        "server": server,
        "path": f"{vault_config.PKI}/sign/{vault_config.PKI_ROLE}",
        "caBundleSecretRef": {"name": CA_SECRET, "key": CA_BUNDLE_KEY},
        "auth": {
            "kubernetes": {"role": name, "mountPath": f"/v1/auth/{method}", "serviceAccountRef": {"name": name}}
        },
    }
    binding = {"subjects": [account], "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name}}
    return (
        _manifest(f"{name}-account", "v1", "ServiceAccount"),
        _manifest(f"{name}-role", f"{RBAC}/v1", "Role", rules=[rule]),
        _manifest(f"{name}-binding", f"{RBAC}/v1", "RoleBinding", **binding),
        _manifest(name, "cert-manager.io/v1", "ClusterIssuer", None, wait_for, spec={"vault": spec}),
    )


def _manifest(
    title: str, api: str, kind: str, namespace: str | None = CERT_MANAGER, wait_for: str | None = None, **content: object
) -> Manifest:
    metadata = {"name": vault_config.ISSUER, **({"namespace": namespace} if namespace else {})}
    body: Values = {"apiVersion": api, "kind": kind, "metadata": metadata, **content}
    return Manifest(name=title, namespace=namespace, needs=(CERT_MANAGER,), wait_for=wait_for, body=body)
