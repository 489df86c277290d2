"""The CA tree: root, intermediate, and the leaves that this program signs itself.

Lifetimes in hours, as X.509 tools take them; in-cluster leaves are cert-manager's (720 h).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from config.model import Settings
from config.tls_checks import served_chain
from plan.tools.model import CA_BUNDLE, Release
from plan.topology import Topology

HOURS_PER_YEAR = 8766  # 365.25 days, so that leap days do not eat into a lifetime
RSA_BITS = 4096


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A CA certificate. `path_length`: how many CAs may follow it; None sets no limit of its own (a limit of 0 is
    nothing that pulumi-tls can write, and the root's already ends the chain)."""

    common_name: str
    organization: str
    hours: int
    path_length: int | None


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """A server certificate and the names it must carry; renewed `renew_hours` before its end."""

    name: str
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    hours: int
    renew_hours: int


@dataclass(frozen=True, kw_only=True)
class CaTree:
    """`root` and `intermediate` are None where the user brought the intermediate."""

    root: Authority | None
    intermediate: Authority | None
    leaves: tuple[Leaf, ...]


def ca_tree(settings: Settings, topology: Topology) -> CaTree:
    """What is to be generated for `settings`."""
    pki = settings.pki
    gitlab_name = f"{settings.domains['gitlab']}.{settings.domain}"
    leaf = Leaf(
        name="gitlab",
        dns_names=(gitlab_name,),
        ip_addresses=(str(topology.gitlab.address),),
        hours=pki.leaf_days * 24,
        renew_hours=pki.leaf_days * 8,  # a third of its life, as ACME clients do
    )
    leaves = (leaf,) if settings.tls.source == "internal" else ()
    if pki.intermediate is not None:
        return CaTree(root=None, intermediate=None, leaves=leaves)
    own = pki.organization
    return CaTree(
        root=Authority(
            common_name=f"{own} Root CA", organization=own, hours=pki.root_years * HOURS_PER_YEAR, path_length=1
        ),
        intermediate=Authority(
            common_name=f"{own} Intermediate CA",
            organization=own,
            hours=pki.intermediate_years * HOURS_PER_YEAR,
            path_length=None,
        ),
        leaves=leaves,
    )


def extra_authorities(settings: Settings) -> tuple[str, ...]:
    """Certificates (PEM) that the user wants trusted beside the platform's own."""
    mirror = settings.media.registry_mirror_ca
    return (*settings.extra_ca_certificates, *((mirror,) if mirror else ()))


def trusted(settings: Settings) -> tuple[str, ...]:
    """What is trusted besides the platform's own root (PEM): the user's authorities, and those of a provided certificate."""
    above = served_chain(settings.tls)[1] if settings.tls.source == "provided" else ""
    return (*extra_authorities(settings), *((above,) if above else ()))


def bundle_name(settings: Settings) -> str:
    """Name of the ConfigMap with the CA bundle: another one for other certificates, as far as the settings give them."""
    given = "".join(trusted(settings)) + (settings.pki.intermediate.chain if settings.pki.intermediate else "")
    return f"{CA_BUNDLE}-{hashlib.sha256(given.encode()).hexdigest()[:8]}" if given else CA_BUNDLE


def issued(
    tree: CaTree, clusters: Iterable[Iterable[Release]]
) -> Iterator[tuple[tuple[str, ...], tuple[IPv4Address, ...]]]:
    """Names and addresses of every certificate that the intermediate issues: GitLab's here, the tools' by cert-manager."""
    for leaf in tree.leaves:
        yield leaf.dns_names, tuple(map(IPv4Address, leaf.ip_addresses))
    for releases in clusters:
        for release in releases:
            for manifest in (*release.before, *release.after):
                spec = manifest.body.get("spec", {})
                # A ClusterIssuer signs with the intermediate; an Issuer is one release's own.
                if manifest.body.get("kind") == "Certificate" and spec["issuerRef"]["kind"] == "ClusterIssuer":
                    yield tuple(spec["dnsNames"]), ()
