"""Argo CD: deployments from Git; people log in through Keycloak, `admin` stays for when that is down."""

from __future__ import annotations

from typing import Literal

import yaml

from plan import versions
from plan.tools import argo_cd_objects, traefik
from plan.tools.common import CA_FOLDER, ca_volume, issuer, merge, replicas_of, resources, spread
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
from plan.tools.needs import ITSELF, KUBERNETES_API, OUTSIDE, PUBLIC, Flow, OidcClient, through_proxy

NAME, NAMESPACE = "argo-cd", "argocd"
DOMAIN_KEY = "argocd"
SECRET, REDIS_SECRET = "argocd-secret", "argocd-redis"  # both names are fixed in Argo CD
ADMIN_PASSWORD, REDIS_PASSWORD, SESSION_KEY = "argocd-admin", "argocd-redis", "argocd-session-key"
LOGIN_SECRET, CLI_CALLBACK = "argocd-login", "http://localhost:8085/auth/callback"
PART_OF = argo_cd_objects.PART_OF
ROLES = {"platform-admins": "role:admin", "developers": "role:developer", "viewers": "role:readonly"}
# What role:developer may beside reading; roles and objects in the words of Argo CD's own policies.
DEVELOPER = (("applications", "sync"), ("applications", "action/*"))


# Part of the chart: key in its values, kind, workload, request of CPU and memory, limit of memory.
_PARTS: tuple[tuple[str, Literal["Deployment", "StatefulSet"], str, str, str, str], ...] = (
    ("controller", "StatefulSet", "application-controller", "100m", "256Mi", "1Gi"),
    ("applicationSet", "Deployment", "applicationset-controller", "20m", "64Mi", "256Mi"),
    ("redis", "Deployment", "redis", "20m", "64Mi", "256Mi"),
    ("repoServer", "Deployment", "repo-server", "50m", "128Mi", "512Mi"),
    ("server", "Deployment", "server", "50m", "128Mi", "256Mi"),
)
_SEVERAL = ("applicationSet", "repoServer", "server")  # the others are one pod each in this chart


