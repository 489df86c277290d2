"""keepalived: the virtual address of a cluster's load balancers, held by one of them at a time (VRRP version 3).

Version 3 has no authentication, and that of version 2 was a password in clear: who may speak for the address is decided
by the packet filter, which lets VRRP in from the other machine only (plan/network.py), and by the source check here.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from plan.haproxy import ALIVE, STATISTICS
from plan.topology import ClusterHosts, Host

ADVERTISEMENT_SECONDS = 0.5
"""Between two signs of life. The other one takes over after three missed ones and some: 1.6 to 1.9 s; a virtual machine
that stands still for a second, as while it is moved or saved, loses nothing."""
CHECK_SECONDS, CHECK_FAILURES = 1, 2
INTERFACE = "@INTERFACE@"
"""Stands for the network interface that carries the machine's own address; only the machine knows it."""

# No preemption: a machine that comes back stays behind the one that serves, so its return costs no connection. The
# initial state must be BACKUP for that on both; priorities only decide between two that start at once.
_PAIR = """\
vrrp_script haproxy {{
    script "/usr/bin/curl --fail --silent --noproxy * --max-time {seconds} --output /dev/null http://127.0.0.1:{port}{path}"
    interval {seconds}
    timeout {timeout}
    fall {failures}
    rise {failures}
}}

vrrp_instance entrance {{
    state BACKUP
    nopreempt
    interface {interface}
    virtual_router_id {router}
    priority {priority}
    advert_int {advertisement}
    unicast_src_ip {address}
    unicast_peer {{
{peers}    }}
    virtual_ipaddress {{
        {virtual}/32 dev {interface}
    }}
    track_script {{
        haproxy
    }}
}}
"""

# The check is one program with fixed arguments. `keepalived --config-test` of 2.2.7 ends itself unless root runs it.
_GLOBAL = """\
global_defs {{
    router_id {name}
    vrrp_version 3
    vrrp_check_unicast_src
    vrrp_garp_master_refresh 60
    script_user root
    enable_script_security
    max_auto_priority
}}

"""

# One machine alone always holds it.
_ALONE = """\
static_ipaddress {{
    {virtual}/32 dev {interface}
}}
"""


def configuration(cluster: ClusterHosts, host: Host) -> str:
    """keepalived.conf of `host`, with INTERFACE in place of its interface; empty without a virtual address."""
    virtual = cluster.settings.load_balancer.virtual_address
    if virtual is None:
        return ""
    others = [other for other in cluster.load_balancers if other != host]
    text = _GLOBAL.format(name=host.name)
    if not others:
        return text + _ALONE.format(virtual=virtual, interface=INTERFACE)
    return text + _PAIR.format(
        seconds=CHECK_SECONDS,
        timeout=CHECK_SECONDS + 1,
        failures=CHECK_FAILURES,
        port=STATISTICS,
        path=ALIVE,
        interface=INTERFACE,
        router=router_id(virtual),
        priority=150 - cluster.load_balancers.index(host),
        advertisement=ADVERTISEMENT_SECONDS,
        address=host.address,
        peers="".join(f"        {other.address}\n" for other in others),
        virtual=virtual,
    )


def values(cluster: ClusterHosts, host: Host) -> dict[str, str | list[str]]:
    """The values of the phase `keepalived` on `host`; none without a virtual address."""
    virtual = cluster.settings.load_balancer.virtual_address
    if virtual is None:
        return {}
    return {
        "config": configuration(cluster, host),
        "address": str(host.address),
        "virtual_address": str(virtual),
        "peers": [str(other.address) for other in cluster.load_balancers if other != host],
    }


def router_id(virtual: IPv4Address) -> int:
    """1 to 255: the address's last number. A subnet has one cluster, so no two of ours meet in it."""
    return int(virtual) % 256 or 255
