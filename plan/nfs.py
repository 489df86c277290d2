"""NFS: one export per cluster, for its workers only, on fixed ports (those of NFS 3, too, as the reference has them).

`no_root_squash` is what the CSI driver needs: it creates and owns each volume's folder as root.
"""

from __future__ import annotations

from plan.contract.rule import need
from plan.topology import ClusterHosts

NFSD, PORTMAPPER, MOUNTD = 2049, 111, 33333  # the reference's firewall table
FLOWS = (need("NFS", "worker", "nfs", (NFSD,), "NFS", "volumes are mounted by NFS 4.1, which has this one port"),)


def exports(cluster: ClusterHosts) -> str:
    """Text for /etc/exports.d: one line, a client per worker."""
    clients = " ".join(f"{w.address}(rw,sync,no_subtree_check,no_root_squash)" for w in cluster.workers)
    return f"{cluster.settings.nfs.path} {clients}\n"


def nfs_conf() -> str:
    """Text for /etc/nfs.conf.d: the kernel server's fixed ports."""
    return f"[nfsd]\nport={NFSD}\nthreads=16\n\n[mountd]\nport={MOUNTD}\nmanage-gids=n\n"


def ganesha_conf(cluster: ClusterHosts) -> str:
    """Text of ganesha.conf: the same export, the same ports, by NFS-Ganesha's VFS backend."""
    path = cluster.settings.nfs.path
    clients = ", ".join(str(w.address) for w in cluster.workers)
    return f"""\
NFS_CORE_PARAM {{
    NFS_Port = {NFSD};
    MNT_Port = {MOUNTD};
    Protocols = 3, 4;
    Enable_RQUOTA = false;
    Enable_NLM = false;
}}

NFSv4 {{
    Grace_Period = 30;
    Lease_Lifetime = 30;
}}

EXPORT {{
    Export_Id = 1;
    Path = {path};
    Pseudo = {path};
    Protocols = 3, 4;
    Transports = TCP, UDP;
    SecType = sys;
    Access_Type = NONE;
    CLIENT {{
        Clients = {clients};
        Access_Type = RW;
        Squash = No_Root_Squash;
    }}
    FSAL {{
        Name = VFS;
    }}
}}
"""
