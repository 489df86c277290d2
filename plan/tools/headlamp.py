"""Headlamp: the clusters' web interface. It acts with the rights of whoever is logged in, and has none of its own.

Its own cluster it finds by itself; every other one stands in a kubeconfig, by the name of its API. There is nobody's
credential in it: Headlamp logs a person in for each cluster they open, by the same client of the realm, and passes that
person's token on.
"""

from __future__ import annotations

import yaml

from plan import versions
from plan.tools import traefik
from plan.tools.common import CA_FILE, ca_volume, issuer, merge, replicas_of, resources, spread
from plan.tools.model import Clear, ClusterAuthority, Composed, Release, Secret, Tool, ToolInputs, Values, Workload
from plan.tools.needs import KUBERNETES_API, PUBLIC, Flow, OidcClient
from plan.tools.sources import Source

NAME = NAMESPACE = "headlamp"
DOMAIN_KEY = "headlamp"
SECRET = "headlamp-login"
PORT = 4466
CPU, MEMORY = "50m", "128Mi"
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": NAME}
# The API server takes tokens for this audience only (plan/rke2.py).
AUDIENCE = "kubernetes"
SCOPES = "profile,email,groups"
CLUSTERS_SECRET, CLUSTERS_FOLDER = "headlamp-clusters", "/etc/opstella/clusters"
KUBECONFIG = "kubeconfig"
CLIENT_PASSWORD = f"client-{NAME}"  # made for the client by plan/tools/wiring.py
API_PORT = 6443


def others(inputs: ToolInputs) -> tuple[str, ...]:
    """The clusters beside its own."""
    return tuple(name for name in inputs.apis if name != inputs.cluster)


def kubeconfig(inputs: ToolInputs) -> str:
    """Every other cluster, as a template: the client's secret goes in for `{client-headlamp}`."""
    login = {
        "client-id": NAME,
        "client-secret": f"{{{CLIENT_PASSWORD}}}",
        "idp-issuer-url": issuer(inputs),
        "scope": SCOPES,
        **({"idp-certificate-authority": CA_FILE} if inputs.ca_bundle else {}),
    }
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {
                        "server": inputs.apis[name],
                        "certificate-authority": f"{CLUSTERS_FOLDER}/{_authority(name)}",
                    },
                }
                for name in others(inputs)
            ],
            "users": [{"name": "person", "user": {"auth-provider": {"name": "oidc", "config": login}}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": "person"}} for name in others(inputs)],
        },
        sort_keys=False,
        width=4096,
    )


def _authority(cluster: str) -> str:
    return f"{cluster}.crt"


def _clusters(inputs: ToolInputs) -> tuple[Secret, ...]:
    if not others(inputs):
        return ()
    data: dict[str, Source] = {
        KUBECONFIG: Composed(template=kubeconfig(inputs), passwords=(CLIENT_PASSWORD,)),
        **{_authority(name): ClusterAuthority(cluster=name) for name in others(inputs)},
    }
    return (Secret(name=CLUSTERS_SECRET, namespace=NAMESPACE, data=data),)


def _values(inputs: ToolInputs, host: str, replicas: int) -> Values:
    values: Values = {
        "replicaCount": replicas,
        "config": {
            "inCluster": True,
            "inClusterContextName": inputs.cluster,
            "oidc": {
                "secret": {"create": False},
                # Its keys are variables. The chart looks whether these two values are set, and takes both from there.
                "externalSecret": {"enabled": True, "name": SECRET, "hasScopes": True},
                "callbackURL": f"https://{host}/oidc-callback",
                "usePKCE": True,
            },
        },
        # A login begins and ends at one pod, which alone knows of it.
        "service": {"annotations": {"traefik.ingress.kubernetes.io/service.sticky.cookie": "true"}},
        "clusterRoleBinding": {"create": False},  # the chart's default would make its account cluster-admin
        "ingress": {
            "enabled": True,
            "ingressClassName": inputs.ingress_class,
            "hosts": [{"host": host, "paths": [{"path": "/", "type": "Prefix"}]}],
            "tls": [{"hosts": [host]}],  # no secret: Traefik's default certificate covers the name
        },
        "resources": resources(CPU, MEMORY, "256Mi"),
        "affinity": spread(LABELS),
        # What the pod security level "restricted" asks for beyond the chart's defaults.
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 100,
            "runAsGroup": 101,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    volumes, mounts, arguments = [], [], []
    if inputs.ca_bundle:
        volume, mount = ca_volume(inputs.ca_bundle)
        volumes, mounts, arguments = [volume], [mount], [f"-oidc-ca-file={CA_FILE}"]
    if others(inputs):
        volumes.append({"name": "clusters", "secret": {"secretName": CLUSTERS_SECRET}})
        mounts.append({"name": "clusters", "mountPath": CLUSTERS_FOLDER, "readOnly": True})
        arguments.append(f"-kubeconfig={CLUSTERS_FOLDER}/{KUBECONFIG}")
        # Inside of a cluster it reads that file once, when it starts.
        values["podAnnotations"] = {"opstella.io/clusters": " ".join(others(inputs))}
    if arguments:
        values = merge(values, {"volumes": volumes, "volumeMounts": mounts, "config": {"extraArgs": arguments}})
    return values


def release(inputs: ToolInputs) -> Release:
    """Headlamp behind Traefik. What a group may do is decided by the cluster's own role bindings."""
    host = inputs.hosts[DOMAIN_KEY]
    replicas = replicas_of(inputs, NAME)
    callback = f"https://{host}/oidc-callback"
    client = OidcClient(
        client_id=NAME,
        name="Headlamp",
        redirect_uris=(callback,),
        roles={"platform-admins": "cluster-admin", "developers": "view; edit in their projects", "viewers": "view"},
        secret=SECRET,
        secret_key="OIDC_CLIENT_SECRET",
        extra={
            "OIDC_CLIENT_ID": Clear(text=NAME),
            "OIDC_ISSUER_URL": Clear(text=issuer(inputs)),
            "OIDC_SCOPES": Clear(text=SCOPES),
            "OIDC_CALLBACK_URL": Clear(text=callback),
            "OIDC_USE_PKCE": Clear(text="true"),
        },
        pkce=True,
        audiences=(AUDIENCE,),
    )
    return Release.of(
        versions.HEADLAMP,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, host, replicas),
        needs=(traefik.NAME,),
        clients=(client,),
        secrets=_clusters(inputs),
        flows=(
            Flow(peer=KUBERNETES_API, ports=(API_PORT,), why="what people see and change, by their own rights"),
            *((Flow(peer=PUBLIC, ports=(API_PORT,), why="APIs of other clusters"),) if others(inputs) else ()),
        ),
        ports_for_ingress=(PORT,),
        workloads=(
            Workload(
                kind="Deployment", name=NAME, namespace=NAMESPACE, replicas=replicas, cpu=CPU, memory=MEMORY,
                selector=LABELS,
            ),
        ),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
    )  # fmt: skip


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
