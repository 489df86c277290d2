"""keepalived: the virtual addresses of a load balancer, each held by one of its machines at a time (VRRP version 3).

Each has a VRRP instance of its own: an advertisement lists the instance's addresses, and is refused by a machine that
knows of others, so that both would hold all of them from the first one's next configuration to the other's.

Version 3 has no authentication, and that of version 2 was a password in clear: who may speak for the address is decided
by the packet filter, which lets VRRP in from the other machine only (plan/network.py), and by the source check here.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from config.errors import Problem, key
from plan.contract.rule import need
from plan.haproxy import ALIVE, STATISTICS
from plan.topology import Host, LoadBalancerHosts, Topology

FLOWS = (
    need(
        "keepalived", "peers", "haproxy", (), "VRRP", "two load balancers agree on who holds the virtual address",
        protocols=("vrrp",),
    ),
    need("keepalived", "peers", "haproxy", (80,), "virtual address", "a load balancer looks whether the virtual address answers"),
)  # fmt: skip
ADVERTISEMENT_SECONDS = 0.5
"""Between two signs of life. The other one takes over after three missed ones and some: 1.6 to 1.9 s; a virtual machine
that stands still for a second, as while it is moved or saved, loses nothing."""
CHECK_SECONDS, CHECK_FAILURES = 1, 2
INTERFACE = "@INTERFACE@"
"""Stands for the network interface that carries the machine's own address; only the machine knows it."""

_CHECK = """\
vrrp_script haproxy {{
    script "/usr/bin/curl --fail --silent --noproxy * --max-time {seconds} --output /dev/null http://127.0.0.1:{port}{path}"
    interval {seconds}
    timeout {timeout}
    fall {failures}
    rise {failures}
}}
"""
# No preemption: a machine that comes back stays behind the one that serves, so its return costs no connection. The
# initial state must be BACKUP for that on both; priorities only decide between two that start at once.
_INSTANCE = """\

vrrp_instance {name} {{
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

# One machine alone always holds them.
_ALONE = """\
static_ipaddress {{
{addresses}}}
"""


def configuration(balancer: LoadBalancerHosts, host: Host) -> str:
    """keepalived.conf of `host`, with INTERFACE in place of its interface; empty without a virtual address."""
    if not balancer.virtual_addresses:
        return ""
    text = _GLOBAL.format(name=host.name)
    if not _peers(balancer, host):
        held = "".join(f"    {address}/32 dev {INTERFACE}\n" for address in balancer.virtual_addresses.values())
        return text + _ALONE.format(addresses=held)
    text += _CHECK.format(
        seconds=CHECK_SECONDS, timeout=CHECK_SECONDS + 1, failures=CHECK_FAILURES, port=STATISTICS, path=ALIVE
    )
    for cluster, virtual in balancer.virtual_addresses.items():
        text += _INSTANCE.format(
            name="entrance" if cluster == balancer.owner.name else f"entrance-{cluster}",
            interface=INTERFACE,
            router=router_id(virtual),
            priority=150 - balancer.hosts.index(host),
            advertisement=ADVERTISEMENT_SECONDS,
            address=host.address,
            peers="".join(f"        {address}\n" for address in _peers(balancer, host)),
            virtual=virtual,
        )
    return text


def values(balancer: LoadBalancerHosts, host: Host) -> dict[str, str | list[str]]:
    """The values of the phase `keepalived` on `host`; none without a virtual address."""
    if not balancer.virtual_addresses:
        return {}
    return {
        "config": configuration(balancer, host),
        "address": str(host.address),
        "virtual_addresses": [str(address) for address in balancer.virtual_addresses.values()],
        "peers": _peers(balancer, host),
    }


def _peers(balancer: LoadBalancerHosts, host: Host) -> list[str]:
    return [str(other.address) for other in balancer.hosts if other != host]


def router_id(virtual: IPv4Address) -> int:
    """1 to 255: the address's last number. It is the same whatever other addresses there are."""
    return int(virtual) % 256 or 255


def check(topology: Topology) -> list[Problem]:
    """Two machines tell their addresses apart by router identifiers, which a wide subnet may give twice."""
    problems = []
    for balancer in topology.load_balancers:
        taken: dict[int, str] = {}
        for cluster, virtual in balancer.virtual_addresses.items():
            path = key("clusters", cluster, "loadBalancer.virtualAddress")
            other = taken.setdefault(router_id(virtual), path)
            if other != path and len(balancer.hosts) > 1:
                problems.append(
                    Problem(
                        path,
                        f"{virtual} and {other} have the same last number, which is what VRRP tells them apart by",
                        "write an address whose last number is another one",
                    )
                )
    return problems
