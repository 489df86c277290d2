"""Hosts as nspawn machines: an overlay of the image, a network namespace, a real systemd and sshd."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from lab.hosts import kernel
from lab.hosts.kernel import KernelError, run
from lab.hosts.site import SERVICES_ADDRESS, Host, Names, Site

OPS_UID = 1000
"""User and group number of `ops` in the image: its first ordinary user."""

CAPABILITIES = "CAP_NET_ADMIN"
"""What a host may do beyond nspawn's default: its own addresses, routes and nftables."""

PARAMETERS = (
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/max_map_count",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "vm/swappiness",
)
"""Kernel parameters under /proc/sys that belong to the whole machine. Each host gets a plain file
of its own in their place: it can be set and read back, and changes nothing on the machine."""


class Machines:
    """Creates, starts, stops and looks at the hosts of one site."""

    def __init__(self, names: Names, site: Site, image: Path | None = None) -> None:
        self.names, self.site, self.image = names, site, image

    # --- places -----------------------------------------------------------------------------

    def folder(self, host: Host) -> Path:
        return Path(self.names.folder, "hosts", host.name)

    def root(self, host: Host) -> Path:
        return self.folder(host) / "root"

    def cgroup(self, host: Host) -> str:
        return f"{self.names.cgroup}/{host.name}"

    @property
    def key(self) -> Path:
        return Path(self.names.folder, "id_ed25519")

    # --- network ----------------------------------------------------------------------------

    def make_operator(self) -> None:
        """The operator's namespace: a bridge with the gateway address per subnet, and the services' address."""
        name = self.names.operator
        if name not in kernel.namespaces(name):
            run("ip", "netns", "add", name)
        present = {link["ifname"] for link in kernel.ip_json("-n", name, "link", "show")}
        # On the loopback interface: hosts reach it through their gateway, and not every kernel has dummies.
        lines = ["link set lo up", f"addr replace {SERVICES_ADDRESS}/32 dev lo"]
        for subnet in self.site.subnets:
            if subnet.bridge not in present:
                lines += [
                    f"link add {subnet.bridge} type bridge",
                    f"addr add {subnet.gateway} dev {subnet.bridge}",
                    f"link set {subnet.bridge} up",
                ]
        kernel.ip_batch(lines, name)
        run("ip", "netns", "exec", name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        folder = Path("/etc/netns", name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "resolv.conf").write_text(f"search {self.site.domain}\nnameserver {SERVICES_ADDRESS}\n")

    def make_network(self, host: Host) -> None:
        """The host's namespace with `eth0` on its subnet's bridge. Does nothing when it is there."""
        name, operator = self.names.namespace(host.name), self.names.operator
        if name in kernel.namespaces(name):
            present = {link["ifname"] for link in kernel.ip_json("-n", name, "link", "show")}
            if "eth0" in present:
                return
        else:
            run("ip", "netns", "add", name)
        subnet = self.site.subnet_of(host)
        kernel.ip_batch(
            [
                f"link add {host.link} type veth peer name eth0 netns {name}",
                f"link set {host.link} master {subnet.bridge}",
                f"link set {host.link} up",
            ],
            operator,
        )
        kernel.ip_batch(
            [
                "link set lo up",
                f"addr add {host.interface} dev eth0",
                "link set eth0 up",
                f"route add default via {subnet.gateway.ip}",
            ],
            name,
        )

    def set_link(self, host: Host, up: bool) -> None:
        """Plugs the host's network cable in, or pulls it out, on the bridge's side."""
        run("ip", "-n", self.names.operator, "link", "set", host.link, "up" if up else "down")

    def link_is_up(self, host: Host) -> bool:
        links = kernel.ip_json("-n", self.names.operator, "link", "show", "dev", host.link)
        return bool(links) and "UP" in links[0]["flags"]

    # --- disk -------------------------------------------------------------------------------

    def make_disk(self, host: Host) -> None:
        """Mounts the host's overlay; a new host also gets its name, SSH host key and resolver."""
        folder, root = self.folder(host), self.root(host)
        for part in ("upper", "work", "root", "data"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        if str(root) not in kernel.mounts_under(str(root)):
            if self.image is None:
                raise KernelError(f"host {host.name} has no disk: run lab/lab up")
            run(
                "mount", "-t", "overlay", f"{self.names.name}-{host.name}",
                "-o", f"lowerdir={self.image},upperdir={folder}/upper,workdir={folder}/work", str(root),
            )  # fmt: skip
        if (folder / "created").exists():
            return
        (root / "etc/hostname").write_text(f"{host.name}\n")
        (root / "etc/hosts").write_text(
            f"127.0.0.1\tlocalhost\n127.0.1.1\t{host.name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        )
        (root / "etc/resolv.conf").write_text(f"nameserver {SERVICES_ADDRESS}\n")
        # For the double of RKE2, whose nodes have the sizes of the plan: pods are placed as on machines of those.
        (root / "etc/opstella-lab").mkdir(exist_ok=True)
        (root / "etc/opstella-lab/size").write_text(f"{host.cpu} {host.memory_gb}\n")
        host_key = root / "etc/ssh/ssh_host_ed25519_key"
        host_key.unlink(missing_ok=True)
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(host_key))
        ssh = root / "home/ops/.ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(f"{self.key}.pub", ssh / "authorized_keys")
        for path in (ssh, ssh / "authorized_keys"):
            os.chown(path, OPS_UID, OPS_UID)
        (ssh / "authorized_keys").chmod(0o600)
        self._modules(root)
        (folder / "created").touch()

    def _modules(self, root: Path) -> None:
        """Lists what the machine's kernel has as built in, so that `modprobe` of it succeeds, and of the rest fails.

        A virtual machine brings its kernel's modules along; these hosts share the machine's kernel and may
        load nothing into it.
        """
        folder = root / "lib/modules" / os.uname().release
        folder.mkdir(parents=True, exist_ok=True)
        modules = sorted(p.name for p in Path("/sys/module").iterdir())
        (folder / "modules.builtin").write_text("".join(f"kernel/{name}.ko\n" for name in modules))
        for name in ("modules.order", "modules.builtin.modinfo"):
            (folder / name).touch()
        run("chroot", str(root), "depmod", os.uname().release)

    # --- running ----------------------------------------------------------------------------

    def pids(self, host: Host) -> list[int]:
        return kernel.cgroup_processes(self.cgroup(host))

    def leader(self, host: Host) -> int | None:
        """Process number, on the machine, of the host's systemd; None when it is not running."""
        for pid in self.pids(host):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            inner = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
            if len(inner) > 1 and inner[-1] == "1":
                return pid
        return None

    def start(self, host: Host) -> None:
        """Boots the host; returns at once, `wait` tells when it answers."""
        self.make_network(host)
        self.make_disk(host)
        kernel.spawn(
            [
                "systemd-nspawn", "--quiet", "--directory", str(self.root(host)), "--boot",
                f"--machine={self.names.namespace(host.name)}", f"--hostname={host.name}",
                "--register=no", "--keep-unit", "--console=pipe", "--link-journal=no", "--resolv-conf=off",
                "--timezone=off", f"--network-namespace-path=/run/netns/{self.names.namespace(host.name)}",
                f"--capability={CAPABILITIES}",
                # A data disk: an overlay gives no lasting file handles, so no NFS server can export it.
                f"--bind={self.folder(host)}/data:/srv",
                # An NFS server finds files again by their handles, which nspawn forbids by default.
                "--system-call-filter=open_by_handle_at",
            ],
            self.cgroup(host),
            str(self.folder(host) / "console.log"),
        )  # fmt: skip

    def stand_in_parameters(self, host: Host) -> None:
        """Puts files of the host's own in the place of the machine's kernel parameters (`PARAMETERS`).

        /proc/sys/net is the host's own already, by its network namespace: it only has to be writable.
        """
        leader = self.leader(host)
        if leader is None:
            return
        script = [
            "set -e",
            "mountpoint -q /proc/sys/net || mount --bind /proc/sys/net /proc/sys/net",
            "mount -o remount,bind,rw /proc/sys/net",
            "mkdir -p /run/sysctl-of-this-host",
        ]
        for parameter in PARAMETERS:
            source = Path("/proc/sys", parameter)
            if source.exists():
                copy = f"/run/sysctl-of-this-host/{parameter.replace('/', '.')}"
                script.append(f"[ -e {copy} ] || {{ echo {source.read_text().strip()} >{copy}; mount --bind {copy} {source}; }}")
        script.append("/lib/systemd/systemd-sysctl 2>/dev/null || true")
        run("nsenter", f"--target={leader}", "--mount", "--net", "--pid", "sh", "-c", "\n".join(script))

    def stop(self, host: Host) -> None:
        """Cuts the host's power; its disk and its place in the network stay."""
        left = kernel.kill_all([self.names.namespace(host.name)], self.cgroup(host))
        if left:
            raise KernelError(f"host {host.name}: processes {left} did not die")
        kernel.remove_cgroup(self.cgroup(host))

    def erase(self, host: Host) -> None:
        """Takes the host away, with its disk and its place in the network; `start` makes an empty one in its place."""
        self.stop(host)
        name, mounts = self.names.namespace(host.name), kernel.mounts_under(str(self.folder(host)))
        locks = kernel.nspawn_locks(mounts)
        kernel.unmount_under(str(self.folder(host)))
        if left := kernel.mounts_under(str(self.folder(host))):
            raise KernelError(f"host {host.name}: its disk is in use ({', '.join(left)}); `fuser -vm PATH` names by whom")
        for lock in locks:
            lock.unlink(missing_ok=True)
        if self.folder(host).exists():
            shutil.rmtree(self.folder(host))
        # What the kernel keeps for it (addresses, packet filter) goes with its namespace. Its cable would go some time
        # after it, and be in the way of the next one.
        if host.link in {link["ifname"] for link in kernel.ip_json("-n", self.names.operator, "link", "show")}:
            run("ip", "-n", self.names.operator, "link", "del", host.link)
        if name in kernel.namespaces(name):
            run("ip", "netns", "del", name)

    def execute(self, host: Host, command: list[str]) -> int:
        """Runs a command as root inside the host, as from its console; returns its exit status."""
        leader = self.leader(host)
        if leader is None:
            raise KernelError(f"host {host.name} is not running; start it: lab/lab start {host.name}")
        return subprocess.run(
            ["nsenter", f"--target={leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root",
             "env", "--chdir=/root", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
             f"TERM={os.environ.get('TERM', 'dumb')}", "LANG=C.UTF-8", *command],
            check=False,
        ).returncode  # fmt: skip

    def answering(self, hosts: list[Host]) -> set[str]:
        """Names of the hosts whose sshd greets a caller, asked all at once.

        The bastion is asked from the operator's namespace, the others with the bastion's address: once the
        stack is deployed, their firewalls let in nobody else.
        """
        bastion = self.site.bastion
        found: set[str] = set()
        for place, asked in (
            (self.names.operator, [h for h in hosts if h is bastion]),
            (self.names.namespace(bastion.name), [h for h in hosts if h is not bastion]),
        ):
            script = "\n".join(
                f"( exec 2>/dev/null; exec 3<>/dev/tcp/{h.address}/22 && IFS= read -r -t 2 line <&3"
                f' && [ "${{line#SSH-2.0}}" != "$line" ] && echo {h.name} ) &'
                for h in asked
            )
            if asked and place in kernel.namespaces(place):
                result = subprocess.run(
                    ["ip", "netns", "exec", place, "timeout", "5", "bash", "-c", script + "\nwait"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                found |= set(result.stdout.split())
        return found

    def wait(self, hosts: list[Host], seconds: float = 60) -> None:
        """Waits until every host answers SSH; raises with the names and consoles of those that do not."""
        end = time.monotonic() + seconds
        left = {h.name: h for h in hosts}
        while left:
            for name in self.answering(list(left.values())):
                del left[name]
            for host in left.values():
                if not self.pids(host):
                    console = self.folder(host) / "console.log"
                    tail = "\n".join(console.read_text(errors="replace").splitlines()[-15:])
                    raise KernelError(f"host {host.name} stopped while booting; the end of {console}:\n{tail}")
            if left and time.monotonic() > end:
                raise KernelError(
                    f"after {seconds:.0f} s no answer on port 22 of {', '.join(sorted(left))}; their consoles are "
                    f"{self.names.folder}/hosts/NAME/console.log"
                )
            if left:
                time.sleep(0.2)
        for host in hosts:
            self.stand_in_parameters(host)

    def host_key(self, host: Host) -> str:
        """The host's public SSH key, `ssh-ed25519 AAAA…`."""
        return " ".join((self.root(host) / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])

    def write_ssh_files(self) -> None:
        """`known_hosts` and an `ssh_config` by which every host is reached through the bastion."""
        folder = Path(self.names.folder)
        (folder / "known_hosts").write_text(
            "".join(f"{h.name},{h.address} {self.host_key(h)}\n" for h in self.site.hosts)
        )
        bastion = self.site.bastion
        lines = []
        for host in self.site.hosts:
            lines += [f"Host {host.name} {host.address}", f"  HostName {host.address}"]
            if host is not bastion:
                lines.append(f"  ProxyJump {bastion.name}")
        lines += [
            "Host *",
            "  User ops",
            f"  IdentityFile {self.key}",
            "  IdentitiesOnly yes",
            f"  UserKnownHostsFile {folder}/known_hosts",
            "  StrictHostKeyChecking yes",
        ]
        (folder / "ssh_config").write_text("\n".join(lines) + "\n")
