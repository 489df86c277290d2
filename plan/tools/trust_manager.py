"""trust-manager: the stack's CA bundle in every namespace of the cluster, also in those that come later.

The tools themselves mount another ConfigMap, `opstella-ca-bundle`, which the stack makes in their namespaces before
their releases: they stand before trust-manager does, and must go on when it is switched off. This one is for everybody
else, under a name of its own: `opstella-trust`.
"""

from __future__ import annotations

from plan import versions
from plan.tools import cert_manager
from plan.tools.common import replicas_of, resources
from plan.tools.model import CA_BUNDLE, CA_BUNDLE_KEY, Manifest, Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import KUBERNETES_API, Flow

NAME = "trust-manager"
NAMESPACE = cert_manager.NAMESPACE  # the only one whose Secrets and ConfigMaps a Bundle may read
BUNDLE = "opstella-trust"
WEBHOOK_PORT, METRICS_PORT = 6443, 9402
LABELS = {"app": "trust-manager"}


def _values(inputs: ToolInputs) -> Values:
    return {
        "crds": {"enabled": True, "keep": True},
        "replicaCount": replicas_of(inputs, NAME),
        "app": {"trust": {"namespace": NAMESPACE}, "webhook": {"port": WEBHOOK_PORT}},
        # The public CAs of its package would trust the whole internet wherever the bundle is mounted.
        "defaultPackage": {"enabled": False},
        "secretTargets": {"enabled": False},  # a right to write Secrets everywhere, for what is no secret
        "resources": resources("10m", "48Mi", "128Mi"),
    }


def release(inputs: ToolInputs) -> Release:
    """The controller, then the Bundle, whose source is the stack's own ConfigMap in cert-manager's namespace."""
    source = inputs.ca_bundle or CA_BUNDLE
    bundle: Values = {
        "apiVersion": "trust.cert-manager.io/v1alpha1",
        "kind": "Bundle",
        "metadata": {"name": BUNDLE},
        "spec": {
            "sources": [{"configMap": {"name": source, "key": CA_BUNDLE_KEY}}],
            "target": {"configMap": {"key": CA_BUNDLE_KEY}},  # no selector: all namespaces
        },
    }
    return Release.of(
        versions.TRUST_MANAGER,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        needs=(cert_manager.NAME,),
        ca_bundle=source,
        after=(Manifest(name=BUNDLE, needs=(NAME,), body=bundle),),
        crds=("bundles.trust.cert-manager.io",),
        flows=(
            Flow(peer=KUBERNETES_API, ports=(6443,), pods=LABELS, why="writes the CA bundle into namespaces"),
            Flow(peer=KUBERNETES_API, ports=(WEBHOOK_PORT,), inbound=True, pods=LABELS, why="admission of bundles"),
        ),
        ports_for_metrics=(METRICS_PORT,),
        workloads=(
            Workload(
                kind="Deployment", name="trust-manager", namespace=NAMESPACE, replicas=replicas_of(inputs, NAME),
                cpu="10m", memory="48Mi", selector=LABELS,
            ),
        ),
    )  # fmt: skip


TOOL = Tool(name=NAME, release=release)
