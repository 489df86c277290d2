"""MinIO: the object store, one server on one volume.

Limits of that: no erasure coding, so the volume's own redundancy is all there is; one pod, so it is away while it moves.
MinIO supports NFS for such a single drive only, and never two servers on it: an update stops the old pod first.
It looks for its identity provider once, when it starts: `kubectl -n minio rollout restart deployment/minio` if Keycloak was
away then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from plan import versions
from plan.tools import traefik
from plan.tools.common import image, issuer, merge, provision_files, resources, storage_of
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
from plan.tools.needs import ITSELF, OUTSIDE, Flow, Job, OidcClient, StorageAccess

NAME = NAMESPACE = "minio"
DOMAIN_KEY, API_KEY = "minio", "minioApi"
PORT, CONSOLE_PORT = 9000, 9001
ENDPOINT = f"{NAME}.{NAMESPACE}.svc.cluster.local:{PORT}"
ROOT_SECRET, ROOT_USER, ROOT_PASSWORD = "minio-root", "opstella-root", "minio-root"
USERS_SECRET = "minio-users"  # a key per user of the store; plan/tools/wiring.py fills it
CLIENT_SECRET, CA_SECRET = "minio-oidc", "minio-ca"
TAG = "opstella.stack"  # of each bucket: whose it is
ACCESS_POLICY = "opstella.access."  # and the user's name
METRICS = "/minio/v2/metrics"
WORKLOAD = {"app": NAME, "release": NAME}

_READ_WRITE = (
    "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:GetObjectVersion", "s3:DeleteObjectVersion",
    "s3:GetObjectTagging", "s3:PutObjectTagging", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts",
)  # fmt: skip
_LIST = (
    "s3:GetBucketLocation", "s3:GetBucketVersioning", "s3:ListBucket", "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
)  # fmt: skip


def client_id(inputs: ToolInputs) -> str:
    """Of the console; the multi-cluster architecture has two of them."""
    return NAME if len(inputs.clusters) == 1 else f"{NAME}-{inputs.cluster}"


def owner(inputs: ToolInputs) -> str:
    """What the tag of a bucket of this stack says."""
    return f"{inputs.cluster}.{inputs.domain}"


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
        "replicas": 1,
        "image": {
            "repository": image(inputs, "quay.io", "minio/minio"),
            "tag": versions.MINIO_IMAGE.version,
        },
        "existingSecret": ROOT_SECRET,
        "deploymentUpdate": {"type": "Recreate"},
        "persistence": {
            "enabled": True,
            "storageClass": inputs.storage_class,
            "accessMode": "ReadWriteOnce",
            "size": storage_of(inputs, NAME, "200Gi"),
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
        values = merge(values, {"trustedCertsSecret": CA_SECRET})
    return merge(values, {"oidc": _oidc(inputs)}) if _login(inputs) else values


def _login(inputs: ToolInputs) -> bool:
    return "keycloak" in inputs.all_hosts


def _closed_metrics(inputs: ToolInputs, api: str) -> tuple[Manifest, ...]:
    """Metrics need no login inside of the cluster, so that from outside nobody may ask for them."""
    name = "minio-metrics-closed"
    middleware = {
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "Middleware",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"ipAllowList": {"sourceRange": ["127.0.0.1/32"]}},
    }
    backend = {"service": {"name": NAME, "port": {"number": PORT}}}
    paths = [{"path": path, "pathType": "Prefix", "backend": backend} for path in (METRICS, "/minio/metrics")]
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "annotations": {"traefik.ingress.kubernetes.io/router.middlewares": f"{NAMESPACE}-{name}@kubernetescrd"},
        },
        "spec": {
            "ingressClassName": inputs.ingress_class,
            "rules": [{"host": api, "http": {"paths": paths}}],
            "tls": [{"hosts": [api]}],
        },
    }
    return (
        Manifest(name=name, namespace=NAMESPACE, needs=(traefik.NAME,), body=middleware),
        Manifest(name=f"{name}-ingress", namespace=NAMESPACE, needs=(traefik.NAME,), body=ingress),
    )


def release(inputs: ToolInputs) -> Release:
    """One server behind Traefik: the console, and the API under a name of its own where the platform has one."""
    chart = versions.MINIO
    host, api = inputs.hosts[DOMAIN_KEY], inputs.hosts.get(API_KEY)
    ca = Secret(name=CA_SECRET, namespace=NAMESPACE, data={"ca.crt": CaBundle()})
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
    )
    return Release(
        name=NAME,
        namespace=NAMESPACE,
        chart=chart.name,
        version=chart.version,
        repository=chart.repository,
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
        before=_closed_metrics(inputs, api) if api else (),
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
            Flow(peer=ITSELF, ports=(PORT,)),
            *((Flow(peer=OUTSIDE, ports=(443,)),) if _login(inputs) else ()),  # Keycloak, by its public name
        ),
        ports_for_ingress=(PORT, CONSOLE_PORT),
        ports_for_metrics=(PORT,),
    )


def _document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=1) + "\n"


def _statement(effect: str, actions: Sequence[str], resources: Sequence[str] = ()) -> dict[str, Any]:
    place = {"Resource": [f"arn:aws:s3:::{name}" for name in resources]} if resources else {}
    return {"Effect": effect, "Action": sorted(actions), **place}


def access_policy(access: StorageAccess) -> str:
    """The policy (JSON) of one credential: its own buckets, and what lies in them."""
    names = sorted(bucket.name for bucket in access.buckets)
    return _document(
        _statement("Allow", _LIST, names), _statement("Allow", _READ_WRITE, [f"{name}/*" for name in names])
    )


def group_policies(buckets: Sequence[str]) -> dict[str, str]:
    """Group to policy (JSON). `buckets` are the platform's: backups and logs, which only administrators may see."""
    names = sorted(buckets)
    closed = _statement("Deny", ["s3:*"], [*names, *(f"{name}/*" for name in names)])
    closed_statements = (closed,) if names else ()
    read = ("s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject")
    return {
        "platform-admins": _document(
            _statement("Allow", ["admin:*"]), _statement("Allow", ["kms:*"]), _statement("Allow", ["s3:*"], ["*"])
        ),
        "developers": _document(_statement("Allow", ["s3:*"], ["*"]), *closed_statements),
        "viewers": _document(_statement("Allow", read, ["*"]), *closed_statements),
    }


