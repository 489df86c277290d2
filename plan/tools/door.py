"""A way into a store for other clusters, beside the one that people take: a login, and an Ingress that asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from plan.tools.ingress import manifest
from plan.tools.model import Manifest, Password, Secret, Values


@dataclass(frozen=True, kw_only=True)
class Door:
    """What a store's release gets for the ones outside who may come in."""

    secrets: tuple[Secret, ...] = ()
    passwords: tuple[Password, ...] = ()
    after: tuple[Manifest, ...] = ()
    ports: tuple[int, ...] = ()
    """Ports of its pods that the ingress reaches only for them."""

    def __add__(self, other: Door) -> Door:
        return Door(
            secrets=self.secrets + other.secrets,
            passwords=self.passwords + other.passwords,
            after=self.after + other.after,
            ports=self.ports + other.ports,
        )


def way_in(*bodies: Values) -> tuple[Manifest, ...]:
    """Middlewares and an Ingress of one store, in whose namespace they are."""
    return tuple(
        manifest(f"{body['metadata']['namespace']}-{body['kind'].lower()}-{body['metadata']['name']}", body)
        for body in bodies
    )
