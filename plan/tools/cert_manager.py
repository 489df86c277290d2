"""cert-manager: certificates inside the cluster, signed by the stack's intermediate CA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plan import versions
from plan.tools import certificate_policy, vault_issuer
from plan.tools.common import replicas_of, resources
from plan.tools.model import FromPki, Manifest, Release, Secret, Tool, ToolInputs, Values, Workload
from plan.tools.needs import KUBERNETES_API, PUBLIC, Flow

NAME = NAMESPACE = "cert-manager"
CA_SECRET = "opstella-ca"
WEBHOOK_PORT, WEBHOOK = 10250, {"app.kubernetes.io/component": "webhook"}
CONTROLLER = {"app.kubernetes.io/component": "controller"}


def certificate(name: str, namespace: str, names: Sequence[str], inputs: ToolInputs, **spec: Any) -> Manifest:
    """A server's Certificate for the DNS `names`, signed by the stack's ClusterIssuer into the Secret `name`. `spec`: what
    else its specification has, or has otherwise."""
    body: Values = {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "secretName": name,
            "dnsNames": list(names),
            "duration": "720h",
            "renewBefore": "240h",
            "usages": ["digital signature", "key encipherment", "server auth"],
            "issuerRef": {"group": "cert-manager.io", "kind": "ClusterIssuer", "name": inputs.cluster_issuer},
            **spec,
        },
    }
    return Manifest(name=name, namespace=namespace, needs=(NAME,), wait_for="condition=Ready", body=body)


def _values(inputs: ToolInputs) -> Values:
    return {
        "crds": {"enabled": True, "keep": True},
        "replicaCount": replicas_of(inputs, NAME),
        "resources": resources("20m", "64Mi", "256Mi"),
        "webhook": {"replicaCount": replicas_of(inputs, NAME), "resources": resources("10m", "32Mi", "128Mi")},
        "cainjector": {"replicaCount": replicas_of(inputs, NAME), "resources": resources("10m", "64Mi", "256Mi")},
        # The hook holds the release back until the webhook answers, so that the issuer after it is accepted.
        "startupapicheck": {"enabled": True, "timeout": "5m", "resources": resources("10m", "32Mi", "64Mi")},
    }


def release(inputs: ToolInputs) -> Release:
    """The controllers, then the ClusterIssuer that signs with the intermediate, and that of another cluster's Vault."""
    vault = vault_issuer.is_elsewhere(inputs)
    issuer = Manifest(
        name=inputs.cluster_issuer,
        needs=(NAME,),
        wait_for="condition=Ready",
        body={
            "apiVersion": "cert-manager.io/v1",
            "kind": "ClusterIssuer",
            "metadata": {"name": inputs.cluster_issuer},
            "spec": {"ca": {"secretName": CA_SECRET}},
        },
    )
    return Release.of(
        versions.CERT_MANAGER,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        secrets=(
            Secret(
                name=CA_SECRET,
                namespace=NAMESPACE,  # a ClusterIssuer reads its secret in cert-manager's own namespace
                type="kubernetes.io/tls",
                data={"tls.crt": FromPki(item="intermediate.chain"), "tls.key": FromPki(item="intermediate.key")},
            ),
            *((vault_issuer.authority(),) if vault else ()),
        ),
        # Before the issuers: what is signed is held to the rule from the first request on.
        before=certificate_policy.manifests(inputs),
        after=(issuer, *(vault_issuer.from_elsewhere(inputs) if vault else ())),
        flows=(
            Flow(peer=KUBERNETES_API, ports=(6443,), why="watches certificates and writes their Secrets"),
            Flow(peer=KUBERNETES_API, ports=(WEBHOOK_PORT,), inbound=True, pods=WEBHOOK, why="admission"),
            *((Flow(peer=PUBLIC, ports=(443,), pods=CONTROLLER, why="Vault signs certificates"),) if vault else ()),
        ),
        ports_for_metrics=(9402,),
        crds=(
            "certificaterequests.cert-manager.io",
            "certificates.cert-manager.io",
            "clusterissuers.cert-manager.io",
            "issuers.cert-manager.io",
        ),
        workloads=tuple(
            Workload(
                kind="Deployment", name=name, namespace=NAMESPACE, replicas=replicas_of(inputs, NAME), cpu=cpu, memory=memory,
                selector={"app.kubernetes.io/instance": NAME, "app.kubernetes.io/component": component},
            )
            for name, component, cpu, memory in (
                ("cert-manager", "controller", "20m", "64Mi"),
                ("cert-manager-cainjector", "cainjector", "10m", "64Mi"),
                ("cert-manager-webhook", "webhook", "10m", "32Mi"),
            )
        ),  # fmt: skip
    )


TOOL = Tool(name=NAME, release=release)
