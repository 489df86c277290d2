"""Alloy on every node: it reads logs, scrapes metrics, takes what applications send by OTLP, and passes it all on."""

from __future__ import annotations

from plan import audit, versions
from plan.tools import agents, telemetry
from plan.tools.alloy_config import configuration
from plan.tools.common import ca_volume, resources
from plan.tools.model import Manifest, Release, Secret, Tool, ToolInputs, Values, Workload
from plan.tools.needs import ITSELF, KUBERNETES_API, NODES, PUBLIC, Flow

NAME = NAMESPACE = "alloy"
HTTP = 12345  # its own metrics, and how they find one another
DATA = "/var/lib/alloy"
KEYS_SECRET = "alloy-agents"
CPU, MEMORY = "100m", "192Mi"
EXPORTER, KUBELET, ETCD_METRICS, COREDNS_METRICS = 9100, 10250, 2381, 9153
SCRAPED = {"opstella.io/metrics": "true"}  # of a namespace whose pods it may ask for metrics
STORES = ("loki", "mimir", "tempo")

# The chart's own rules but one: those let it read every Secret of the cluster, Vault's shares among them.
RIGHTS: tuple[Values, ...] = tuple(
    {"apiGroups": groups, "resources": resources, "verbs": ["get", "list", "watch"]}
    for groups, resources in (
        (["", "discovery.k8s.io", "networking.k8s.io"], ["endpoints", "endpointslices", "ingresses", "pods", "services"]),
        ([""], ["pods", "pods/log", "namespaces", "events", "configmaps"]),
        (["monitoring.coreos.com"], ["prometheusrules", "podmonitors", "servicemonitors", "probes", "scrapeconfigs"]),
        (["apps", "extensions"], ["replicasets"]),
    )
)


def _values(inputs: ToolInputs) -> Values:
    state = {"name": "state", "hostPath": {"path": DATA, "type": "DirectoryOrCreate"}}
    # The folder alone: beside it lie the keys of the cluster. On workers it is made, and stays empty.
    log = {"name": "audit", "hostPath": {"path": audit.FOLDER, "type": "DirectoryOrCreate"}}
    volumes = [state, log]
    mounts = [{"name": "state", "mountPath": DATA}, {"name": "audit", "mountPath": audit.FOLDER, "readOnly": True}]
    if inputs.ca_bundle:
        volume, mount = ca_volume(inputs.ca_bundle)
        volumes, mounts = [*volumes, volume], [*mounts, mount]
    if agents.keys(inputs):
        volumes = [*volumes, {"name": "agents", "secret": {"secretName": KEYS_SECRET}}]
        mounts = [*mounts, {"name": "agents", "mountPath": agents.FOLDER, "readOnly": True}]
    ports = [
        {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}
        for name, port in (("otlp-grpc", telemetry.OTLP_GRPC), ("otlp-http", telemetry.OTLP_HTTP))
    ]
    return {
        "alloy": {
            "configMap": {"content": configuration(inputs)},
            "clustering": {"enabled": True, "name": inputs.cluster},
            "enableReporting": False,
            # On the node's disk: how far each file was read, and what waits to be sent, outlive the pod.
            "storagePath": DATA,
            "extraPorts": ports,
            "mounts": {"varlog": True, "extra": mounts},
            # Container logs and the journal belong to root; it reads them, and may do nothing else as root.
            "securityContext": {
                "runAsUser": 0,
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "resources": resources(CPU, MEMORY, "768Mi"),
        },
        "configReloader": {"enabled": False},  # the pods are replaced, one by one, when the configuration changes
        "controller": {
            "type": "daemonset",
            "tolerations": [{"operator": "Exists"}],  # masters too
            "volumes": {"extra": volumes},
        },
        "rbac": {"rules": list(RIGHTS)},
        # What is sent to a node's Alloy stays on the node.
        "service": {"internalTrafficPolicy": "Local"},
    }


def _policy() -> Manifest:
    """Beyond the flows of tools: applications of any namespace may send to it, and it scrapes those that ask for it."""
    everywhere = [{"namespaceSelector": {}}]
    asking = [{"namespaceSelector": {"matchLabels": SCRAPED}}]
    names = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    ports = [{"port": port, "protocol": "TCP"} for port in (telemetry.OTLP_GRPC, telemetry.OTLP_HTTP)]
    return Manifest(
        name="alloy-applications",
        namespace=NAMESPACE,
        needs=(),
        body={
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "alloy-applications", "namespace": NAMESPACE},
            "spec": {
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": "alloy"}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": everywhere, "ports": ports}],
                "egress": [{"to": asking}, {"to": names, "ports": [{"port": COREDNS_METRICS, "protocol": "TCP"}]}],
            },
        },
    )


def _flows(inputs: ToolInputs) -> tuple[Flow, ...]:
    """To the API, the nodes' exporters, the stores here or behind another cluster's ingress, and one another."""
    ports = {"loki": telemetry.LOKI_PORT, "mimir": telemetry.MIMIR_PORT, "tempo": telemetry.OTLP_HTTP}
    here = [
        Flow(peer=store, ports=(ports[store],), why=f"hands on {telemetry.SIGNALS[store]}")
        for store in STORES
        if store in inputs.present
    ]
    return (
        Flow(peer=KUBERNETES_API, ports=(6443,), why="watches pods, nodes and events"),
        Flow(peer=NODES, ports=(EXPORTER, KUBELET, ETCD_METRICS), why="metrics of machines, kubelets and etcd"),
        Flow(peer=ITSELF, ports=(HTTP,), why="its pods share out what they scrape"),
        *here,
        *(
            (Flow(peer=PUBLIC, ports=(443,), why="stores of other clusters: logs, metrics, traces"),)
            if agents.keys(inputs)
            else ()
        ),
    )


def release(inputs: ToolInputs) -> Release:
    """One pod a node, masters too."""
    keys = agents.keys(inputs)
    return Release.of(
        versions.ALLOY,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        # The stores, so that nothing piles up; kube-prometheus-stack, whose definitions it watches.
        needs=tuple(name for name in (*STORES, "kube-prometheus-stack") if name in inputs.present),
        pod_security="privileged",  # /var/log and its state on the host, and root
        secrets=(Secret(name=KEYS_SECRET, namespace=NAMESPACE, data=keys),) if keys else (),
        before=(_policy(),),
        ca_bundle=inputs.ca_bundle,
        flows=_flows(inputs),
        ports_for_metrics=(HTTP,),
        workloads=(Workload(kind="DaemonSet", name="alloy", namespace=NAMESPACE, cpu=CPU, memory=MEMORY),),
    )


TOOL = Tool(name=NAME, release=release)
