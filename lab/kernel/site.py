"""The stack that the machines are of: the product's own plan, from settings as a user writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config.load import from_values
from config.model import Settings
from lab.kernel.network import MEDIA_PORT, SERVICES
from plan import media
from plan.plan import Plan, build
from plan.topology import Host

STACK = "opstella/kernel"
VIRTUAL = "192.168.72.10"
_MEDIA = f"http://{SERVICES}:{MEDIA_PORT}"


def settings(key: Path) -> Settings:
    """Standalone with two load balancers, in an air gap. `key` is the private SSH key's file.

    The media's sums are never compared: the phases that fetch them are not run here.
    """
    written: dict[str, Any] = {
        "architecture": "standalone",
        "domain": "kernel.example.com",
        "ssh": {"user": "ops", "privateKey": f"file:{key}"},
        "machines": {"sizeCheck": "warning"},  # those of the emulation are small
        "time": {"servers": [str(SERVICES)]},
        "clusters": {
            "standalone": {
                "loadBalancer": {"count": 2, "virtualAddress": VIRTUAL, "addresses": ["192.168.72.12", "192.168.72.9"]}
            }
        },
    }
    files = media.required_artifacts(from_values(written, "kernel"))
    written["media"] = {
        "source": "airgap",
        "artifacts": _MEDIA,
        "chartRepository": f"{_MEDIA}/charts",
        "registryMirror": f"http://{SERVICES}:5000",
        "allowHttp": True,
        "sha256": dict.fromkeys(files, "0" * 64),
    }
    return from_values(written, "kernel")


def plan(key: Path) -> Plan:
    return build(settings(key), STACK)


def machines(plan: Plan) -> tuple[Host, ...]:
    """Those of the stack that are booted: the bastion first, then one of each role whose phases need no RKE2 or GitLab,
    and the second load balancer."""
    (cluster,) = plan.topology.clusters
    return (plan.topology.bastion, *cluster.load_balancers, cluster.nfs, cluster.workers[0])
