"""The platform of a plan. Standalone and multi-cluster are the same composition over one or several clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pulumi

from components.cluster_nodes import ClusterNodes, ClusterNodesArgs
from components.cluster_trust import ClusterTrust
from components.fleet import Fleet, FleetArgs
from components.gitlab_server import GitLabServer, GitLabServerArgs
from components.load_balancer import LoadBalancer, LoadBalancerArgs
from components.nfs_share import NfsShare, NfsShareArgs
from components.passwords import Passwords, PasswordsArgs
from components.pki_chain import PkiChain, PkiChainArgs, ServerCertificate
from components.tool_stack import ToolStack, ToolStackArgs
from config.tls_checks import served_chain
from plan.gitlab import access_tokens, scraped, tokens_until
from plan.hosts import administrators_from
from plan.manifests import manifests
from plan.pki import trusted
from plan.plan import Plan
from plan.tools.model import ClusterAccountKeys, ClusterAuthority
from plan.tools.needs import GITLAB
from plan.tools.order import cluster_order
from plan.topology import ClusterHosts


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """What stands below the tools of one cluster."""

    load_balancer: LoadBalancer
    nfs: NfsShare
    nodes: ClusterNodes


@dataclass(frozen=True, kw_only=True)
class Cluster(Foundation):
    """The components of one cluster."""

    tools: ToolStack


@dataclass(frozen=True, kw_only=True)
class Platform:
    """All components of a stack; `clusters` by name, in the order of the settings."""

    pki: PkiChain
    passwords: Passwords
    fleet: Fleet
    gitlab: GitLabServer
    clusters: dict[str, Cluster]


def deploy(plan: Plan, charts: Mapping[str, str] = MappingProxyType({})) -> Platform:
    """Declares every resource of `plan`. `charts` are the archives of the charts that are pinned, by tool: paths."""
    settings = plan.settings
    pki = PkiChain(
        "pki",
        PkiChainArgs(tree=plan.ca, intermediate=settings.pki.intermediate, extra=trusted(settings)),
    )
    passwords = Passwords(
        "passwords",
        PasswordsArgs(clusters={name: [p for r in rs for p in r.passwords] for name, rs in plan.releases.items()}),
    )
    fleet = Fleet(
        "host",
        FleetArgs(
            plan=plan,
            private_key=pulumi.Output.secret(settings.ssh.private_key.get_secret_value()),
            ca_bundle=pki.ca_bundle,
        ),
    )
    certificate = _provided(plan)
    gitlab_certificate = certificate or pki.leaves["gitlab"]
    tokens, until = access_tokens(plan.releases), tokens_until(datetime.now(UTC).date())
    gitlab = GitLabServer(
        "gitlab",
        GitLabServerArgs(
            host=fleet.hosts[plan.topology.gitlab.name],
            settings=settings,
            domain=f"{settings.domains['gitlab']}.{settings.domain}",
            certificate=gitlab_certificate.chain,
            private_key=gitlab_certificate.private_key,
            trusted_ca=pki.ca_bundle,
            tokens=tokens,
            token_values=[passwords.clear(token.cluster, token.password) for token in tokens],
            tokens_until=until,
            administrators_from=administrators_from(plan.topology.gitlab, plan.contract),
            prometheus_open=scraped(plan.contract.rules),
            **_gitlab_services(plan, passwords),
        ),
    )
    balancers = _load_balancers(plan, fleet)
    foundations = {c.name: _foundation(c, balancers[c.name], plan, fleet, pki) for c in plan.topology.clusters}
    trust = {name: _trust(name, foundation.nodes, plan) for name, foundation in foundations.items()}
    tools: dict[str, ToolStack] = {}
    deployed: dict[str, Sequence[pulumi.Resource]] = {}
    for name in cluster_order(plan.releases):
        below = foundations[name]
        tools[name] = ToolStack(
            f"{name}-tools",
            ToolStackArgs(
                cluster=name,
                kubeconfig=below.nodes.kubeconfig,
                releases=plan.releases[name],
                charts=charts,
                passwords=passwords,
                authority_chain=pki.authority_chain,
                authority_key=pki.intermediate_key,
                ca_bundle=pki.ca_bundle,
                certificate=certificate,
                given={key: secret.get_secret_value() for key, secret in settings.secrets.items()},
                clusters=trust,
                after=(*below.nodes.ready, below.nfs.exported),
                projects=plan.projects[name],
                external={GITLAB: gitlab.serving, **deployed},
                until=until,
            ),
        )
        deployed |= tools[name].deployed
    clusters = {
        name: Cluster(load_balancer=below.load_balancer, nfs=below.nfs, nodes=below.nodes, tools=tools[name])
        for name, below in foundations.items()
    }
    return Platform(pki=pki, passwords=passwords, fleet=fleet, gitlab=gitlab, clusters=clusters)


def _load_balancers(plan: Plan, fleet: Fleet) -> dict[str, LoadBalancer]:
    """By cluster; those that share one have the same."""
    found: dict[str, LoadBalancer] = {}
    for planned in plan.topology.load_balancers:
        made = LoadBalancer(f"{planned.owner.name}-lb", LoadBalancerArgs(hosts=fleet.hosts, balancer=planned))
        found |= {cluster.name: made for cluster in planned.clusters}
    return found


def _foundation(
    cluster: ClusterHosts, balancer: LoadBalancer, plan: Plan, fleet: Fleet, pki: PkiChain
) -> Foundation:
    hosts = fleet.hosts
    share = NfsShare(f"{cluster.name}-nfs", NfsShareArgs(host=hosts[cluster.nfs.name], cluster=cluster))
    nodes = ClusterNodes(
        f"{cluster.name}-nodes",
        ClusterNodesArgs(
            cluster=cluster,
            settings=plan.settings,
            stack=plan.stack,
            hosts=hosts,
            registration=balancer.ready,
            ca_bundle=pki.ca_bundle,
            issuer=plan.issuer,
            registry=plan.registry,
            manifests=manifests(plan.contract, cluster),
            account_keys=cluster.name in plan.clusters_verified(ClusterAccountKeys),
        ),
    )
    return Foundation(load_balancer=balancer, nfs=share, nodes=nodes)


def _trust(name: str, nodes: ClusterNodes, plan: Plan) -> ClusterTrust:
    """What other clusters' tools verify this one by, if they ask for it."""
    wanted = name in plan.clusters_verified(ClusterAuthority)
    return ClusterTrust(authority=nodes.authority if wanted else None, account_keys=nodes.account_keys)


