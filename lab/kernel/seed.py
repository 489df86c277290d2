"""What a machine finds at its first boot: its name, its address, its user, as a second disk.

Either cloud-init's disc as hypervisors make it, or, quicker by minutes in emulation, an archive that seed.sh unpacks.
As Proxmox and OpenStack do it, cloud-init is also told to keep host name and /etc/hosts its own at every boot.
"""

from __future__ import annotations

import io
import json
import tarfile
from ipaddress import IPv4Address
from pathlib import Path

from lab.kernel.network import run
from plan.topology import Host


def first_name(host: Host) -> str:
    """Another name than the plan's, which the phase `prepare` sets."""
    return f"fresh-{host.name}"


def cloud_init(host: Host, mac: str, gateway: IPv4Address, public_key: str) -> dict[str, str]:
    """The three files of the NoCloud data source, by name. JSON is YAML too."""
    user = {
        "name": "ops",
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": [public_key.strip()],
    }
    data = {"hostname": first_name(host), "manage_etc_hosts": True, "users": [user], "ssh_pwauth": False}
    card = {"match": {"macaddress": mac}, "addresses": [f"{host.address}/24"], "gateway4": str(gateway)}
    return {
        "meta-data": json.dumps({"instance-id": first_name(host), "local-hostname": first_name(host)}),
        "user-data": "#cloud-config\n" + json.dumps(data),
        "network-config": json.dumps({"version": 2, "ethernets": {"lan": card}}),
    }


def archive(host: Host, mac: str, gateway: IPv4Address, public_key: str, host_key: tuple[str, str]) -> dict[str, str]:
    """The same for seed.sh: files by their path. `host_key` is the private and the public one."""
    network = f"[Match]\nMACAddress={mac}\n[Network]\nAddress={host.address}/24\nGateway={gateway}\n"
    private, public = host_key
    return {
        "etc/hostname": f"{first_name(host)}\n",
        "etc/hosts": f"127.0.0.1\tlocalhost\n127.0.1.1\t{first_name(host)}\n",
        "etc/systemd/network/10-lan.network": network,
        "etc/ssh/ssh_host_ed25519_key": private,
        "etc/ssh/ssh_host_ed25519_key.pub": public,
        "home/ops/.ssh/authorized_keys": public_key,
        "var/lib/systemd/linger/ops": "",  # or each SSH session would start and stop the user's manager, for seconds
    }


def write(folder: Path, host: Host, mac: str, gateway: IPv4Address, public_key: str, *, by_cloud_init: bool) -> Path:
    """The disk of `host` as an image in `folder`; returns its file."""
    if by_cloud_init:
        source = folder / f"{host.name}.seed"
        source.mkdir()
        for name, text in cloud_init(host, mac, gateway, public_key).items():
            (source / name).write_text(text)
        disk = folder / f"{host.name}.iso"
        run("genisoimage", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-output", str(disk), str(source))
        return disk
    key = folder / f"{host.name}.hostkey"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key))
    files = archive(host, mac, gateway, public_key, (key.read_text(), key.with_suffix(".hostkey.pub").read_text()))
    disk = folder / f"{host.name}.tar"
    with tarfile.open(disk, "w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o600 if name.endswith(("key", "keys")) else 0o644
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    with disk.open("ab") as tail:  # a disk is a whole number of sectors
        tail.write(b"\0" * (-disk.stat().st_size % 512 + 4096))
    return disk
