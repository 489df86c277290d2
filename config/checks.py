"""Cross-field checks of valid single values; each names both offenders and the remedy.

Nothing here changes a value: `check` only reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from datetime import UTC, datetime

from config.addresses import check_inside, check_own
from config.balancers import check_balancers
from config.clusters import Nodes
from config.errors import Problem, key
from config.model import Settings
from config.networks import check_addresses, check_overlaps, check_room, check_rules, node_mask
from config.nodes_checks import check_gitlab, check_nodes, check_sizes
from config.pem import ENCRYPTED
from config.placement import PLACES_READ
from config.placement_checks import check_domains, check_homeless, check_places
from config.reference import ARCHITECTURES, WORKERS
from config.salvage import touches
from config.services_checks import CHECKS
from config.tls_checks import check_intermediate, check_ssh, check_tls

ONLINE_SCRIPTS = ("install.sh", "script.deb.sh", "script.rpm.sh")
"""Scripts that are downloaded and run where software comes from the web: RKE2's and GitLab's."""
__all__ = ["ENCRYPTED", "check", "key", "node_mask"]

# Host names are labels of at most 63 characters: the cluster's name, "-haproxy" or "-worker-5000".
LONGEST_CLUSTER_NAME = 63 - len("-worker-5000")


def check(settings: Settings, now: datetime | None = None, without: Set[str] = frozenset()) -> list[Problem]:
    """Every fault of `settings` that only several values together show; `now` is UTC, by default the clock.

    `without` holds the paths of values that are not what the user wrote: a check that reads one is left out.
    """
    moment = now or datetime.now(UTC)
    networks = ("clusters.*.subnet", "clusters.*.podSubnet", "clusters.*.serviceSubnet")
    checks: tuple[tuple[tuple[str, ...], Callable[[Settings], Iterator[Problem]]], ...] = (
        (("architecture", "clusters"), _clusters),
        (PLACES_READ, check_places),
        (PLACES_READ, check_homeless),
        ((*PLACES_READ, "domains.**"), check_domains),
        (("architecture", "clusters"), _nodes),
        (("architecture", "clusters"), check_sizes),
        (("architecture", "gitlab.**"), check_gitlab),
        (("architecture", "clusters.*.*.count", "clusters.*.*.addresses.**"), _listed),
        (("architecture", "clusters.*.*.labels.**", "clusters.*.*.nodeLabels.**", "clusters.*.*.taints.**"), check_nodes),
        (("architecture", "network.**", *networks), check_overlaps),
        (("architecture", "clusters.*.enabled", *networks), check_inside),
        (("dns.**", "proxy.**"), check_own),
        (("network.rules.**", "network.egress.**", "firewall.enabled"), check_rules),
        (("architecture", "clusters.**", "machines.**", "bastion.**", "gitlab.**"), check_room),
        (
            ("architecture", "clusters.*.subnet", "clusters.*.*.addresses.**", "clusters.*.loadBalancer.sharedWith"),
            check_addresses,
        ),
        (("architecture", "clusters.*.enabled", "clusters.*.loadBalancer.**"), check_balancers),
        (("media.**",), _media),
        (("ssh.privateKey",), check_ssh),
        (("tls.**", "pki.**"), _sources),
        (("tls.**", "extraCaCertificates.**", "domain", "domains.**", *PLACES_READ), lambda s: check_tls(s, moment)),
        (("pki.**", "domain", "domains.**", *PLACES_READ), lambda s: check_intermediate(s, moment)),
        *CHECKS,
    )
    return [
        problem
        for reads, of in checks
        if not any(touches(broken, pattern) for broken in without for pattern in reads)
        for problem in of(settings)
    ]


def _clusters(settings: Settings) -> Iterator[Problem]:
    own = ARCHITECTURES[settings.architecture].get("clusters", {})
    if not settings.clusters:
        yield Problem(key("clusters"), "there is no cluster", "describe at least one cluster")
    elif not settings.enabled_clusters:
        yield Problem(
            key("clusters"), f"every cluster is left out: {', '.join(settings.clusters)}", "enable at least one of them"
        )
    for name in settings.clusters:
        if own and name not in own:
            yield unknown_cluster(settings.architecture, name)
        if len(name) > LONGEST_CLUSTER_NAME:
            yield Problem(
                key("clusters", name),
                f"the name has {len(name)} characters, and host names begin with it",
                f"write at most {LONGEST_CLUSTER_NAME} characters",
            )


def unknown_cluster(architecture: str, name: str) -> Problem:
    """The problem of a cluster that the reference does not have."""
    own = ARCHITECTURES[architecture]["clusters"]
    return Problem(
        key("clusters", name),
        f"architecture '{architecture}' has no cluster of that name",
        f"its clusters are: {', '.join(own)}; for clusters of your own set architecture to custom",
    )


def _sources(settings: Settings) -> Iterator[Problem]:
    tls, pki = settings.tls, settings.pki
    if tls.source == "internal" and (tls.certificate or tls.private_key or tls.chain):
        yield Problem(
            key("tls.source"),
            "'internal' issues its own certificates, yet tls.certificate, tls.privateKey or tls.chain is given",
            "set tls.source to provided, or remove them",
        )
    if pki.intermediate_years > pki.root_years:
        yield Problem(
            key("pki.intermediateYears"),
            f"{pki.intermediate_years} years outlive the root, opstella:pki.rootYears {pki.root_years}",
            f"write at most the root's years, {pki.root_years}",
            {("pki", "intermediateYears"): pki.root_years},
        )


def _nodes(settings: Settings) -> Iterator[Problem]:
    for name, cluster in settings.enabled_clusters.items():
        masters, workers = cluster.masters.count, cluster.workers.count
        if masters % 2 == 0:
            yield Problem(
                key("clusters", name, "masters.count"),
                f"{masters} is an even number: etcd's quorum survives no more losses with {masters} masters than with "
                f"{masters - 1}"
                if masters
                else "no master: nothing would hold the cluster's state",
                f"write an odd number, {max(masters - 1, 1)} or {max(masters + 1, 3)}: 1 survives no loss, 3 the loss of one, "
                "5 of two",
                {("clusters", name, "masters", "count"): max(masters - 1, 1)},
            )
        if workers < 1:
            yield Problem(
                key("clusters", name, "workers.count"),
                "no worker: the tools would run nowhere, and the load balancer would have no target",
                WORKERS,
                {("clusters", name, "workers", "count"): 5},
            )


def _listed(settings: Settings) -> Iterator[Problem]:
    for name, cluster in settings.enabled_clusters.items():
        groups: tuple[tuple[str, Nodes], ...] = (("masters", cluster.masters), ("workers", cluster.workers))
        for role, nodes in groups:
            if len(nodes.addresses) > nodes.count:
                yield Problem(
                    key("clusters", name, role, "addresses"),
                    f"{len(nodes.addresses)} addresses for {nodes.count} nodes",
                    "raise count, or remove the addresses beyond it",
                )


def _media(settings: Settings) -> Iterator[Problem]:
    media = settings.media
    if media.source == "airgap":
        if media.artifacts is None:
            yield Problem(
                key("media.artifacts"),
                "media.source is airgap, but no folder of artifacts is named",
                "write its URL: https://…, or file:///… for a folder present on every machine",
            )
        if media.chart_repository is None:
            yield Problem(
                key("media.chartRepository"),
                "media.source is airgap, but no chart repository is named",
                "write the URL of a Helm repository that holds the charts of plan/versions.py",
            )
    elif media.artifacts is not None or set(media.sha256) - set(ONLINE_SCRIPTS):
        given = "artifacts" if media.artifacts is not None else f"sums of {', '.join(sorted(set(media.sha256) - set(ONLINE_SCRIPTS)))}"
        yield Problem(
            key("media.artifacts" if media.artifacts is not None else "media.sha256"),
            f"{given} are given, but media.source is online",
            f"set media.source to airgap, or remove artifacts and every sum but those of {', '.join(ONLINE_SCRIPTS)}",
        )
    for name, url in (("chartRepository", media.chart_repository), ("registryMirror", media.registry_mirror)):
        if url is not None and url.startswith("http://") and not media.allow_http:
            yield Problem(
                key("media", name),
                f"{url} is not encrypted: whoever is on the way can exchange what the clusters run",
                f"serve it by https:// (its authority in {key('extraCaCertificates')}), or accept it by"
                f" {key('media.allowHttp')}: true",
            )