def provisioning(accesses: Sequence[StorageAccess], inputs: ToolInputs) -> Job:
    """The Job that makes buckets, users and policies; `provision/minio.sh` says what its files hold.

    Raises ValueError: two accesses want the same bucket differently.
    """
    buckets = {bucket.name: bucket for access in accesses for bucket in access.buckets}
    for access in accesses:
        for bucket in access.buckets:
            if buckets[bucket.name] != bucket:
                raise ValueError(f"the bucket {bucket.name} is declared in two ways, once by {access.user}")
    groups = group_policies(tuple(buckets))
    lines = [f"owner {owner(inputs)}"]
    for name, bucket in sorted(buckets.items()):
        adopt = "adopt" if name in inputs.object_store.adopt else "-"
        lines.append(f"bucket {name} {'versioned' if bucket.versioning else '-'} {bucket.expire_days or '-'} {adopt}")
    lines += [f"policy {name}" for name in sorted(groups)]
    lines += [f"user {access.user}" for access in sorted(accesses, key=lambda access: access.user)]
    policies = groups | {f"{ACCESS_POLICY}{access.user}": access_policy(access) for access in accesses}
    return Job(
        name="minio-provisioning",
        image=f"{image(inputs, 'quay.io', 'minio/mc')}:{versions.MC_IMAGE.version}",
        command=("/bin/sh", "/opstella/minio.sh"),
        files={
            **provision_files("minio.sh"),
            "wanted.txt": "\n".join(lines) + "\n",
            **{f"policy.{name}.json": text for name, text in policies.items()},
            **{
                f"expiry.{name}.json": _expiry(bucket.expire_days)
                for name, bucket in buckets.items()
                if bucket.expire_days
            },
        },
        environment={"ENDPOINT": f"http://{ENDPOINT}"},
        secret_files={"root": ROOT_SECRET, "users": USERS_SECRET},
        flows=(Flow(peer=ITSELF, ports=(PORT,)),),
    )


def _expiry(days: int) -> str:
    """A lifecycle configuration (JSON): current and older versions go after `days`, a delete marker with the last."""
    rule = {
        "ID": "opstella",
        "Status": "Enabled",
        "Expiration": {"Days": days},
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
    }
    return json.dumps({"Rules": [rule]}, indent=1) + "\n"


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
