"""Projects: namespaces in which a group of the realm works, each with its quota, pod security and network policies.

The rights there are Kubernetes' own role `edit`, which reads Secrets and runs pods as the ServiceAccounts of the
namespace, so that nothing of the platform may be in it. What `edit` does not bound (names in Ingresses, ports of nodes) an
admission policy does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Any

from config.errors import REMOVE, Problem, key
from config.model import Settings
from config.projects import Project
from plan.network import METADATA
from plan.rke2 import RBAC, subject
from plan.tools import alloy, telemetry, traefik
from plan.tools.model import Manifest, Release, ToolInputs, Values

LABEL = "opstella.io/project"
GUARD = "opstella-projects"
# Kubernetes', RKE2's and Calico's own.
RESERVED = ("default", "calico-apiserver", "calico-system", "cattle-system", "tigera-operator")
RESERVED_PREFIX = "kube-"


def check(settings: Settings, releases: Sequence[Release]) -> Iterator[Problem]:
    """A problem for each project whose namespace is somebody else's, and for each cluster that does not exist."""
    taken = {namespace: r.name for r in releases for namespace in (r.namespace, *r.further_namespaces)}
    for name, project in settings.kubernetes.projects.items():
        where = key("kubernetes.projects", name)
        owner = taken.get(name) or ("Kubernetes" if name in RESERVED or name.startswith(RESERVED_PREFIX) else None)
        if owner:
            yield Problem(
                where,
                f"the namespace '{name}' is that of {owner}, and who works in it could read its Secrets",
                f"give the project another name, such as team-{name}",
            )
        for other, its in settings.kubernetes.projects.items():
            if name in (f"{other}-{kind}" for kind in _kinds(its)):
                yield Problem(
                    where,
                    f"'{name}' is how the project '{other}' calls an object of its own",
                    f"give the project another name, such as team-{name}",
                )
        if project.clusters == ():
            yield Problem(
                f"{where}.clusters",
                "the list is empty: the namespace would be nowhere",
                f"name some of {', '.join(sorted(settings.enabled_clusters))}, or remove clusters for all of them",
                {("kubernetes", "projects", name, "clusters"): REMOVE},
            )
        for cluster in project.clusters or ():
            if cluster not in settings.enabled_clusters:
                yield Problem(
                    f"{where}.clusters",
                    f"there is no cluster '{cluster}'",
                    f"name some of {', '.join(sorted(settings.enabled_clusters))}, or remove clusters for all of them",
                )


def manifests(settings: Settings, inputs: ToolInputs) -> tuple[Manifest, ...]:
    """The objects of the projects of one cluster: first the rules for all of them, then each namespace and what is in
    it. A namespace outlives its project, without anybody's rights to it: what people keep there is theirs."""
    here = {
        name: project
        for name, project in sorted(settings.kubernetes.projects.items())
        if project.clusters is None or inputs.cluster in project.clusters
    }
    if not here:
        return ()
    found = list(_guard(inputs))
    for name, project in here.items():
        found.append(_manifest(f"project-{name}", _namespace(name, project), kept=True))
        bodies = (_quota(project), _limits(), _account(), *map(_binding, dict.fromkeys(project.groups)), _policy(inputs))
        for kind, body in zip(_kinds(project), bodies, strict=True):
            body["metadata"]["namespace"] = name
            found.append(_manifest(f"project-{name}-{kind}", body, namespace=name))
    return tuple(found)


def _kinds(project: Project) -> tuple[str, ...]:
    """What tells the objects in a project's namespace from one another, in their order."""
    return ("quota", "limits", "account", *(f"group-{group}" for group in dict.fromkeys(project.groups)), "policy")


def _manifest(name: str, body: Values, *, namespace: str | None = None, kept: bool = False) -> Manifest:
    return Manifest(name=name, namespace=namespace, needs=(), body=body, kept=kept)


def _namespace(name: str, project: Project) -> Values:
    levels = {f"pod-security.kubernetes.io/{mode}": project.pod_security for mode in ("enforce", "warn", "audit")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {LABEL: name, **alloy.SCRAPED, **levels}},
    }


