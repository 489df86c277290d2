"""`Fleet`: every machine of the stack, met, compared with each other, and prepared.

First contact with all of them comes before anything is changed on any of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from components.host import Access, Host, HostArgs, compare
from components.watchdog import Watchdog
from plan import hosts
from plan.plan import Plan


@dataclass(frozen=True, kw_only=True)
class FleetArgs:
    """`ca_bundle` (PEM) is trusted on every machine."""

    plan: Plan
    private_key: pulumi.Input[str]
    ca_bundle: pulumi.Input[str]


class Fleet(pulumi.ComponentResource):
    """All machines. Outputs: `hosts` (planned name to address).

    The attribute `hosts` maps a planned name to its `Host`, ready for its role.
    """

    hosts: Mapping[str, Host]

    def __init__(self, name: str, args: FleetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:host:Fleet", name, None, opts)
        plan, settings = args.plan, args.plan.settings
        access = Access(
            user=settings.ssh.user,
            private_key=args.private_key,
            port=settings.ssh.port,
            sudo=settings.ssh.sudo,
            host_keys=settings.ssh.host_keys,
            wait_seconds=settings.machines.wait_seconds,
            watchdog=Watchdog(f"{name}-watchdog"),
        )

        def meet(planned: hosts.Host, bastion: Host | None) -> Host:
            return Host(
                f"{name}-{planned.name}",
                HostArgs(
                    host=planned,
                    access=access,
                    preflight=hosts.preflight(planned, settings, plan.topology, plan.stack),
                    bastion=bastion,
                    dial=settings.bastion.public_address if bastion is None else None,
                ),
                # Its children's names begin with its own, so the engine finds their former ones by itself.
                pulumi.ResourceOptions(
                    parent=self, aliases=[pulumi.Alias(name=f"{name}-{other}") for other in planned.other_names]
                ),
            )

        bastion = meet(plan.topology.bastion, None)
        self.hosts = {bastion.plan.name: bastion} | {
            planned.name: meet(planned, bastion) for planned in plan.topology.hosts if planned != plan.topology.bastion
        }
        distinct = compare(tuple(self.hosts.values()), access, name=f"{name}-distinct", parent=self, seconds=300)
        # The bastion first, alone: its first ruleset starts connection tracking there, and every connection that runs
        # through it at that moment would be unknown to it and hang.
        self._prepare(f"{name}-{bastion.plan.name}", bastion, plan, args.ca_bundle, [distinct])
        for host in self.hosts.values():
            if host is not bastion:
                self._prepare(f"{name}-{host.plan.name}", host, plan, args.ca_bundle, bastion.ready)
        self.register_outputs({"hosts": {key: str(host.plan.address) for key, host in self.hosts.items()}})

    def _prepare(
        self, name: str, host: Host, plan: Plan, ca_bundle: pulumi.Input[str], after: Sequence[pulumi.Resource]
    ) -> None:
        """The base of the machine; a new ruleset stays only if a second connection confirms it."""
        values = hosts.prepare(host.plan, plan.contract, plan.stack)
        prepared = host.run(
            "prepare",
            {**values, "ca_bundle": ca_bundle},
            name=f"{name}-prepare",
            parent=host,
            seconds=900,
            after=after,
        )
        host.ready_after(prepared)
        if ruleset := str(values["ruleset"]):
            digest = hashlib.sha256(ruleset.encode()).hexdigest()
            confirmed = host.run(
                "confirm", {"ruleset_sha256": digest}, name=f"{name}-confirm", parent=host, seconds=60
            )
            host.ready_after(confirmed)
