"""The door by which other clusters' Alloys reach a store: its public name, the paths they write to, and a login each.

Every cluster has a user of its own, and the door writes that user's name over the tenant that a request names: whoever
has the password of one cluster writes as that cluster, and as no other.

oauth2-proxy asks everybody else at that name for a person's session; a longer path goes first, so the two do not meet.
"""

from __future__ import annotations

from plan.tools import telemetry
from plan.tools.door import Door, way_in
from plan.tools.ingress import ingress, middleware
from plan.tools.model import Generated, Htpasswd, Password, Secret, ToolInputs
from plan.tools.sources import Source

NAME = "agents"  # of the Secret, the Middleware and the Ingress in the store's namespace
# Traefik puts the user there in just these letters, and deletes what a client sent under the spelling that Go reads all
# headers in: with any other one, older versions would pass on the client's header beside their own.
TENANT = "X-Scope-Orgid"
FOLDER = "/etc/opstella/agents"  # in Alloy: a file a store, with its password
# Store to the paths, and the service behind them with its port.
_PATHS: dict[telemetry.Store, tuple[tuple[str, ...], tuple[str, int]]] = {
    "loki": (("/loki/api/v1/push",), telemetry.BACKENDS["loki"]),
    "mimir": (("/api/v1/push", "/prometheus/config/v1/rules"), telemetry.BACKENDS["mimir"]),
    "tempo": (("/v1/traces",), ("tempo", telemetry.OTLP_HTTP)),
}


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
    paths, backend = _PATHS[store]
    logins = {user(cluster): password(store, cluster) for cluster in inputs.clusters if cluster != inputs.cluster}
    return Door(
        secrets=(Secret(name=NAME, namespace=store, data={"users": Htpasswd(passwords=logins)}),),
        passwords=tuple(Password(name=name) for name in logins.values()),
        after=way_in(
            middleware(NAME, store, {"basicAuth": {"secret": NAME, "removeHeader": True, "headerField": TENANT}}),
            ingress(inputs, NAME, store, inputs.hosts[store], paths=paths, backend=backend, middlewares=(NAME,)),
        ),
        ports=(telemetry.OTLP_HTTP,) if store == "tempo" else (),
    )


def keys(inputs: ToolInputs) -> dict[str, Source]:
    """What this cluster's Alloy needs to write to the stores of others: store to password."""
    return {
        store: Generated(password=password(store, inputs.cluster), cluster=cluster)
        for store, cluster in telemetry.served_elsewhere(inputs).items()
    }
