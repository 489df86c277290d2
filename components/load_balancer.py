"""`LoadBalancer`: HAProxy in front of one cluster or several, on one machine or on two that hold virtual addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from components.host import Host
from plan import haproxy, keepalived
from plan.topology import LoadBalancerHosts


@dataclass(frozen=True, kw_only=True)
class LoadBalancerArgs:
    """The machines of the stack by planned name, and what of them is this load balancer."""

    hosts: Mapping[str, Host]
    balancer: LoadBalancerHosts


class LoadBalancer(pulumi.ComponentResource):
    """HAProxy on its machines. Outputs: `addresses`, by the names of the clusters that are reached at them.

    `ready` are the resources after which the addresses answer.
    """

    ready: tuple[pulumi.Resource, ...]

    def __init__(self, name: str, args: LoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:network:LoadBalancer", name, None, opts)
        balancer = args.balancer
        ready: list[pulumi.Resource] = []
        for number, planned in enumerate(balancer.hosts, 1):
            host = args.hosts[planned.name]
            # The first one's resources are called the same whether there is a second or not.
            suffix = f"-{number}" if number > 1 else ""
            configured = host.run(
                "haproxy",
                {"config": haproxy.configuration(balancer)},
                name=f"{name}-haproxy{suffix}",
                parent=self,
                seconds=600,
            )
            ready.append(configured)
            if values := keepalived.values(balancer, planned):
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
        self.addresses = {cluster.name: str(cluster.entrance) for cluster in balancer.clusters}
        self.register_outputs({"addresses": self.addresses})
