"""The door by which a Grafana of another cluster reads a store: a path of the store's public name, and a password.

oauth2-proxy keeps every other path for people. The door's path is taken off before the store sees it.
"""

from __future__ import annotations

from plan.tools import telemetry, traefik
from plan.tools.agents import Door
from plan.tools.model import Bcrypt, Generated, Manifest, Override, Password, Secret, ToolInputs, Values
from plan.tools.sources import Source

READER = "grafana"  # who reads: also the user's name at the door
NAME = "readers"  # of the Secret, the Middlewares and the Ingress in the store's namespace
PATH = "/readers"
# Store to its service and the port that answers queries.
_SERVICES: dict[telemetry.Store, tuple[str, int]] = {
    "loki": ("loki", telemetry.LOKI_PORT),
    "mimir": ("mimir-gateway", 80),
    "tempo": ("tempo", telemetry.TEMPO_PORT),
}


def password(store: telemetry.Store) -> str:
    """Name of the Password, in the cluster that carries `store`."""
    return f"{store}-readers"


def variable(store: telemetry.Store) -> str:
    """Grafana's variable with that password, and the key of its Secret."""
    return f"{store.upper()}_PASSWORD"


def door(inputs: ToolInputs, store: telemetry.Store) -> Door:
    """The door of `store`, whose namespace has its name; nothing where Grafana stands beside it, or nowhere."""
    reader = inputs.places.get(READER, inputs.cluster)
    if reader == inputs.cluster or not inputs.overrides.get(READER, Override()).enabled:
        return Door()
    service, port = _SERVICES[store]
    strip = f"{NAME}-path"
    middlewares = [
        _middleware(store, NAME, {"basicAuth": {"secret": NAME, "removeHeader": True}}),
        _middleware(store, strip, {"stripPrefix": {"prefixes": [PATH]}}),
    ]
    chain = ",".join(f"{store}-{name}@kubernetescrd" for name in (NAME, strip))
    ingress: Values = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": NAME,
            "namespace": store,
            "annotations": {"traefik.ingress.kubernetes.io/router.middlewares": chain},
        },
        "spec": {
            "ingressClassName": inputs.ingress_class,
            "rules": [
                {
                    "host": inputs.hosts[store],
                    "http": {
                        "paths": [
                            {
                                "path": PATH,
                                "pathType": "Prefix",
                                "backend": {"service": {"name": service, "port": {"number": port}}},
                            }
                        ]
                    },
                }
            ],
            "tls": [{"hosts": [inputs.hosts[store]]}],  # no secret: Traefik's default certificate covers the name
        },
    }
    users = {"users": Bcrypt(password=password(store), prefix=f"{READER}:")}
    return Door(
        secrets=(Secret(name=NAME, namespace=store, data=users),),
        passwords=(Password(name=password(store)),),
        after=tuple(
            Manifest(
                name=f"{store}-{body['kind'].lower()}-{body['metadata']['name']}", namespace=store,
                needs=(traefik.NAME,), body=body,
            )
            for body in (*middlewares, ingress)
        ),
    )  # fmt: skip


def _middleware(store: str, name: str, spec: Values) -> Values:
    metadata = {"name": name, "namespace": store}
    return {"apiVersion": "traefik.io/v1alpha1", "kind": "Middleware", "metadata": metadata, "spec": spec}


def keys(inputs: ToolInputs) -> dict[str, Source]:
    """What this cluster's Grafana needs to read the stores of others: variable to password."""
    found: dict[str, Source] = {}
    for store in _SERVICES:
        sink = telemetry.sink(inputs, store)
        if sink and sink.cluster:
            found[variable(store)] = Generated(password=password(store), cluster=sink.cluster)
    return found
