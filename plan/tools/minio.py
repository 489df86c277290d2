"""MinIO: the object store, one server on one volume.

Limits of that: no erasure coding, so the volume's own redundancy is all there is; one pod, so it is away while it
moves. MinIO supports NFS for such a single drive only, and never two servers on it: an update stops the old pod first.
It looks for its identity provider once, when it starts: `kubectl -n minio rollout restart deployment/minio` if Keycloak
was away then.
"""

from __future__ import annotations

from plan import versions
from plan.tools import traefik
from plan.tools.common import beside_bundle, issuer, merge, resources, storage_of
from plan.tools.ingress import closed
from plan.tools.minio_buckets import NAME, NAMESPACE, PORT, ROOT_PASSWORD, ROOT_SECRET, ROOT_USER
from plan.tools.minio_buckets import provisioning as provisioning
from plan.tools.model import (
    CaBundle,
    Clear,
    Generated,
    Login,
    Manifest,
    Password,
    Release,
    Secret,
    Tool,
    ToolInputs,
    Values,
    Workload,
)
from plan.tools.needs import ITSELF, PUBLIC, Flow, OidcClient

DOMAIN_KEY, API_KEY = "minio", "minioApi"
CONSOLE_PORT = 9001
CLIENT_SECRET, CA_SECRET = "minio-oidc", "minio-ca"
# Every path of the pinned release by which it tells metrics: all of them need no login once one of them is public.
CLOSED = ("/minio/metrics", "/minio/prometheus", "/minio/v2/metrics")
WORKLOAD = {"app": NAME, "release": NAME}


def client_id(inputs: ToolInputs) -> str:
    """Of the console; the multi-cluster architecture has two of them."""
    return NAME if len(inputs.clusters) == 1 else f"{NAME}-{inputs.cluster}"


def _oidc(inputs: ToolInputs) -> Values:
    return {
        "enabled": True,
        "configUrl": f"{issuer(inputs)}/.well-known/openid-configuration",
        "clientId": client_id(inputs),
        "existingClientSecretName": CLIENT_SECRET,
        "existingClientSecretKey": "clientSecret",
        "claimName": "groups",  # each group is the name of a policy
        "claimPrefix": '""',  # the chart writes the text as it is: an empty one would be null
        "scopes": "openid,profile,email",
        "redirectUri": f"https://{inputs.hosts[DOMAIN_KEY]}/oauth_callback",
        "displayName": "Keycloak",
        "comment": "Keycloak",
    }


def _ingress(inputs: ToolInputs, host: str) -> Values:
    # Without a name of a Secret, Traefik's default certificate covers the host; '""' because the chart quotes nothing.
    tls = [{"hosts": [host], "secretName": '""'}]
    return {"enabled": True, "ingressClassName": inputs.ingress_class, "hosts": [host], "tls": tls}


def _values(inputs: ToolInputs) -> Values:
    console, api = inputs.hosts[DOMAIN_KEY], inputs.hosts.get(API_KEY)
    values: Values = {
        "fullnameOverride": NAME,
        "mode": "standalone",
        "image": {"repository": versions.MINIO_IMAGE.name, "tag": versions.MINIO_IMAGE.version},
        "existingSecret": ROOT_SECRET,
        "serviceAccount": {"create": False},  # the namespace's own then, which gets no token of the API
        "deploymentUpdate": {"type": "Recreate"},
        "persistence": {
            "enabled": True,
            "storageClass": inputs.storage_class,
            "accessMode": "ReadWriteOnce",
            # Half of the smallest share of the reference; NFS holds nobody to it. Not by the share's size: a claim
            # cannot be made smaller, nor larger where the driver does not resize.
            "size": storage_of(inputs, NAME, "50Gi"),
        },
        "environment": {
            "MINIO_BROWSER_REDIRECT_URL": f"https://{console}",
            "MINIO_UPDATE": "off",
            "MINIO_CALLHOME_ENABLE": "off",
        },
        # Buckets and users come by a Job of the stack: the chart's hook knows neither whose they are nor their expiry.
        "users": [],
        "policies": [],
        "buckets": [],
        "svcaccts": [],
        "consoleIngress": _ingress(inputs, console),
        "metrics": {"serviceMonitor": {"enabled": False, "public": True}},  # without a login; closed at the ingress
        "resources": resources("100m", "512Mi", "2Gi"),
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containerSecurityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if api:
        values = merge(values, {"ingress": _ingress(inputs, api)})
    if inputs.ca_bundle:
        values = merge(values, {"trustedCertsSecret": beside_bundle(CA_SECRET, inputs)})
    return merge(values, {"oidc": _oidc(inputs)}) if _login(inputs) else values


def _login(inputs: ToolInputs) -> bool:
    return "keycloak" in inputs.all_hosts


def _closed_paths(inputs: ToolInputs, api: str) -> tuple[Manifest, ...]:
    """What needs no login inside of the cluster, so that from outside nobody may ask for it."""
    return closed(inputs, "minio-metrics-closed", NAMESPACE, api, paths=CLOSED, backend=(NAME, PORT))


def release(inputs: ToolInputs) -> Release:
    """One server behind Traefik: the console, and the API under a name of its own where the platform has one."""
    host, api = inputs.hosts[DOMAIN_KEY], inputs.hosts.get(API_KEY)
    ca = Secret(name=beside_bundle(CA_SECRET, inputs), namespace=NAMESPACE, data={"ca.crt": CaBundle()})
    client = OidcClient(
        client_id=client_id(inputs),
        name="MinIO",
        redirect_uris=(f"https://{host}/oauth_callback",),
        roles={
            "platform-admins": "consoleAdmin",
            "developers": "readwrite, not in the platform's own buckets",
            "viewers": "readonly, not in the platform's own buckets",
        },
        secret=CLIENT_SECRET,
        asked_at_start=True,  # until it has read the realm, it knows no users, and its set-up would fail
    )
    return Release.of(
        versions.MINIO,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs),
        needs=(traefik.NAME,),
        secrets=(
            Secret(
                name=ROOT_SECRET,
                namespace=NAMESPACE,
                data={"rootUser": Clear(text=ROOT_USER), "rootPassword": Generated(password=ROOT_PASSWORD)},
            ),
            *((ca,) if inputs.ca_bundle else ()),
        ),
        passwords=(Password(name=ROOT_PASSWORD),),
        before=_closed_paths(inputs, api) if api else (),
        workloads=(
            Workload(kind="Deployment", name=NAME, namespace=NAMESPACE, cpu="100m", memory="512Mi", selector=WORKLOAD),
        ),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
        other_hosts=(api,) if api else (),
        login=Login(url=f"https://{host}/login", username=ROOT_USER, password=ROOT_PASSWORD),
        path="/login",
        clients=(client,) if _login(inputs) else (),
        flows=(
            Flow(peer=ITSELF, ports=(PORT,), why="Jobs of its chart, where values turn them on"),
            *((Flow(peer=PUBLIC, ports=(443,), why="Keycloak, by its public name"),) if _login(inputs) else ()),
        ),
        ports_for_ingress=(PORT, CONSOLE_PORT),
        ports_for_metrics=(PORT,),
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
