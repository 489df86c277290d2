"""Time: chrony as a client of the stack's time servers."""

from __future__ import annotations

from config.model import Time
from plan.contract.rule import Rule, need
from plan.endpoints import networks_of


def configuration(time: Time) -> str:
    """The text of chrony.conf."""
    servers = "".join(f"server {server} iburst\n" for server in time.servers)
    return (
        servers
        + "driftfile /var/lib/chrony/chrony.drift\n"
        + "ntsdumpdir /var/lib/chrony\n"
        # Step only at the start: a running etcd must not see time jump.
        + "makestep 1.0 3\nrtcsync\n"
        # Nobody asks this host for the time, and chronyc works over its socket.
        + "port 0\ncmdport 0\n"
    )


def flows(time: Time) -> tuple[Rule, ...]:
    """What every machine opens to the time servers."""
    return (
        need(
            "chrony", "all", "outside", (123,), "time", "clocks follow the time servers",
            protocols=("udp",), networks=networks_of(time.servers),
        ),
    )  # fmt: skip
