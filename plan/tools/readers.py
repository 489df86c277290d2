"""How Grafana reads: through Traefik, by the methods and paths that only read, and in no other way.

The stores and Alertmanager have no rights of their own, and Grafana sends them what anybody with a login asks it to. So no
policy lets it reach them. In its own cluster it asks Traefik at an entry point for readers, to which no other pod may
connect, by a name for each data source. Elsewhere it asks at a path of the store's public name, with a password;
oauth2-proxy keeps every other path for people.
"""

from __future__ import annotations

from plan.tools import telemetry, traefik
from plan.tools.common import service
from plan.tools.door import Door, way_in
from plan.tools.ingress import middleware, route
from plan.tools.model import Bcrypt, Generated, Manifest, Override, Password, Secret, ToolInputs
from plan.tools.sources import Source

READER = "grafana"  # who reads: also the user's name at the door
NAME = "readers"  # of the Secret, the Middlewares and the IngressRoute in the store's namespace
PATH = "/readers"


def password(store: telemetry.Store) -> str:
    """Name of the Password, in the cluster that carries `store`."""
    return f"{store}-readers"


def variable(store: telemetry.Store) -> str:
    """Grafana's variable with that password, and the key of its Secret."""
    return f"{store.upper()}_PASSWORD"


def url(source: telemetry.DataSource) -> str:
    """Where Grafana asks for `source` in its own cluster."""
    return service(traefik.reader(source), traefik.NAMESPACE, traefik.READERS_PORT)


def near(inputs: ToolInputs, source: telemetry.DataSource) -> tuple[Manifest, ...]:
    """The way to `source` of a Grafana in its cluster; none where that is in another one, or nowhere."""
    if source not in telemetry.beside_grafana(inputs):
        return ()
    if source == "alertmanager":
        namespace, backend = (
            telemetry.ALERTMANAGER_NAMESPACE,
            (telemetry.ALERTMANAGER_SERVICE, telemetry.ALERTMANAGER_PORT),
        )
    else:
        namespace, backend = source, telemetry.BACKENDS[source]
    host = url(source).partition("://")[2].partition(":")[0]
    return way_in(route(NAME, namespace, host, entry=traefik.READERS, asked=telemetry.ASKED[source], backend=backend))


def door(inputs: ToolInputs, store: telemetry.Store) -> Door:
    """The way to `store`, whose namespace has its name: of a Grafana beside it, or in another cluster."""
    reader = inputs.places.get(READER, inputs.cluster)
    if reader == inputs.cluster or not inputs.overrides.get(READER, Override()).enabled:
        return Door(after=near(inputs, store))
    strip = f"{NAME}-path"
    users = {"users": Bcrypt(password=password(store), prefix=f"{READER}:")}
    asked = {method: tuple(f"{PATH}{path}" for path in paths) for method, paths in telemetry.ASKED[store].items()}
    return Door(
        secrets=(Secret(name=NAME, namespace=store, data=users),),
        passwords=(Password(name=password(store)),),
        after=way_in(
            middleware(NAME, store, {"basicAuth": {"secret": NAME, "removeHeader": True}}),
            middleware(strip, store, {"stripPrefix": {"prefixes": [PATH]}}),
            route(
                NAME, store, inputs.hosts[store], entry=traefik.SECURE, asked=asked,
                backend=telemetry.BACKENDS[store], middlewares=(NAME, strip),
            ),
        ),
    )  # fmt: skip


def keys(inputs: ToolInputs) -> dict[str, Source]:
    """What this cluster's Grafana needs to read the stores of others: variable to password."""
    return {
        variable(store): Generated(password=password(store), cluster=cluster)
        for store, cluster in telemetry.served_elsewhere(inputs).items()
    }
