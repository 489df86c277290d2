"""`ClusterNodes`: one RKE2 cluster on its machines.

Order: the load balancer (the fixed registration address), the first server, every further server by itself, then the
agents, a bounded number at a time. Each node is then looked at from the first server until it is Ready, and leaves from
there too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi

from components import cluster_trust, kubeconfig
from components.host import Host
from components.passwords import generated
from config.model import Settings
from plan import audit, dns, hosts, media, proxies, rke2
from plan.topology import ClusterHosts
from plan.topology import Host as PlannedHost

_INSTALL_SECONDS = 1800  # pulling or unpacking the images dominates
_READY_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class ClusterNodesArgs:
    """The cluster, its machines by planned name, and `registration`: what must stand before anything joins.

    `issuer` is the URL of the realm whose users may log in to the API, whose certificate `ca_bundle` (PEM) verifies.
    """

    cluster: ClusterHosts
    settings: Settings
    stack: str
    hosts: Mapping[str, Host]
    registration: Sequence[pulumi.Resource]
    ca_bundle: pulumi.Input[str]
    issuer: str | None = None
    registry: str | None = None
    """Name of the platform's own registry, where images are asked for first."""
    manifests: Mapping[str, str] = field(default_factory=dict)
    """What its servers apply, by file name, beside the rights of those who log in."""
    account_keys: bool = False
    """Whether others verify tokens of the cluster's ServiceAccounts."""


