"""`python -m docs.distributions`: writes docs/distributions.md, what was run of each host phase on each supported system.

`--check` writes nothing and exits 1 when the page differs from the file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from docs.generated import write

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs/distributions.md"
KERNEL = ROOT / "docs/kernel"
ROUNDS = ("first run", "second run", "after a reboot")
SYSTEMS = ("Debian 12", "Debian 13", "Ubuntu 22.04", "Ubuntu 24.04", "RHEL 9 family")

MACHINE, CONTAINER, TOOLS, STANDIN = "machine", "container", "tools", "stand-in"
WAYS = MappingProxyType(
    {
        MACHINE: "the whole phase on a virtual machine with the system's own kernel, in the rounds that are named: from nothing, "
        "again at once, after a reboot (`docs/kernel`, a page for each system, written by the run itself)",
        CONTAINER: "the whole phase, twice, in a booted container of the system (`tests/scripts/test_hosts.py`, `lab`)",
        TOOLS: "the phase's commands with the real programs (apt, rpm, dnf, NetworkManager, cloud-init, journald), as Debian "
        "packages them, in a root of their own; for the RHEL family not that family's builds",
        STANDIN: "the phase's branches with stand-ins for those programs",
    }
)


@dataclass(frozen=True)
class Proof:
    """How something was run, by which file, and what it leaves out."""

    way: str
    file: str
    about: str = ""


def _kernel(about: str = "") -> Proof:
    return Proof(MACHINE, "lab/kernel/phases.py", about)


def _container(about: str = "") -> Proof:
    return Proof(CONTAINER, "tests/scripts/test_hosts.py", about)


def _tools(file: str, about: str) -> Proof:
    return Proof(TOOLS, f"tests/scripts/{file}.py", about)


_DEBIAN = {"Debian 12": (_kernel(),), "Debian 13": (_kernel(),)}
_LAB = {"Debian 12": (Proof(CONTAINER, "components/cluster_nodes.py", "the lab deploys with a double of RKE2"),)}
PROOFS: Mapping[str, Mapping[str, tuple[Proof, ...]]] = MappingProxyType(
    {
        "hostkey": _DEBIAN,
        "preflight": {
            **_DEBIAN,
            "RHEL 9 family": (_tools("test_rhel_tools", "the system"), Proof(STANDIN, "tests/scripts/test_machines.py", "SELinux, nm-cloud-setup")),
        },
        "fleet": _DEBIAN,
        "prepare": {
            "Debian 12": (_kernel(), _container()),
            "Debian 13": (_kernel(), _tools("test_apt", "packages, locks, proxy")),
            "RHEL 9 family": (
                _tools("test_rpm", "packages, locks, proxy"),
                _tools("test_rhel_tools", "name servers, name, journal"),
            ),
        },
        "confirm": {"Debian 12": (_kernel(), _container()), "Debian 13": (_kernel(),)},
        "haproxy": {"Debian 12": (_kernel(), _container()), "Debian 13": (_kernel(),)},
        "keepalived": _DEBIAN,
        "nfs": {"Debian 12": (_kernel("the kernel's server"), _container("NFS-Ganesha")), "Debian 13": (_kernel("the kernel's server"),)},
        "gitlab": {
            "Debian 12": (_container("with a package made by the tests"),),
            "RHEL 9 family": (_tools("test_rpm", "with a package made by the tests"),),
        },
        "gitlab-tokens": {"Debian 12": (_container("with a double of GitLab"),)},
        "rke2": {
            "Debian 12": (_container("with a release made by the tests; in the lab with a double"),),
            "RHEL 9 family": (
                _tools("test_rhel_tools", "NetworkManager"),
                Proof(STANDIN, "tests/scripts/test_machines.py", "SELinux"),
            ),
        },
        "kubeconfig": _LAB,
        "node": _LAB,
        "account-keys": _LAB,
        "cluster-ca": _LAB,
    }
)

NEVER = (
    "Ubuntu 22.04 and 24.04: no phase was run there. Their branches are Debian's; package names, the AppArmor profile of chrony "
    "and versions (curl 7.81, apt 2.4) were read, not run.",
    "The RHEL 9 family: no phase was run whole, and no package of that family was installed. haproxy, keepalived, nfs, the "
    "firewall, the trust store, chrony, the Kubernetes node and everything behind systemd were never run there.",
    "SELinux in force, fapolicyd, firewalld as a service, nm-cloud-setup: no kernel or service of them was there. RKE2's policy "
    "package comes from its vendor's repository, which was never reached.",
    "RKE2, GitLab Omnibus, their installers and repositories themselves: doubles and packages made by the tests took their place.",
    "NFS-Ganesha on the RHEL family, which does not package it.",
)

HEAD = f"""\
# What was run on which system

Of each host phase (`scripts/`) and each supported system: on what it was run, and by which file. An empty cell: never.
`python -m docs.distributions` makes this page; a test holds every cell to a file that names the phase.

{chr(10).join(f"- **{way}**: {what}" for way, what in WAYS.items())}
"""


def page() -> str:
    """The text of docs/distributions.md."""
    lines = [HEAD, f"| phase | {' | '.join(SYSTEMS)} |", "|---" * (len(SYSTEMS) + 1) + "|"]
    for phase, cells in PROOFS.items():
        texts = (_cell(phase, system, cells.get(system, ())) for system in SYSTEMS)
        lines.append(f"| `{phase}` | {' | '.join(texts)} |")
    lines += ["", "## Never run", "", *(f"- {text}" for text in NEVER), ""]
    return "\n".join(lines)


def kernel_runs() -> Mapping[tuple[str, str], tuple[str, ...]]:
    """System and phase to the rounds in which the pages of docs/kernel say that it ended well on every machine that it was run on."""
    found: dict[tuple[str, str], list[str]] = {}
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(KERNEL.glob("*.md")))
    for system, phase, *outcomes in re.findall(r"^\| (debian-\d+) \| ([a-z-]+) \| \S+ \| (.*?) \| (.*?) \| (.*?) \| ", text, re.MULTILINE):
        well = [name for name, outcome in zip(ROUNDS, outcomes, strict=True) if outcome.strip() not in ("", "failed")]
        key = (system.replace("debian-", "Debian "), phase)
        found[key] = [name for name in found.get(key, well) if name in well]
    return {key: tuple(rounds) for key, rounds in found.items() if rounds}


def _cell(phase: str, system: str, proofs: Sequence[Proof]) -> str:
    """What was run; on virtual machines, only what their last run says."""
    rounds = kernel_runs().get((system, phase), ())
    return "; ".join(_text(proof, rounds) for proof in proofs if proof.way != MACHINE or rounds)


def _text(proof: Proof, rounds: Sequence[str]) -> str:
    about = [*([proof.about] if proof.about else ()), *(rounds if proof.way == MACHINE else ())]
    told = f" ({', '.join(about)})" if about else ""
    return f"{proof.way}{told}: `{proof.file}`"


if __name__ == "__main__":
    sys.exit(write("distributions", FILE, page(), __doc__, "docs/distributions.py"))