def _gitlab_services(plan: Plan, passwords: Passwords) -> dict[str, Any]:
    """What GitLab uses of the tools, where the catalogue has it: the realm, and the object store that serves it."""
    found: dict[str, Any] = {}
    realm = f"/realms/{plan.settings.identity.realm}"
    for cluster, releases in plan.releases.items():
        hosts = {r.kind: r.name for r in plan.records if r.cluster == cluster}
        names = {release.name for release in releases}
        if "keycloak" in names and "issuer" not in found:
            found |= {
                "issuer": f"https://{hosts['keycloak']}{realm}",
                "client_secret": passwords.anywhere("client-gitlab"),
            }
        serves = any(p.name == "s3-gitlab" for release in releases for p in release.passwords)
        if serves and plan.settings.gitlab.object_storage:
            found |= {"object_storage": f"https://{hosts['minioApi']}", "storage_secret": passwords.anywhere("s3-gitlab")}
    return found


def _provided(plan: Plan) -> ServerCertificate | None:
    """The user's certificate for `*.domain`, if TLS comes from there."""
    tls = plan.settings.tls
    if tls.source == "internal" or tls.certificate is None or tls.private_key is None:
        return None
    return ServerCertificate(
        chain=pulumi.Output.from_input(served_chain(tls)[0]),
        private_key=pulumi.Output.secret(tls.private_key.get_secret_value()),
    )
