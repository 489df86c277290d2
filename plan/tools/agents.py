"""The door by which other clusters' Alloys reach a store: its public name, the paths they write to, and a password.

oauth2-proxy asks everybody else at that name for a person's session; a longer path goes first, so the two do not meet.
"""

from __future__ import annotations

from dataclasses import dataclass

from plan.tools import telemetry, traefik
from plan.tools.model import Bcrypt, Generated, Manifest, Password, Secret, ToolInputs
from plan.tools.sources import Source

USER = "agents"
NAME = "agents"  # of the Secret, the Middleware and the Ingress in the store's namespace
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


def password(store: telemetry.Store) -> str:
    """Name of the Password, in the cluster that carries `store`."""
    return f"{store}-agents"


def door(inputs: ToolInputs, store: telemetry.Store) -> Door:
    """The door of `store`, whose namespace has its name."""
    if len(inputs.clusters) < 2:
        return Door()
    paths, service, port = _PATHS[store]
    metadata = {"name": NAME, "namespace": store}
    middleware = {
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "Middleware",
        "metadata": metadata,
        "spec": {"basicAuth": {"secret": NAME, "removeHeader": True}},
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
        secrets=(
            Secret(name=NAME, namespace=store, data={"users": Bcrypt(password=password(store), prefix=f"{USER}:")}),
        ),
        passwords=(Password(name=password(store)),),
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
            found[store] = Generated(password=password(store), cluster=sink.cluster)
    return found
