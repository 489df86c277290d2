"""`LoadBalancer`: HAProxy in front of one cluster, on one machine or on two with a virtual address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from components.host import Host
from plan import haproxy, keepalived, rke2
from plan.topology import ClusterHosts


@dataclass(frozen=True, kw_only=True)
class LoadBalancerArgs:
    """The machines of the stack by planned name, and the cluster behind its load balancers."""

    hosts: Mapping[str, Host]
    cluster: ClusterHosts


class LoadBalancer(pulumi.ComponentResource):
    """HAProxy on its machines. Outputs: `address`, `api_url` (Kubernetes API), `registration_url` (RKE2).

    `ready` are the resources after which the address answers.
    """

    ready: tuple[pulumi.Resource, ...]

    def __init__(self, name: str, args: LoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:network:LoadBalancer", name, None, opts)
        cluster = args.cluster
        ready: list[pulumi.Resource] = []
        for number, planned in enumerate(cluster.load_balancers, 1):
            host = args.hosts[planned.name]
            # The first one's resources are called the same whether there is a second or not.
            suffix = f"-{number}" if number > 1 else ""
            configured = host.run(
                "haproxy",
                {"config": haproxy.configuration(cluster)},
                name=f"{name}-haproxy{suffix}",
                parent=self,
                seconds=600,
            )
            ready.append(configured)
            if values := keepalived.values(cluster, planned):
                ready.append(
                    host.run(
                        "keepalived",
                        values,
                        name=f"{name}-keepalived{suffix}",
                        parent=self,
                        seconds=600,
                        delete="keepalived-remove",
                        after=(configured,),
                    )
                )
        self.ready = tuple(ready)
        self.address = str(cluster.entrance)
        self.api_url = rke2.api_url(cluster)
        self.registration_url = rke2.server_url(cluster)
        self.register_outputs(
            {"address": self.address, "api_url": self.api_url, "registration_url": self.registration_url}
        )
