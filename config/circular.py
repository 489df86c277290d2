"""Checks of what the platform needs from elsewhere, that it is not the platform itself."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from config.errors import Problem, key
from config.model import Settings
from config.placement import services


def check_snapshots(settings: Settings) -> Iterator[Problem]:
    """Snapshots that lie on what they are to bring back."""
    s3 = settings.kubernetes.etcd_snapshots.s3
    if s3 is None:
        return
    host = s3.endpoint.partition(":")[0]
    here = (service.key for service in services(settings) if f"{service.label}.{settings.domain}" == host)
    inside = next((f"the name of {key('domains', service)}" for service in here), None)
    try:
        address = IPv4Address(host)
    except ValueError:
        pass
    else:
        clusters = [name for name, cluster in settings.clusters.items() if address in cluster.subnet]
        inside = next((f"an address of {key('clusters', name, 'subnet')}" for name in clusters), inside)
    if inside:
        yield Problem(
            key("kubernetes.etcdSnapshots.s3.endpoint"),
            f"{host} is {inside}: whoever needs a snapshot has no cluster, and so no object store in it",
            "name a store outside of this platform, or remove s3",
        )


def check_seal(settings: Settings) -> Iterator[Problem]:
    """A Vault that asks itself for what unseals it."""
    seal = settings.vault.seal
    address = seal.parameters.get("address") if seal else None
    host = urlsplit(address).hostname if isinstance(address, str) and "://" in address else None
    for service in services(settings):
        if service.tool == "vault" and host == f"{service.label}.{settings.domain}":
            yield Problem(
                key("vault.seal.parameters.address"),
                f"{host} is the name of {key('domains', service.key)}, the Vault that is to be unsealed: sealed, it unseals nothing",
                "name a Vault outside of this platform, or set vault.unseal to secret or pgp and remove the seal",
            )
