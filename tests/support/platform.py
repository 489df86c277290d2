"""Settings, plans and whole stacks for the tests of components."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pulumi
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from components.host import Access, Host, HostArgs
from components.watchdog import Watchdog
from config.load import from_values
from config.model import Settings
from config.reference import overlay
from plan import hosts, media
from plan.plan import Plan
from stacks.outputs import outputs
from stacks.platform import deploy
from tests.config import material
from tests.support.planned import planned
from tests.support.stack import Answers, Recording, answers, run

DOMAIN = "devops.example.com"
ARCHITECTURES = ("standalone", "multicluster")
four_clusters = pytest.mark.toolchain
"""Of a test that records the deployment of multicluster: it takes ten seconds, which the quick tests have not."""
RECORDED = ("standalone", pytest.param("multicluster", marks=four_clusters))
"""The same, for tests that record their deployment."""


@cache
def ssh_key() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def settings_of(architecture: str = "standalone", changes: dict[str, Any] | None = None) -> Settings:
    """The least settings of `architecture`, with `changes` laid over them, by the names a user writes."""
    least = {"architecture": architecture, "domain": DOMAIN, "ssh": {"user": "ops", "privateKey": ssh_key()}}
    return from_values(overlay(least, changes or {}), "test")


def plan_of(architecture: str = "standalone", changes: dict[str, Any] | None = None) -> Plan:
    return planned(settings_of, architecture, changes or {})


def images() -> dict[str, Any]:
    """Changes that bring in Opstella's own services, which are licensed; nobody pulls these images."""
    return {
        "opstella": {
            part: {"image": f"registry.example.com/{part.lower()}:1.0.0"} for part in ("ui", "core", "clearSession")
        }
    }


def every_tool() -> dict[str, Any]:
    """Changes by which a stack carries each tool of the catalogue."""
    return images() | {"kubernetes": {"metricsServer": "catalogue"}}


def airgap() -> dict[str, Any]:
    """Changes that install everything from the user's own places."""
    files = media.required_artifacts(settings_of())
    return {
        "media": {
            "source": "airgap",
            "artifacts": "http://media.example.com/opstella",
            "sha256": {name: f"{number:064x}" for number, name in enumerate(files, 1)},
            "chartRepository": "https://charts.example.com",
        }
    }


def provided(folder: Path, architecture: str = "standalone") -> Plan:
    """A stack with the user's own certificate of `*.domain`, made in `folder`, and the chain above it."""
    names = material.make(folder)
    files = {"certificate": "leaf", "privateKey": "leaf_key", "chain": "chain"}
    tls = {key: f"file:{names[name]}" for key, name in files.items()}
    return plan_of(architecture, {"tls": {"source": "provided", **tls}})


def deployed(plan: Plan, *, preview: bool = False, answer: Answers = answers) -> Recording:
    """The whole program of `plan`."""

    def program() -> None:
        for name, value in outputs(plan, deploy(plan)).items():
            pulumi.export(name, value)

    return run(program, preview=preview, stack=plan.stack.partition("/")[2], answer=answer)


@cache
def reference(architecture: str, preview: bool = False) -> Recording:
    """The reference architecture as it stands, run once in a process: tests only read it."""
    return deployed(plan_of(architecture), preview=preview)


def access(plan: Plan, **changes: Any) -> Access:
    settings = plan.settings
    given: dict[str, Any] = {
        "user": settings.ssh.user,
        "private_key": pulumi.Output.secret(settings.ssh.private_key.get_secret_value()),
        "port": settings.ssh.port,
        "sudo": settings.ssh.sudo,
        "host_keys": settings.ssh.host_keys,
        "wait_seconds": settings.machines.wait_seconds,
        "watchdog": Watchdog("watchdog"),
    }
    return Access(**given | changes)


def met(plan: Plan, *names: str) -> dict[str, Host]:
    """`names` and the bastion after first contact; to be called inside a program."""
    way_in = access(plan)
    found: dict[str, Host] = {}
    planned = {host.name: host for host in plan.topology.hosts}
    for name in dict.fromkeys(("bastion", *names)):
        host = planned[name]
        found[name] = Host(
            f"host-{name}",
            HostArgs(
                host=host,
                access=way_in,
                preflight=hosts.preflight(host, plan.settings, plan.topology, plan.stack),
                bastion=found.get("bastion"),
            ),
        )
    return found
