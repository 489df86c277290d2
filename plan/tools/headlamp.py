"""Headlamp: the clusters' web interface. It acts with the rights of whoever is logged in, and has none of its own."""

from __future__ import annotations

from plan import versions
from plan.tools import traefik
from plan.tools.common import CA_FILE, ca_volume, issuer, merge, replicas_of, resources, spread
from plan.tools.model import Clear, Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import KUBERNETES_API, Flow, OidcClient

NAME = NAMESPACE = "headlamp"
DOMAIN_KEY = "headlamp"
SECRET = "headlamp-login"
PORT = 4466
CPU, MEMORY = "50m", "128Mi"
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": NAME}
# The API server takes tokens for this audience only (plan/rke2.py).
AUDIENCE = "kubernetes"


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
    if inputs.ca_bundle:
        volume, mount = ca_volume(inputs.ca_bundle)
        trust = {"volumes": [volume], "volumeMounts": [mount], "config": {"extraArgs": [f"-oidc-ca-file={CA_FILE}"]}}
        values = merge(values, trust)
    return merge(values, {"image": {"registry": inputs.image_registry}}) if inputs.image_registry else values


def release(inputs: ToolInputs) -> Release:
    """Headlamp behind Traefik. What a group may do is decided by the cluster's own role bindings."""
    chart = versions.HEADLAMP
    host = inputs.hosts[DOMAIN_KEY]
    replicas = replicas_of(inputs, NAME)
    callback = f"https://{host}/oidc-callback"
    client = OidcClient(
        client_id=NAME,
        name="Headlamp",
        redirect_uris=(callback,),
        roles={"platform-admins": "cluster-admin", "developers": "edit", "viewers": "view"},
        secret=SECRET,
        secret_key="OIDC_CLIENT_SECRET",
        extra={
            "OIDC_CLIENT_ID": Clear(text=NAME),
            "OIDC_ISSUER_URL": Clear(text=issuer(inputs)),
            "OIDC_SCOPES": Clear(text="profile,email,groups"),
            "OIDC_CALLBACK_URL": Clear(text=callback),
            "OIDC_USE_PKCE": Clear(text="true"),
        },
        pkce=True,
        audiences=(AUDIENCE,),
    )
    return Release(
        name=NAME,
        namespace=NAMESPACE,
        chart=chart.name,
        version=chart.version,
        repository=chart.repository,
        values=_values(inputs, host, replicas),
        needs=(traefik.NAME,),
        clients=(client,),
        flows=(Flow(peer=KUBERNETES_API, ports=(6443,)),),
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
