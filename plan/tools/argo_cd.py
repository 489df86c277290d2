"""Argo CD: deployments from Git."""

from __future__ import annotations

from plan import versions
from plan.tools import traefik
from plan.tools.common import CA_FOLDER, ca_volume, image, merge, replicas_of, resources
from plan.tools.model import (
    Bcrypt,
    Clear,
    Generated,
    Login,
    Password,
    Release,
    Secret,
    Tool,
    ToolInputs,
    Values,
    Workload,
)

NAME, NAMESPACE = "argo-cd", "argocd"
DOMAIN_KEY = "argocd"
SECRET, REDIS_SECRET = "argocd-secret", "argocd-redis"  # both names are fixed in Argo CD
ADMIN_PASSWORD, REDIS_PASSWORD, SESSION_KEY = "argocd-admin", "argocd-redis", "argocd-session-key"


def _values(inputs: ToolInputs, host: str) -> Values:
    values: Values = {
        "fullnameOverride": "argocd",
        "crds": {"install": True, "keep": True},
        "global": {"domain": host},
        "configs": {
            "params": {"server.insecure": True},  # Traefik ends TLS
            "secret": {"createSecret": False},
        },
        "dex": {"enabled": False},
        "notifications": {"enabled": False},
        "redisSecretInit": {"enabled": False},  # its Secret is ours, so that it stays the same
        "redis": {"resources": resources("20m", "64Mi", "256Mi")},
        "controller": {"resources": resources("100m", "256Mi", "1Gi")},
        "repoServer": {"replicas": replicas_of(inputs, NAME), "resources": resources("50m", "128Mi", "512Mi")},
        "applicationSet": {"replicas": replicas_of(inputs, NAME), "resources": resources("20m", "64Mi", "256Mi")},
        "server": {
            "replicas": replicas_of(inputs, NAME),
            "resources": resources("50m", "128Mi", "256Mi"),
            "ingress": {
                "enabled": True,
                "ingressClassName": inputs.ingress_class,
                "hostname": host,
                "tls": False,  # true would name a Secret of its own
                "extraTls": [{"hosts": [host]}],
            },
        },
    }
    if inputs.ca_bundle:
        volume, mount = ca_volume(inputs.ca_bundle)
        trust = {
            "env": [{"name": "SSL_CERT_DIR", "value": f"/etc/ssl/certs:{CA_FOLDER}"}],
            "extraVolumes": [volume],
            "extraVolumeMounts": [mount],
        }
        values = merge(values, {"global": trust})
    if inputs.image_registry:
        images = {
            "global": {"image": {"repository": image(inputs, "quay.io", "argoproj/argocd")}},
            "redis": {"image": {"repository": image(inputs, "ecr-public.aws.com", "docker/library/redis")}},
        }
        values = merge(values, images)
    return values


def release(inputs: ToolInputs) -> Release:
    """Argo CD behind Traefik, without Dex; its first administrator is `admin`."""
    chart = versions.ARGO_CD
    host = inputs.hosts[DOMAIN_KEY]
    part_of = {"app.kubernetes.io/part-of": "argocd"}  # Argo CD watches only secrets that carry it
    workloads = (
        ("StatefulSet", "argocd-application-controller"),
        ("Deployment", "argocd-applicationset-controller"),
        ("Deployment", "argocd-redis"),
        ("Deployment", "argocd-repo-server"),
        ("Deployment", "argocd-server"),
    )
    return Release(
        name=NAME,
        namespace=NAMESPACE,
        chart=chart.name,
        version=chart.version,
        repository=chart.repository,
        values=_values(inputs, host),
        needs=(traefik.NAME,),
        pod_security="baseline",
        secrets=(
            Secret(
                name=SECRET,
                namespace=NAMESPACE,
                labels={"app.kubernetes.io/name": SECRET, **part_of},
                data={
                    "admin.password": Bcrypt(password=ADMIN_PASSWORD),
                    # Sessions older than this are refused; a constant keeps the Secret the same from run to run.
                    "admin.passwordMtime": Clear(text="2026-01-01T00:00:00Z"),
                    "server.secretkey": Generated(password=SESSION_KEY),
                },
            ),
            Secret(
                name=REDIS_SECRET,
                namespace=NAMESPACE,
                labels=part_of,
                data={"auth": Generated(password=REDIS_PASSWORD)},
            ),
        ),
        passwords=(
            Password(name=ADMIN_PASSWORD),
            Password(name=REDIS_PASSWORD),
            Password(name=SESSION_KEY, length=44),
        ),
        crds=("applications.argoproj.io", "applicationsets.argoproj.io", "appprojects.argoproj.io"),
        workloads=tuple(Workload(kind=kind, name=name, namespace=NAMESPACE) for kind, name in workloads),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
        login=Login(url=f"https://{host}/", username="admin", password=ADMIN_PASSWORD),
    )


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
