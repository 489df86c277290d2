"""metrics-server: what nodes and pods use at this moment, for autoscalers and `kubectl top`.

RKE2 brings one of its own, which serves unless opstella:kubernetes.metricsServer says otherwise: two of them cannot
own the API's one APIService. This one stands in its place where its version, size or place are to be chosen.

It trusts the kubelets without being told how: what signs their certificates in RKE2 signs the API server's too, and is
in every pod beside its token. RKE2's chart says nothing of it either, and certificates are verified.
"""

from __future__ import annotations

from plan import versions
from plan.tools import cert_manager
from plan.tools.common import merge, replicas_of, resources, spread
from plan.tools.model import Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import KUBERNETES_API, NODES, Flow

NAME = NAMESPACE = "metrics-server"
PORT, KUBELET = 10250, 10250
CPU, MEMORY = "50m", "100Mi"  # its own rule: a millicore and 2 MiB a node
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": NAME}


def _values(inputs: ToolInputs) -> Values:
    replicas = replicas_of(inputs, NAME)
    values: Values = {
        "replicas": replicas,
        "containerPort": PORT,
        # A certificate that the API server verifies; by default it makes one up, and the APIService skips the check.
        "apiService": {"create": True, "insecureSkipTLSVerify": False},
        "tls": {
            "type": "cert-manager",
            "certManager": {
                "addInjectorAnnotations": True,
                "existingIssuer": {"enabled": True, "kind": "ClusterIssuer", "name": inputs.cluster_issuer},
            },
        },
        "resources": resources(CPU, MEMORY, "400Mi"),
    }
    if replicas > 1:
        values = merge(values, {"affinity": spread(LABELS)})
    return values


def served(inputs: ToolInputs) -> bool:
    """Whether the cluster's API serves what autoscalers go by: from RKE2's metrics-server, or from this one."""
    return inputs.metrics_server == "rke2" or NAME in inputs.present


def release(inputs: ToolInputs) -> Release:
    """One pod, or two on different nodes, that ask every kubelet."""
    return Release.of(
        versions.METRICS_SERVER,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        needs=(cert_manager.NAME,),
        api_services=("v1beta1.metrics.k8s.io",),
        flows=(
            Flow(peer=NODES, ports=(KUBELET,), why="the kubelets know what pods and nodes use"),
            Flow(peer=KUBERNETES_API, ports=(6443,), why="watches nodes and pods, and has tokens reviewed"),
            Flow(peer=KUBERNETES_API, ports=(PORT,), inbound=True, why="the part of the API that it serves"),
        ),
        workloads=(
            Workload(
                kind="Deployment", name=NAME, namespace=NAMESPACE, replicas=replicas_of(inputs, NAME),
                cpu=CPU, memory=MEMORY, selector=LABELS,
            ),
        ),
    )  # fmt: skip


TOOL = Tool(name=NAME, release=release, wanted=lambda inputs: inputs.metrics_server == "catalogue")