def _quota(project: Project) -> Values:
    hard = {
        "requests.cpu": str(project.cpu),
        "requests.memory": f"{project.memory_gb}Gi",
        "limits.memory": f"{project.memory_gb}Gi",
        "requests.storage": f"{project.storage_gb}Gi",
        "pods": str(project.pods),
        # Ports of the nodes are the platform's: users come in through its ingress.
        "services.nodeports": "0",
        "services.loadbalancers": "0",
    }
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "opstella"}, "spec": {"hard": hard}}


def _limits() -> Values:
    """What a container requests that says nothing: under a quota it would be refused."""
    bounds = {"type": "Container", "defaultRequest": {"cpu": "50m", "memory": "64Mi"}, "default": {"memory": "256Mi"}}
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "opstella"}, "spec": {"limits": [bounds]}}


def _account() -> Values:
    """The account of pods that name none: without a token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default"},
        "automountServiceAccountToken": False,
    }


def _binding(group: str) -> Values:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"opstella-{group}"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "edit"},
        "subjects": [subject(group)],
    }


def _policy(inputs: ToolInputs) -> Values:
    """In: its own pods, the ingress, and who reads metrics. Out: its own pods, names, the collector of traces, the
    platform's public names, and what is outside as for the tools' pods: no pod, Service or machine of the platform
    besides, and no metadata of a cloud."""
    own = {"podSelector": {}}
    public = [str(ip_network(a)) for a in (*inputs.load_balancers, *((inputs.gitlab,) if inputs.gitlab else ()))]
    inside = [inputs.pod_network, inputs.service_network, *inputs.machine_networks, *map(str, METADATA)]
    dns = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    otlp = [{"port": port, "protocol": "TCP"} for port in (telemetry.OTLP_GRPC, telemetry.OTLP_HTTP)]
    egress: list[dict[str, Any]] = [
        {"to": [own]},
        {"to": [_of("kube-system")], "ports": dns},
        {"to": [_of(alloy.NAMESPACE)], "ports": otlp},
        *(
            [{
                "to": [{"ipBlock": {"cidr": cidr}} for cidr in public],
                "ports": [{"port": port, "protocol": "TCP"} for port in (22, 443)],
            }]
            if public
            else []
        ),
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": inside}}]},
    ]  # fmt: skip
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "opstella"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [own, _of(traefik.NAMESPACE), _of(alloy.NAMESPACE)]}],
            "egress": egress,
        },
    }


def _of(namespace: str) -> Values:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}


def _guard(inputs: ToolInputs) -> Iterator[Manifest]:
    """What `edit` allows and would reach beyond the namespace: a Service that takes another's address, ports of the
    nodes, and an Ingress under a name of the platform."""
    hosts = ", ".join(f"'{host}'" for host in sorted(set(inputs.all_hosts.values())))
    rules = [
        ("services", "!has(object.spec.externalIPs) || object.spec.externalIPs.size() == 0",
         "a Service of a project has no externalIPs: they would take other machines' addresses"),
        ("services", "!has(object.spec.type) || object.spec.type in ['ClusterIP', 'ExternalName']",
         "a Service of a project is of type ClusterIP or ExternalName: users come in by an Ingress"),
        ("ingresses",
         "!has(object.spec.defaultBackend) && has(object.spec.rules) && object.spec.rules.all(r, has(r.host) && "
         f"r.host != '' && !r.host.contains('*') && !r.host.endsWith('.cluster.local') && !(r.host in [{hosts}]))",
         "every rule of a project's Ingress names a host, without '*', that is not one of the platform's own or of a Service"),
    ]  # fmt: skip
    groups = {"services": "", "ingresses": "networking.k8s.io"}
    body: Values = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": GUARD},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}
                    for resource, group in groups.items()
                ]
            },
            "validations": [
                {"expression": f"request.resource.resource != '{resource}' || ({expression})", "message": message}
                for resource, expression, message in rules
            ],
        },
    }
    binding: Values = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": GUARD},
        "spec": {
            "policyName": GUARD,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchExpressions": [{"key": LABEL, "operator": "Exists"}]}},
        },
    }
    yield _manifest(GUARD, body)
    yield _manifest(f"{GUARD}-binding", binding)
