"""The unsealer: opens Vault's replicas after a restart, and hands the shares to their custodians (docs/vault.md).

It lives in a namespace of its own, with the shares: who may start pods or read Secrets beside Vault does not see them.
"""

from __future__ import annotations

import json

from plan.tools import vault_config
from plan.tools.common import CA_FILE, PYTHON_IMAGE, provision_files, resources
from plan.tools.model import Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import KUBERNETES_API, Flow

NAME = "vault-unsealer"
NAMESPACE = "vault-unseal"
CHART = "charts/vault-unsealer"  # a folder of this project
VERSION = "1.0.0"
SHARES, ENCRYPTED_SHARES = "vault-unseal", "vault-custodians"
RECORD = f"{NAMESPACE}/{SHARES}"
SETUP = {"name": "vault-setup", "namespace": "vault"}  # the ServiceAccount of Vault's Job
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": NAME}


def works(inputs: ToolInputs) -> bool:
    """Whether there is anything to do: an automatic seal whose recovery keys stay where they are needs nobody."""
    return "vault" in inputs.present and (inputs.vault.unseal != "auto" or bool(inputs.vault.pgp_keys))


def handover(inputs: ToolInputs) -> Values:
    """The reader is provision/vault_unseal.py."""
    vault = inputs.vault
    return {
        "role": vault_config.UNSEALER,
        "audience": vault_config.AUDIENCE,
        "shares": vault.shares,
        "threshold": vault.threshold,
        "pgp_keys": list(vault.pgp_keys),
        "secret": ENCRYPTED_SHARES,
        "target": vault_config.target(inputs),
    }


def release(inputs: ToolInputs) -> Release:
    """The namespace of the shares, who may read them there, and one pod that does."""
    from plan.tools.vault import addresses  # it needs this release

    active = works(inputs)
    files = {
        **provision_files("client.py", "vault_api.py", "vault_unseal.py"),
        "handover.json": json.dumps(handover(inputs), indent=1),
    }
    environment = {
        "HANDOVER": "/opstella/handover.json",
        "RECORD": RECORD,
        "VAULT_REPLICAS": " ".join(addresses(inputs)) if active else "",
        "ACCOUNT_NAME": NAME,
        "CA_FILE": CA_FILE,
    }
    return Release(
        name=NAME,
        namespace=NAMESPACE,
        chart=CHART,
        version=VERSION,
        repository=None,
        values={
            "enabled": active,
            "image": PYTHON_IMAGE,
            "files": files if active else {},
            "environment": environment,
            "caBundle": inputs.ca_bundle or "",
            "setup": SETUP,
            "secrets": {"shares": SHARES, "encrypted": ENCRYPTED_SHARES},
            "resources": resources("10m", "48Mi", "96Mi"),
        },
        ca_bundle=inputs.ca_bundle,
        flows=(
            Flow(peer=KUBERNETES_API, ports=(6443,), why="reads and keeps the shares"),
            Flow(peer="vault", ports=(8200,), why="opens replicas that are sealed"),
        ),
        workloads=(
            Workload(kind="Deployment", name=NAME, namespace=NAMESPACE, cpu="10m", memory="48Mi", selector=LABELS),
        )
        if active
        else (),
    )


TOOL = Tool(name=NAME, release=release, domain_key="vault")
