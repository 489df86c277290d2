"""`python -m lab.kernel`: boots the machines, runs every phase thrice, looks, writes a page for each system when asked to.

    python -m lab.kernel                          Debian 12 and Debian 13, one after the other
    python -m lab.kernel --system debian-12 --machines bastion,nfs,worker-1
    python -m lab.kernel --write docs/kernel

Ends with 1 when a phase or check failed, or when a later run changed anything. Needs root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lab.kernel import site
from lab.kernel.checks import Checks
from lab.kernel.machine import Machine, MachineError, new_key
from lab.kernel.network import Network, NetworkError, run
from lab.kernel.phases import Phases
from lab.kernel.report import Report, page

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = ("debian-12", "debian-13")
NOT_RUN = {
    "rke2, rke2-remove, node, node-remove, kubeconfig, account-keys, cluster-ca": "they need RKE2, which is not to be had here; its double needs no kernel",
    "gitlab, gitlab-tokens": "they need GitLab's package; its double needs no kernel",
    "nfs by NFS-Ganesha": "user space: tests/scripts runs it in a container",
    "RHEL family, Ubuntu": "no packages of theirs are to be had here",
    "cloud-init on all machines": "on the worker only: it takes minutes of each boot in emulation",
}
_PACKAGES = "--no-install-recommends qemu-system-x86 genisoimage chrony openssh-client debootstrap"
_TOOLS = ("qemu-system-x86_64", "genisoimage", "chronyd", "ssh-keyscan")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="lab.kernel", description="host phases on virtual machines with kernels of their own")
    parser.add_argument("--system", action="append", choices=SYSTEMS, help="default: all")
    parser.add_argument("--machines", help="names, separated by commas; the bastion always (default: all five)")
    parser.add_argument("--cloud-init", default="worker-1", help="the machine that cloud-init sets up (default: worker-1; none: no machine)")
    parser.add_argument("--together", action="store_true", help="boot the machines side by side")
    parser.add_argument("--write", type=Path, help="the folder of the pages, SYSTEM.md")
    options = parser.parse_args(arguments)
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if os.geteuid() or missing:
        what = f"missing: {', '.join(missing)}; apt-get install {_PACKAGES}" if missing else "it needs root: run it as root"
        print(f"lab.kernel: {what}", file=sys.stderr)
        return 1
    if options.write:  # before the hour that would be lost
        options.write.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    faults = [fault for system in options.system or SYSTEMS for fault in proven(system, options)]
    return 1 if faults else 0


def proven(system: str, options: argparse.Namespace) -> list[str]:
    """Runs one system and returns its faults. The report is printed and written even when the run breaks."""
    report = Report()
    try:
        image = Path(run(str(ROOT / "lab/toolchain/build"), f"machine-{system}", seconds=3600).strip())
        one_system(system, image, options, report)
    except (MachineError, NetworkError, subprocess.TimeoutExpired) as error:
        report.faults.append(f"{system}: {error}")
    except (SystemExit, KeyboardInterrupt):
        report.faults.append("the run was ended before its end: what has no result was not run")
        raise
    finally:
        if options.write:
            text = page(report, time.strftime("%Y-%m-%d", time.gmtime()), NOT_RUN)
            (options.write / f"{system}.md").write_text(text)
        print("\n".join(["", *report.lines(), "", *(f"fault: {fault}" for fault in report.faults)]))
    return report.faults


def one_system(system: str, image: Path, options: argparse.Namespace, report: Report) -> None:
    """All rounds on machines of one system, which are powered off at the end, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="opstella-kernel-") as path, Network(Path(path)) as network:
        folder = Path(path)
        key = new_key(folder)
        plan = site.plan(key)
        wanted = set(options.machines.split(",")) if options.machines else None
        planned = site.machines(plan)
        machines: list[Machine] = []
        for number, host in enumerate(planned, 1):
            if wanted is None or host == planned[0] or host.name in wanted:
                machines.append(
                    Machine(
                        host, folder, image, network, key, folder / "known_hosts",
                        bastion=machines[0] if machines else None, number=number,
                        by_cloud_init=host.name == options.cloud_init, seconds_ahead=12 if host.role == "nfs" else 0,
                    )
                )  # fmt: skip
        phases = Phases(plan, machines, authority(folder), report, system)
        for machine in machines:
            machine.start()
            if not options.together:  # one boot at a time leaves a busy machine usable
                machine.wait_for_port()
        for machine in machines:
            machine.wait_for_port()
        phases.run("first")
        report.systems[system] = machines[0].shell(". /etc/os-release; echo $PRETTY_NAME, kernel $(uname -r)").strip()
        checks = Checks(phases)
        checks.run("first")
        phases.run("second")
        for machine in machines:
            machine.reboot()
        phases.run("reboot")
        checks.run("reboot")


def authority(folder: Path) -> str:
    """A certificate authority for the machines' trust stores (PEM)."""
    files = ["-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.pem")]
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kernel", "-days", "2", *files)
    return (folder / "ca.pem").read_text()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
