"""oauth2-proxy: the login of what has none of its own: Loki, Tempo and Mimir.

One proxy stands beside the ingress, which asks it about every request (Traefik's forwardAuth): it lets a session pass,
and sends everybody else to Keycloak. It is not on the way of the data. Each host keeps the path /oauth2 for it, and has
beside it only the paths by which a store is read: whoever is logged in reads, and does nothing else.
"""

from __future__ import annotations

import json
from typing import Any

from plan import versions
from plan.tools import telemetry, traefik
from plan.tools.common import CA_FILE, ca_volume, issuer, merge, replicas_of, resources, service, spread
from plan.tools.ingress import manifest, middleware, passing, rule
from plan.tools.model import Clear, Generated, Manifest, Password, Release, Tool, ToolInputs, Values, Workload
from plan.tools.needs import OidcClient

NAME = NAMESPACE = "oauth2-proxy"
SECRET, COOKIE_PASSWORD = "oauth2-proxy-login", "oauth2-proxy-cookie"
HTTP, METRICS, SERVICE = 4180, 44180, 80
CPU, MEMORY = "20m", "64Mi"
LABELS = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": NAME}
ROLES = {"platform-admins": "reader", "developers": "reader"}


def client_id(inputs: ToolInputs) -> str:
    """Its own in each cluster that carries one of the stores."""
    clusters = {inputs.places.get(key, inputs.cluster) for key in telemetry.BACKENDS if key in inputs.all_hosts}
    return NAME if len(clusters) < 2 else f"{NAME}-{inputs.cluster}"


def _configuration(inputs: ToolInputs) -> str:
    """oauth2_proxy.cfg, which is TOML: its texts, lists and truth values are those of JSON."""
    settings: dict[str, Any] = {
        "provider": "oidc",
        "provider_display_name": "Keycloak",
        "oidc_issuer_url": issuer(inputs),
        "oidc_groups_claim": "groups",
        "allowed_groups": list(ROLES),
        "scope": "openid profile email groups",
        "code_challenge_method": "S256",
        "skip_provider_button": True,
        "email_domains": ["*"],
        # It only says yes or no; the ingress passes the request on.
        "upstreams": ["static://202"],
        "reverse_proxy": True,
        "set_xauthrequest": True,
        "whitelist_domains": [f".{inputs.domain}"],
        "cookie_secure": True,
        "cookie_httponly": True,
        "cookie_samesite": "lax",
        "cookie_expire": "8h",
        "cookie_refresh": "4m",  # less than a token's life: who leaves a group is out soon
        "cookie_csrf_per_request": True,
        "cookie_csrf_expire": "15m",
        "silence_ping_logging": True,
    }
    if inputs.ca_bundle:
        settings |= {"provider_ca_files": [CA_FILE], "use_system_trust_store": True}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())


def _values(inputs: ToolInputs, replicas: int) -> Values:
    values: Values = {
        "replicaCount": replicas,
        "config": {"existingSecret": SECRET, "configFile": _configuration(inputs)},
        "resources": resources(CPU, MEMORY, "128Mi"),
        "affinity": spread(LABELS),
        "serviceAccount": {"automountServiceAccountToken": False},
        "podDisruptionBudget": {"enabled": False},  # ours, where there are several pods
        "enableServiceLinks": False,
    }
    if inputs.ca_bundle:
        volume, mount = ca_volume(inputs.ca_bundle)
        values = merge(values, {"extraVolumes": [volume], "extraVolumeMounts": [mount]})
    return values


def _middleware(name: str, spec: Values) -> Manifest:
    return manifest(f"{NAME}-{name}", middleware(name, NAMESPACE, spec))


def _ingress(
    inputs: ToolInputs, key: str, namespace: str, paths: tuple[str, ...], backend: tuple[str, int], login: bool
) -> Manifest:
    name = key if login else f"{key}-login"
    return Manifest(
        name=f"{NAME}-{name}",
        namespace=namespace,
        needs=(key,) if login else (),
        body={
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {
                "name": name,
                "namespace": namespace,
                **({"annotations": passing(NAMESPACE, "login", "tenants")} if login else {}),
            },
            "spec": {
                "ingressClassName": inputs.ingress_class,
                "rules": [rule(inputs.hosts[key], paths, backend)],
            },
        },
    )


def release(inputs: ToolInputs) -> Release:
    """The proxy, and the Ingresses of what this cluster has behind it."""
    replicas = replicas_of(inputs, NAME)
    named = [key for key in telemetry.BACKENDS if key in inputs.hosts]
    behind = [key for key in named if key in inputs.present]
    client = OidcClient(
        client_id=client_id(inputs),
        name="Loki, Tempo, Mimir",
        redirect_uris=tuple(f"https://{inputs.hosts[key]}/oauth2/callback" for key in named),
        roles=ROLES,
        secret=SECRET,
        secret_key="client-secret",
        extra={"client-id": Clear(text=client_id(inputs)), "cookie-secret": Generated(password=COOKIE_PASSWORD)},
        pkce=True,
        asked_at_start=True,  # it ends when the realm does not answer
    )
    middlewares = (
        _middleware(
            "login",
            {
                "forwardAuth": {
                    "address": f"{service(NAME, NAMESPACE, SERVICE)}/",
                    "authResponseHeaders": ["X-Auth-Request-User", "X-Auth-Request-Groups"],
                }
            },
        ),
        # A person reads every cluster's data; without a tenant the stores refuse.
        _middleware(
            "tenants", {"headers": {"customRequestHeaders": {telemetry.TENANT_HEADER: telemetry.tenants(inputs)}}}
        ),
    )
    ingresses = [
        manifest
        for key in behind
        for manifest in (
            _ingress(inputs, key, NAMESPACE, ("/oauth2",), (NAME, SERVICE), False),
            _ingress(inputs, key, key, telemetry.READING[key], telemetry.BACKENDS[key], True),
        )
    ]
    return Release.of(
        versions.OAUTH2_PROXY,
        name=NAME,
        namespace=NAMESPACE,
        values=_values(inputs, replicas),
        needs=(traefik.NAME,),
        clients=(client,),
        # Its length is that of the key that ciphers the sessions.
        passwords=(Password(name=COOKIE_PASSWORD, length=32),),
        after=(*middlewares, *ingresses),
        ports_for_ingress=(HTTP,),
        ports_for_metrics=(METRICS,),
        workloads=(
            Workload(
                kind="Deployment", name=NAME, namespace=NAMESPACE, replicas=replicas, cpu=CPU, memory=MEMORY,
                selector=LABELS,
            ),
        ),
        ca_bundle=inputs.ca_bundle,
    )  # fmt: skip


def _wanted(inputs: ToolInputs) -> bool:
    return any(key in inputs.hosts for key in telemetry.BACKENDS)


TOOL = Tool(name=NAME, release=release, wanted=_wanted)
