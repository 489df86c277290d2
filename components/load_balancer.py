"""`LoadBalancer`: HAProxy in front of one cluster."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.host import Host
from plan import haproxy, rke2
from plan.topology import ClusterHosts


@dataclass(frozen=True, kw_only=True)
class LoadBalancerArgs:
    """The machine that balances, and the cluster behind it."""

    host: Host
    cluster: ClusterHosts


class LoadBalancer(pulumi.ComponentResource):
    """HAProxy on its machine. Outputs: `address`, `api_url` (Kubernetes API), `registration_url` (RKE2)."""

    def __init__(self, name: str, args: LoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:network:LoadBalancer", name, None, opts)
        self.configured: pulumi.Resource = args.host.run(
            "haproxy",
            {"config": haproxy.configuration(args.cluster)},
            name=f"{name}-haproxy",
            parent=self,
            seconds=600,
        )
        self.address = str(args.host.plan.address)
        self.api_url = rke2.api_url(args.cluster)
        self.registration_url = rke2.server_url(args.cluster)
        self.register_outputs(
            {"address": self.address, "api_url": self.api_url, "registration_url": self.registration_url}
        )
