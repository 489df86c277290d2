"""SSH: how the operator reaches the machines, each through the bastion."""

from __future__ import annotations

from config.model import Settings
from plan.contract.rule import Rule, need
from plan.topology import Host, Topology

# What one open session costs the bastion: two processes of sshd, 1.7 MB (60 sessions of OpenSSH 9.2: 102 MB).
SESSION_PROCESSES = 2
SESSION_MB = 1.7
# The part of the bastion's memory that sessions may take.
_SHARE = 0.5
# Remote steps on any machine: its host key, preflight, prepare, confirm.
_EVERY_MACHINE = 4
# On a node: rke2, and the look from the first master until it is Ready.
_NODE = 2
# On GitLab's machine: the package, and the tools' access tokens.
_GITLAB = 2
# On a cluster's first master: the hash of its CA (twice, where others follow it), the kubeconfig, its ServiceAccounts' keys.
_CLUSTER = 4

# New connections in a minute. A first `up` of either reference architecture opens 60 or 222 sessions in all, so the first
# holds nothing of it back; of a larger stack, the engine opens up to 800 a minute through the bastion (docs/bench.md).
_RATE, _RATE_OF_FLEETS = 240, 1200


def flows(settings: Settings) -> tuple[Rule, ...]:
    """Who opens SSH to whom."""
    port = (settings.ssh.port,)
    return (
        need("SSH", "operator", "bastion", port, "SSH", "the operator's way in"),
        need("SSH", "bastion", "all", port, "SSH", "every machine is reached through the bastion"),
    )


def sessions(topology: Topology) -> int:
    """Sessions that a first deployment opens on the bastion at most; none is closed before it ends.

    The released command plugin opens a connection a step and closes none (pulumi-command 1.2.1, commandOutputs.go).
    """
    balancers = sum(len(b.hosts) * (2 if len(b.hosts) > 1 else 1) for b in topology.load_balancers)
    clusters = sum(_NODE * len(c.nodes) + _CLUSTER + 1 for c in topology.clusters)  # and the NFS share
    # The comparison of all machines takes the place of the bastion's own host key, which is asked for from outside.
    return _EVERY_MACHINE * len(topology.hosts) + balancers + _GITLAB + clusters


def per_minute(host: Host, settings: Settings, topology: Topology) -> int:
    """New SSH connections that `host` takes from one address in a minute; half of them may come at once.

    Only the bastion is dialled for every machine: the others are dialled from there, each for itself. It is one of two
    numbers, so that a machine more changes the rules of none.
    """
    if (chosen := settings.firewall.ssh_per_minute) is not None:
        return chosen
    return _RATE_OF_FLEETS if host.role == "bastion" and sessions(topology) > _RATE else _RATE


def warnings(topology: Topology) -> tuple[str, ...]:
    """What the bastion is too small for."""
    count = sessions(topology)
    needed = count * SESSION_MB / 1024
    if needed <= topology.bastion.memory_gb * _SHARE:
        return ()
    return (
        f"bastion.memoryGb: a first up opens {count} SSH sessions there, and the released command plugin keeps them open until "
        f"it ends: {needed:.1f} GB of {topology.bastion.memory_gb} GB. Set opstella:bastion.memoryGb to "
        f"{-int(-needed // _SHARE)} or more",
    )
