"""`NfsShare`: the NFS server of one cluster."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.host import Host
from plan import nfs
from plan.topology import ClusterHosts


@dataclass(frozen=True, kw_only=True)
class NfsShareArgs:
    """The machine that serves, and the cluster whose workers may mount."""

    host: Host
    cluster: ClusterHosts


class NfsShare(pulumi.ComponentResource):
    """One export on fixed ports. Outputs: `server` (address) and `path`.

    It holds the volumes of its cluster: protected, unless the settings say that the cluster may go.
    """

    def __init__(self, name: str, args: NfsShareArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("opstella:storage:NfsShare", name, None, opts)
        settings = args.cluster.settings.nfs
        self.exported: pulumi.Resource = args.host.run(
            "nfs",
            {
                "server": settings.server,
                "path": settings.path,
                "exports": nfs.exports(args.cluster),
                "ganesha_conf": nfs.ganesha_conf(args.cluster),
                "nfs_conf": nfs.nfs_conf(),
            },
            name=f"{name}-nfs",
            parent=self,
            seconds=600,
            protect=not args.cluster.settings.removable,
        )
        self.server = str(args.host.plan.address)
        self.path = settings.path
        self.register_outputs({"server": self.server, "path": self.path})
