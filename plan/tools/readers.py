"""The door by which a Grafana of another cluster reads a store: a path of the store's public name, and a password.

oauth2-proxy keeps every other path for people. The door's path is taken off before the store sees it. Behind it are only
the paths by which the store is read: who has the password writes, deletes and stops nothing.
"""

from __future__ import annotations

from plan.tools import telemetry
from plan.tools.door import Door, way_in
from plan.tools.ingress import ingress, middleware
from plan.tools.model import Bcrypt, Generated, Override, Password, Secret, ToolInputs
from plan.tools.sources import Source

READER = "grafana"  # who reads: also the user's name at the door
NAME = "readers"  # of the Secret, the Middlewares and the Ingress in the store's namespace
PATH = "/readers"


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
    strip = f"{NAME}-path"
    users = {"users": Bcrypt(password=password(store), prefix=f"{READER}:")}
    return Door(
        secrets=(Secret(name=NAME, namespace=store, data=users),),
        passwords=(Password(name=password(store)),),
        after=way_in(
            middleware(NAME, store, {"basicAuth": {"secret": NAME, "removeHeader": True}}),
            middleware(strip, store, {"stripPrefix": {"prefixes": [PATH]}}),
            ingress(
                inputs, NAME, store, inputs.hosts[store],
                paths=tuple(f"{PATH}{path}" for path in telemetry.READING[store]), backend=telemetry.BACKENDS[store], middlewares=(NAME, strip),
            ),
        ),
    )  # fmt: skip


def keys(inputs: ToolInputs) -> dict[str, Source]:
    """What this cluster's Grafana needs to read the stores of others: variable to password."""
    return {
        variable(store): Generated(password=password(store), cluster=cluster)
        for store, cluster in telemetry.served_elsewhere(inputs).items()
    }