class ClusterNodes(pulumi.ComponentResource):
    """Outputs: `kubeconfig` (secret; cluster-admin, through the load balancer), `token` (secret), `api_url`.

    `ready` are the resources after which every node has been seen Ready. `account_keys` (PEM) verify tokens of the
    cluster's ServiceAccounts; None unless asked for.
    """

    kubeconfig: pulumi.Output[str]
    token: pulumi.Output[str]
    ready: tuple[pulumi.Resource, ...]
    account_keys: pulumi.Output[str] | None = None

    def __init__(self, name: str, args: ClusterNodesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:cluster:ClusterNodes", name, None, opts)
        self._name, self._args = name, args
        # RKE2 and what runs in it read the machine's trusted certificates once, when they start.
        self._trust = pulumi.Output.from_input(args.ca_bundle).apply(
            lambda pem: hashlib.sha256(pem.encode()).hexdigest()
        )
        cluster = args.cluster
        self.token = generated(f"{name}-token", 64, parent=self).result
        self._agent_token = generated(f"{name}-agent-token", 64, parent=self).result
        first = args.hosts[cluster.masters[0].name]
        # Of a machine that takes the first server's place in a cluster that lives: asked of another server.
        living: pulumi.Input[str] = ""
        if len(cluster.masters) > 1:
            living = self._authority(
                "living-ca", args.hosts[cluster.masters[1].name], {"absent": True, "asked_for": first.host_key}, ()
            )
        made = self._join(cluster.masters[0], tuple(args.registration), living=living)
        previous: tuple[pulumi.Resource, ...] = (self._watch(cluster.masters[0], made),)
        seen: list[pulumi.Resource] = [*previous]
        self._authority_hash = self._authority("ca", first, {"absent": False, "asked_for": made.id}, previous)
        # A server counts for the next one only when it is Ready.
        for master in cluster.masters[1:]:
            previous = (self._watch(master, self._join(master, previous)),)
            seen += previous
        # An agent starts when the one so many places before it is Ready: no more are ever joining, or restarting in an
        # upgrade, at once, and one that fails holds up only those behind it in its own lane.
        at_once = args.settings.kubernetes.workers_at_once
        agents: list[pulumi.Resource] = []
        for number, worker in enumerate(cluster.workers):
            lane = agents[number - at_once : number - at_once + 1] if number >= at_once else []
            agents.append(self._watch(worker, self._join(worker, (*previous, *lane))))
        seen += agents
        self.ready = tuple(seen)
        self.api_url = rke2.api_url(cluster)
        self.kubeconfig = first.ask(
            "kubeconfig",
            {"server_url": self.api_url},
            name=f"{name}-kubeconfig",
            parent=self,
            seconds=60,
            secret=True,
            after=seen[:1],
        )
        if args.account_keys:
            key_set = first.ask(
                "account-keys",
                {"cluster": cluster.name, "timeout_seconds": 60},
                name=f"{name}-account-keys",
                parent=self,
                seconds=90,
                after=seen[:1],
            )
            self.account_keys = key_set.apply(cluster_trust.account_keys)
        self.register_outputs({"kubeconfig": self.kubeconfig, "token": self.token, "api_url": self.api_url})

    @property
    def authority(self) -> pulumi.Output[str]:
        """The certificate (PEM) that its API server is verified by."""
        return self.kubeconfig.apply(kubeconfig.authority)

    def _authority(
        self, name: str, host: Host, values: Mapping[str, pulumi.Input[object]], after: tuple[pulumi.Resource, ...]
    ) -> pulumi.Output[str]:
        """The hash of the cluster's CA as `host` has it, read through its pinned connection; empty where there is none yet
        and that may be. Read again when `asked_for` changes: another machine, or another cluster on it."""
        read = host.ask(
            "cluster-ca", {"cluster": self._args.cluster.name, **values}, name=f"{self._name}-{name}", parent=self,
            seconds=60, after=after,
        )  # fmt: skip
        return read.apply(str.strip)

    def _join(
        self, node: PlannedHost, after: tuple[pulumi.Resource, ...], living: pulumi.Input[str] | None = None
    ) -> pulumi.Resource:
        """Installs, configures and starts RKE2 on one machine; leaving uninstalls it there.

        `living` is given for the first server: the hash of the CA of the cluster that it would join, if one lives.
        """
        args, settings = self._args, self._args.settings
        config = rke2.node_config(
            args.cluster, node, settings.kubernetes, dns.api_name(settings, args.cluster.name), args.issuer,
            resolv_conf=dns.pods_file(settings),
        )  # fmt: skip
        given = {
            entry: settings.secrets[name].get_secret_value()
            for entry, name in rke2.secrets(node, settings.kubernetes).items()
        }
        known = pulumi.Output.all(
            token=self.token, agent=self._agent_token, authority="" if living is not None else self._authority_hash
        )
        configured = known.apply(
            lambda k: rke2.to_yaml(
                {**rke2.credentials(node, args.cluster, k["token"], k["agent"], k["authority"]), **given, **config}
            )
        )
        manifests = {**rke2.manifests(args.issuer), **args.manifests} if node.role == "master" else {}
        airgap = settings.media.source == "airgap"
        # Online, of the installer alone, where the settings have its sum.
        files = media.rke2_artifacts(settings.kubernetes.cni)
        listed = files if airgap else [file for file in files[:1] if file in settings.media.sha256]
        sums = [f"{settings.media.sha256[file]}  {file}" for file in listed]
        return args.hosts[node.name].run(
            "rke2",
            {
                "type": "agent" if node.role == "worker" else "server",
                "version": media.rke2_version(settings),
                "method": "tar",
                "source": settings.media.source,
                "install_url": media.RKE2_INSTALLER,
                "artifacts_url": settings.media.artifacts or "",
                "artifacts_sha256": sums,
                "config_yaml": configured,
                "registries_yaml": rke2.to_yaml(rke2.registries(settings.media, args.registry)),
                "audit_policy": audit.policy() if node.role == "master" else "",
                "oidc_ca": args.ca_bundle if node.role == "master" and args.issuer else "",
                "manifests": list(manifests),
                **{f"manifest_{number}": text for number, text in enumerate(manifests.values(), 1)},
                "identity": hosts.identity(node, args.stack),
                "trust_sha256": self._trust,
                "cluster_urls": rke2.living_urls(args.cluster, node),
                "cluster_ca": living or "",
                "node_name": node.name,
                "timeout_seconds": _READY_SECONDS,
                "proxy_http": settings.proxy.http or "",
                "proxy_https": settings.proxy.https or "",
                "proxy_no": proxies.no_proxy(settings),
            },
            name=f"{self._name}-{node.name}-rke2",
            parent=self,
            seconds=_INSTALL_SECONDS,
            secret=True,
            delete="rke2-remove",
            # The last that knows the cluster's state. Not the component: all of its children would be protected, and no
            # worker could leave.
            protect=node == args.cluster.masters[0] and not args.cluster.settings.removable,
            after=after,
        )

    def _watch(self, node: PlannedHost, joined: pulumi.Resource) -> pulumi.Resource:
        """Seen from the first server: the node is Ready with its labels and taints; leaving takes it out of the
        cluster together with its node password."""
        first = self._args.hosts[self._args.cluster.masters[0].name]
        return first.run(
            "node",
            {
                "node_name": node.name,
                "labels": [f"{key}={value}" for key, value in node.labels],
                "taints": [f"{t.key}={t.value}:{t.effect}" for t in node.taints],
                "timeout_seconds": _READY_SECONDS,
            },
            name=f"{self._name}-{node.name}-ready",
            parent=self,
            seconds=_READY_SECONDS + 60,
            delete="node-remove",
            after=(joined,),
        )
