"""What only a real kernel shows, looked at from outside of the scripts: after the first runs, and after a reboot."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator

from lab.kernel.machine import Machine, MachineError
from lab.kernel.phases import Phases
from lab.kernel.site import VIRTUAL
from plan import hosts, nfs

_MOUNT = "/mnt/share"
Check = Callable[[], None]


class Checks:
    """Checks over the machines of `phases`; each raises MachineError with what is wrong."""

    def __init__(self, phases: Phases) -> None:
        self.phases, self.plan = phases, phases.plan
        (self.cluster,) = phases.plan.topology.clusters

    def run(self, round: str) -> None:
        for name, machine, check in self._all():
            began, fault = time.monotonic(), ""
            try:
                check()
            except (MachineError, subprocess.TimeoutExpired) as error:
                fault = str(error)
            self.phases.report.check(self.phases.system, name, machine.host.name, round, time.monotonic() - began, fault)

    def _all(self) -> Iterator[tuple[str, Machine, Check]]:
        for machine in self.phases.machines:
            yield "AppArmor", machine, lambda m=machine: self.confined(m)
            yield "time", machine, lambda m=machine: self.synchronised(m)
            yield "name", machine, lambda m=machine: self.named(m)
            yield "packet filter", machine, lambda m=machine: self.filtered(m)
        worker, server = self.phases.of(self.cluster.workers[0]), self.phases.of(self.cluster.nfs)
        if worker:
            yield "kernel for RKE2", worker, lambda: self.kernel(worker)
        if worker and server:
            yield "NFS", worker, lambda: self.mounted(worker, server)
        balancers = [m for host in self.cluster.load_balancers if (m := self.phases.of(host))]
        if len(balancers) > 1:
            yield "virtual address", balancers[0], lambda: self.taken_over(balancers)
        where = server or self.phases.bastion
        yield "foreign packet filter", where, lambda: self.foreign_filter(where)

    # ---- each machine

    def confined(self, machine: Machine) -> None:
        """chronyd runs confined, and nothing was denied."""
        profiles = machine.shell("cat /sys/kernel/security/apparmor/profiles")
        if not re.search(r"chronyd \(enforce\)", profiles):
            raise MachineError("chronyd's profile is not enforced")
        denied = machine.shell("journalctl -k -b --no-pager | grep -F 'apparmor=\"DENIED\"' || true").strip()
        if denied:
            raise MachineError(f"denied: {denied.splitlines()[0]} ({len(denied.splitlines())} lines)")

    def synchronised(self, machine: Machine) -> None:
        """chronyd has the time of the server that the plan names, to less than a second."""
        said = machine.shell("chronyc waitsync 90 1.0 0 2 || true; chronyc -c tracking; chronyc -c -n sources; date +%s.%N", seconds=400)
        now = time.time()
        if not re.search(rf"^\^,\*,{re.escape(self.plan.settings.time.servers[0])},", said, re.MULTILINE):
            raise MachineError(f"no source is selected: {said!r}")
        if abs(float(said.split()[-1]) - now) > 15:  # the answer's way back through an emulated SSH is part of it
            raise MachineError(f"the clock is {float(said.split()[-1]) - now:.1f} s off")

    def named(self, machine: Machine) -> None:
        """Host name and /etc/hosts are the plan's, whatever cloud-init was told."""
        name = machine.host.name
        found = machine.shell("hostname; cat /etc/hostname").split()
        if found != [name, name]:
            raise MachineError(f"the host is called {found}, not {name}")
        planned = hosts.hosts_file(machine.host, self.plan.settings, self.plan.topology).split("\n")
        missing = [line for line in planned if line and line not in machine.shell("cat /etc/hosts").splitlines()]
        if missing:
            raise MachineError(f"/etc/hosts lacks {missing}")

    def filtered(self, machine: Machine) -> None:
        """From the operator's place: SSH to the bastion and the balancer's port 80 only."""
        expected = {"bastion": {22}, "haproxy": {80}}.get(machine.host.role, set())
        probed = {22, 80, 111, nfs.NFSD}
        found = {port for port in probed if self._connects(machine, str(machine.host.address), port)}
        if found != expected:
            raise MachineError(f"ports {sorted(found)} answer the operator, {sorted(expected)} should")

    def _connects(self, machine: Machine, address: str, port: int) -> bool:
        knock = ["timeout", "5", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
        return subprocess.run([*machine.network.within, *knock], capture_output=True, check=False).returncode == 0

    # ---- a worker

    def kernel(self, machine: Machine) -> None:
        """Modules are loaded, sysctls set, swap is off."""
        values = hosts.prepare(machine.host, self.plan.contract, self.plan.stack)
        if len(machine.shell("cat /proc/swaps").splitlines()) > 1:
            raise MachineError("swap is on")
        for module in values["modules"]:  # type: ignore[union-attr]
            machine.shell(f"test -d /sys/module/{module}")
        for line in str(values["sysctl"]).splitlines():
            name, _, wanted = (part.strip() for part in line.partition("="))
            if (found := machine.shell(f"sysctl -n {name}").strip()) != wanted:
                raise MachineError(f"{name} is {found}, not {wanted}")

    def mounted(self, worker: Machine, server: Machine) -> None:
        """A mount as the CSI driver makes it: writing, a lock that the server knows of, and fsGroup's rights.

        The kubelet gives a volume's folder to the group and sets its set-gid bit; a pod's process has the group as a
        further one. Whether the server knows the user by another name must not matter: 1000 is its own `ops`.
        """
        path = self.cluster.settings.nfs.path
        worker.shell(
            f"mkdir -p {_MOUNT}; mountpoint -q {_MOUNT} || "
            f"timeout 120 mount -t nfs4 -o nfsvers=4.1,hard {server.host.address}:{path} {_MOUNT}\n"
            f"cd {_MOUNT}; rm -rf volume; mkdir volume; cd volume; echo kept >file; test $(cat file) = kept\n"
            "chown -R root:1001 .; chmod -R g+rwX .; chmod g+s ."
        )
        try:
            for user in (1001, 1000):
                worker.shell(
                    f"cd {_MOUNT}/volume; setpriv --reuid {user} --regid 3000 --groups 1001 sh -ec 'echo more >>file; echo x >of-{user}'\n"
                    f"test $(stat -c %g of-{user}) = 1001"
                )
            worker.shell(f"cd {_MOUNT}/volume; (flock -n 9; sleep 60) 9>lock >/dev/null 2>&1 & sleep 3; ! flock -n {_MOUNT}/volume/lock true")
            locks = server.shell("cat /proc/fs/nfsd/clients/*/states")
            if "type: lock" not in locks:
                raise MachineError(f"the server knows of no lock: {locks}")
        finally:
            worker.shell(f"cd /; pkill -x flock || true; umount -f -l {_MOUNT}", check=False)

    # ---- load balancers

    def taken_over(self, balancers: list[Machine]) -> None:
        """One holds the virtual address; the other takes it when HAProxy stops there, and keeps it."""
        holder = self._holder(balancers)
        other = next(m for m in balancers if m is not holder)
        holder.shell("systemctl stop haproxy")
        try:
            self._holder(balancers, wanted=other)
            if not self._connects(other, VIRTUAL, 80):
                raise MachineError("the virtual address does not answer after it moved")
        finally:
            holder.shell("systemctl start haproxy")
        time.sleep(10)
        if self._holder(balancers) is not other:
            raise MachineError("the virtual address went back by itself")

    def _holder(self, balancers: list[Machine], wanted: Machine | None = None, seconds: float = 120) -> Machine:
        end = time.monotonic() + seconds
        while True:
            found = [m for m in balancers if m.shell(f"ip -4 -o addr show to {VIRTUAL}/32").strip()]
            if len(found) == 1 and wanted in (None, found[0]):
                return found[0]
            if time.monotonic() > end:
                raise MachineError(f"the virtual address is held by {[m.host.name for m in found]}")
            time.sleep(2)

    # ---- preflight

    def foreign_filter(self, machine: Machine) -> None:
        """A packet filter of somebody else's that drops what the plan lets in is refused before anything is changed."""
        machine.shell(
            "nft -f - <<'X'\ntable inet foreign {\n chain input {\n  type filter hook input priority 0; policy drop;\n"
            "  ct state established,related accept\n  tcp dport 22 accept\n }\n}\nX"
        )
        try:
            done = machine.send("preflight", self.phases.preflight(machine))
        finally:
            machine.shell("nft delete table inet foreign")
        if done.status == 0:
            raise MachineError("preflight accepts a table that drops everything")
        if "foreign" not in done.stderr:
            raise MachineError(f"preflight does not name the table: {done.stderr.strip()}")


