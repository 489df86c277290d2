"""The door by which other clusters' Alloys reach a store: its public name, the paths they write to, and a login each.

Every cluster has a user of its own, and the door writes that user's name over the tenant that a request names: whoever
has the password of one cluster writes as that cluster, and as no other.

oauth2-proxy asks everybody else at that name for a person's session; a longer path goes first, so the two do not meet.
"""

from __future__ import annotations

from dataclasses import dataclass

from plan.tools import telemetry, traefik
from plan.tools.model import Generated, Htpasswd, Manifest, Password, Secret, ToolInputs
from plan.tools.sources import Source

NAME = "agents"  # of the Secret, the Middleware and the Ingress in the store's namespace
# Traefik puts the user there in just these letters, and deletes what a client sent under the spelling that Go reads all
# headers in: with any other one, older versions would pass on the client's header beside their own.
TENANT = "X-Scope-Orgid"
FOLDER = "/etc/opstella/agents"  # in Alloy: a file a store, with its password
# Store to the paths, and the service behind them with its port.
_PATHS: dict[telemetry.Store, tuple[tuple[str, ...], str, int]] = {
    "loki": (("/loki/api/v1/push",), "loki", telemetry.LOKI_PORT),
    "mimir": (("/api/v1/push", "/prometheus/config/v1/rules"), "mimir-gateway", 80),
    "tempo": (("/v1/traces",), "tempo", telemetry.OTLP_HTTP),
}


@dataclass(frozen=True, kw_only=True)
class Door:
    """What a store's release gets; nothing where the platform has one cluster."""

    secrets: tuple[Secret, ...] = ()
    passwords: tuple[Password, ...] = ()
    after: tuple[Manifest, ...] = ()
    ports: tuple[int, ...] = ()
    """Ports of its pods that the ingress reaches only for agents."""

    def __add__(self, other: Door) -> Door:
        return Door(
            secrets=self.secrets + other.secrets,
            passwords=self.passwords + other.passwords,
            after=self.after + other.after,
            ports=self.ports + other.ports,
        )


def user(cluster: str) -> str:
    """The login of `cluster`'s agents, which is the tenant they write to."""
    return cluster


def password(store: telemetry.Store, cluster: str) -> str:
    """Name of the Password by which `cluster` writes to `store`; it belongs to the cluster that carries the store."""
    return f"{store}-agents-{cluster}"


def door(inputs: ToolInputs, store: telemetry.Store) -> Door:
    """The door of `store`, whose namespace has its name."""
    if len(inputs.clusters) < 2:
        return Door()
    paths, service, port = _PATHS[store]
    logins = {user(cluster): password(store, cluster) for cluster in inputs.clusters if cluster != inputs.cluster}
    metadata = {"name": NAME, "namespace": store}
    middleware = {
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "Middleware",
        "metadata": metadata,
        "spec": {"basicAuth": {"secret": NAME, "removeHeader": True, "headerField": TENANT}},
    }
    backend = {"service": {"name": service, "port": {"number": port}}}
    annotation = {"traefik.ingress.kubernetes.io/router.middlewares": f"{store}-{NAME}@kubernetescrd"}
    rule = {
        "host": inputs.hosts[store],
        "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend} for path in paths]},
    }
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {**metadata, "annotations": annotation},
        "spec": {
            "ingressClassName": inputs.ingress_class,
            "rules": [rule],
            "tls": [{"hosts": [inputs.hosts[store]]}],  # no secret: Traefik's default certificate covers the name
        },
    }
    return Door(
        secrets=(Secret(name=NAME, namespace=store, data={"users": Htpasswd(passwords=logins)}),),
        passwords=tuple(Password(name=name) for name in logins.values()),
        after=tuple(
            Manifest(name=f"{store}-{body['kind'].lower()}-{NAME}", namespace=store, needs=(traefik.NAME,), body=body)
            for body in (middleware, ingress)
        ),
        ports=(telemetry.OTLP_HTTP,) if store == "tempo" else (),
    )


def keys(inputs: ToolInputs) -> dict[str, Source]:
    """What this cluster's Alloy needs to write to the stores of others: store to password."""
    found: dict[str, Source] = {}
    for store in _PATHS:
        sink = telemetry.sink(inputs, store)
        if sink and sink.cluster:
            found[store] = Generated(password=password(store, inputs.cluster), cluster=sink.cluster)
    return found