def _labels(workload: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": f"argocd-{workload}", "app.kubernetes.io/instance": NAME}


def client_id(inputs: ToolInputs) -> str:
    """The multi-cluster architecture has an Argo CD a stage."""
    return "argocd" if len(inputs.clusters) == 1 else f"argocd-{inputs.cluster}"


def _values(inputs: ToolInputs, host: str) -> Values:
    replicas = replicas_of(inputs, NAME)
    parts: Values = {
        key: {
            "resources": resources(cpu, memory, limit),
            **({"replicas": replicas, "affinity": spread(_labels(workload))} if key in _SEVERAL else {}),
        }
        for key, _, workload, cpu, memory, limit in _PARTS
    }
    values: Values = {
        "fullnameOverride": "argocd",
        "crds": {"install": True, "keep": True},
        # Policies add up: the chart's own would let every pod of the cluster in.
        "global": {"domain": host, "networkPolicy": {"create": False}},
        "configs": {
            "params": {"server.insecure": True},  # Traefik ends TLS
            "secret": {"createSecret": False},
            "cm": {
                "oidc.config": _login(inputs),
                # Else the right to synchronise is also the right to deploy any revision, and any manifests of one's own.
                "application.sync.requireOverridePrivilegeForRevisionSync": "true",
            },
            "rbac": {"policy.default": "", "policy.csv": _policy(), "scopes": "[groups]"},
        },
        "dex": {"enabled": False},
        "notifications": {"enabled": False},
        "redisSecretInit": {"enabled": False},  # its Secret is ours, so that it stays the same
    }
    ingress = {
        "enabled": True,
        "ingressClassName": inputs.ingress_class,
        "hostname": host,
        "tls": False,  # true would name a Secret of its own
        "extraTls": [{"hosts": [host]}],
    }
    # Neither speaks to the API server.
    tokenless: Values = {key: {"automountServiceAccountToken": False} for key in ("redis", "repoServer")}
    values = merge(merge(merge(values, parts), tokenless), {"server": {"ingress": ingress}})
    if argo_cd_objects.trusts_gitlab(inputs):
        values = merge(values, {"configs": {"tls": {"create": False}}})  # its ConfigMap is the stack's own
    if inputs.ca_bundle:
        volume, mount = ca_volume(inputs.ca_bundle)
        trust = {
            "env": [{"name": "SSL_CERT_DIR", "value": f"/etc/ssl/certs:{CA_FOLDER}"}],
            "extraVolumes": [volume],
            "extraVolumeMounts": [mount],
        }
        values = merge(values, {"global": trust})
    if inputs.proxy:
        fetching = {"env": [{"name": name, "value": value} for name, value in inputs.proxy.variables.items()]}
        values = merge(values, {"repoServer": fetching})
    return values


def _login(inputs: ToolInputs) -> str:
    """The issuer's certificate is verified by the CA bundle, which SSL_CERT_DIR adds to the system's."""
    return yaml.safe_dump(
        {
            "name": "Keycloak",
            "issuer": issuer(inputs),
            "clientID": client_id(inputs),
            "clientSecret": f"${LOGIN_SECRET}:clientSecret",
            "cliClientID": f"{client_id(inputs)}-cli",
            "enablePKCEAuthentication": True,  # by the server, beside the secret (since Argo CD 3.1; the browser did it formerly)
            "requestedScopes": ["openid", "profile", "email", "groups"],
        },
        sort_keys=False,
    )


def _policy() -> str:
    rules = [f"p, role:developer, {what}, {action}, */*, allow" for what, action in DEVELOPER]
    rules.append("g, role:developer, role:readonly")
    return "".join(f"{rule}\n" for rule in (*rules, *(f"g, {group}, {role}" for group, role in ROLES.items())))


def _clients(inputs: ToolInputs, host: str) -> tuple[OidcClient, ...]:
    """The web interface, and `argocd login --sso`, which cannot keep a secret."""
    return (
        OidcClient(
            client_id=client_id(inputs),
            name="Argo CD",
            redirect_uris=(f"https://{host}/auth/callback",),
            roles=ROLES,
            secret=LOGIN_SECRET,
            labels=PART_OF,
            pkce=True,
        ),
        OidcClient(
            client_id=f"{client_id(inputs)}-cli",
            name="Argo CD, command line",
            redirect_uris=(CLI_CALLBACK,),
            roles=ROLES,
            public=True,
            pkce=True,
        ),
    )


def release(inputs: ToolInputs) -> Release:
    """Argo CD behind Traefik, without Dex; its first administrator is `admin`."""
    host = inputs.hosts[DOMAIN_KEY]
    return Release.of(
        versions.ARGO_CD,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, host),
        needs=(traefik.NAME,),
        pod_security="baseline",
        secrets=(
            Secret(
                name=SECRET,
                namespace=NAMESPACE,
                labels={"app.kubernetes.io/name": SECRET, **PART_OF},
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
                labels=PART_OF,
                data={"auth": Generated(password=REDIS_PASSWORD)},
            ),
            *argo_cd_objects.repositories(inputs),
        ),
        config_maps=argo_cd_objects.certificates(inputs),
        passwords=(
            Password(name=ADMIN_PASSWORD),
            Password(name=REDIS_PASSWORD),
            Password(name=SESSION_KEY, length=44),
        ),
        crds=("applications.argoproj.io", "applicationsets.argoproj.io", "appprojects.argoproj.io"),
        after=argo_cd_objects.manifests(inputs),
        clients=_clients(inputs, host),
        flows=(
            Flow(peer=KUBERNETES_API, ports=(6443,), why="keeps applications as Git has them"),
            Flow(peer=ITSELF, ports=(6379, 8080, 8081), why="its parts: cache, API server, repository server"),
            Flow(peer=PUBLIC, ports=(443,), why="repositories of GitLab, charts of Harbor"),
            Flow(peer=OUTSIDE, ports=(443,), why="Git and chart repositories"),
            *through_proxy(inputs.proxy.ports if inputs.proxy else ()),
        ),
        ports_for_ingress=(8080,),
        ports_for_metrics=(8080, 8082, 8083, 8084),
        workloads=tuple(
            Workload(
                kind=kind, name=f"argocd-{workload}", namespace=NAMESPACE, cpu=cpu, memory=memory,
                replicas=replicas_of(inputs, NAME) if key in _SEVERAL else 1, selector=_labels(workload),
            )
            for key, kind, workload, cpu, memory, _ in _PARTS
        ),
        ca_bundle=inputs.ca_bundle,
        domain_key=DOMAIN_KEY,
        host=host,
        login=Login(url=f"https://{host}/", username="admin", password=ADMIN_PASSWORD),
    )  # fmt: skip


TOOL = Tool(name=NAME, release=release, domain_key=DOMAIN_KEY)
