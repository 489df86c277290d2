#!/usr/bin/env bash
# Makes what a virtual machine boots from: a disk (ext4, no partition table), the release's own kernel, its initrd.
#
#   system.sh RELEASE OUT        writes OUT/disk.ext4, OUT/vmlinuz, OUT/initrd.img; needs root, no loop device
#   system.sh RELEASE --inputs   prints what the result depends on
#
# A plain server: systemd, sshd, AppArmor, cloud-init, a swap file. Nobody can log in before cloud-init has read who, or,
# where the kernel's command line switches that off (it takes minutes in emulation), before seed.sh has unpacked the
# second disk. Packages marked `later` are not installed: they lie in /opt/packages, the only apt source.
set -euo pipefail
release=${1:?usage: lab/kernel/system.sh RELEASE OUT}
room=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ "${2:-}" = --inputs ]; then
  printf '%s\n' lab/kernel/system.sh lab/kernel/seed.sh lab/kernel/packages lab/image/packages lab/image/mirror.sh "$release"
  exit 0
fi
out=$(realpath "${2:?usage: lab/kernel/system.sh RELEASE OUT, where OUT is an empty folder}")
if [ "$(id -u)" != 0 ]; then
  echo "lab/kernel: building a root file system needs root; run it as root." >&2
  exit 1
fi
for tool in debootstrap mkfs.ext4 dpkg-deb; do
  command -v "$tool" >/dev/null || { echo "lab/kernel: $tool is missing; run: lab/toolchain/setup" >&2; exit 1; }
done
# shellcheck source=lab/image/mirror.sh disable=SC1091
source "$room/../image/mirror.sh"
mirror=$(debian_mirror)

# named FILE [later]: the packages of FILE, those marked `later` or those that are not. In Debian 12 systemd holds
# systemd-resolved.
named() {
  sed -e 's/#.*//' "$1" | awk -v want="${2:-}" 'NF && $2 == want { print $1 }' |
    if [ "$release" = bookworm ]; then grep -vx systemd-resolved; else cat; fi
}
mapfile -t first < <({ named "$room/../image/packages"; named "$room/packages"; } | sort -u)
mapfile -t later < <(named "$room/packages" later)
root=$out/root

echo "machine: debootstrap $release from $mirror" >&2
if ! debootstrap --variant=minbase "$release" "$root" "$mirror" >"$out/log" 2>&1; then
  tail -n 20 "$out/log" >&2
  echo "lab/kernel: debootstrap failed, see above" >&2
  exit 1
fi
rm -f "$out/log"

echo "machine: apt-get install" >&2
within() { chroot "$root" env DEBIAN_FRONTEND=noninteractive "$@"; }
mount -t proc proc "$root/proc"
trap 'umount "$root/proc"' EXIT
cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
printf 'deb %s %s main\n' "$mirror" "$release" >"$root/etc/apt/sources.list"
apt-config dump --format '%f "%v";%n' Acquire::http::Proxy >"$root/etc/apt/apt.conf.d/01build"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # nothing is started here
chmod 0755 "$root/usr/sbin/policy-rc.d"
within apt-get -q update >&2
within apt-get -q -y --no-install-recommends install "${first[@]}" >&2
# The repository of what the phases install, made by apt itself in there: dependencies are the release's.
rm -f "$root"/var/cache/apt/archives/*.deb
within apt-get -q -y --no-install-recommends --download-only install "${later[@]}" >&2
rm -f "$root/usr/sbin/policy-rc.d"
install -d "$root/opt/packages"
for file in "$root"/var/cache/apt/archives/*.deb; do
  name=$(basename "$file")
  name=${name//%3a/_}
  mv "$file" "$root/opt/packages/$name"
  dpkg-deb --field "$root/opt/packages/$name" | grep -v '^[[:space:]]*$'
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$name" "$(stat -c %s "$root/opt/packages/$name")" \
    "$(sha256sum "$root/opt/packages/$name" | cut -d' ' -f1)"
done >"$root/opt/packages/Packages"
rm -f "$root/etc/apt/apt.conf.d/01build"
printf 'deb [trusted=yes] file:/opt/packages ./\n' >"$root/etc/apt/sources.list"
printf 'Acquire::Languages "none";\n' >"$root/etc/apt/apt.conf.d/90lab"

# As a new machine: no identity yet, swap on, the disk grows to nothing (it is as large as it will be).
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root"/etc/ssh/ssh_host_*_key* "$root/etc/hostname" "$root/etc/resolv.conf"
printf '127.0.0.1\tlocalhost\n' >"$root/etc/hosts"
head -c 64M /dev/urandom >"$root/swapfile" # random: the copy below leaves holes for zeros, and swap wants none
chmod 0600 "$root/swapfile"
mkswap "$root/swapfile" >/dev/null
printf '/dev/vda / ext4 errors=remount-ro 0 1\n/swapfile none swap sw 0 0\n' >"$root/etc/fstab"
install -m 0755 "$room/seed.sh" "$root/usr/local/sbin/seed"
cat >"$root/etc/systemd/system/seed.service" <<'UNIT'
[Unit]
Description=First boot without cloud-init: name, network, user, host key
DefaultDependencies=no
ConditionKernelCommandLine=cloud-init=disabled
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
After=systemd-remount-fs.service
Before=network-pre.target systemd-networkd.service ssh.service
Wants=network-pre.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/seed /dev/vdb
[Install]
WantedBy=sysinit.target
UNIT
chroot "$root" systemctl enable --quiet ssh.service systemd-networkd.service seed.service
# What only costs time in emulation.
chroot "$root" systemctl mask --quiet e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer man-db.timer \
  systemd-networkd-wait-online.service 2>/dev/null
# Where cloud-init looks: the disk with the seed, and nowhere else.
printf 'datasource_list: [NoCloud]\n' >"$root/etc/cloud/cloud.cfg.d/10-seed.cfg"
printf 'virtio_blk\nvirtio_net\nvirtio_pci\next4\n' >"$root/etc/initramfs-tools/modules"
sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
within update-initramfs -u -k all >&2
trap - EXIT
umount "$root/proc"

cp --dereference "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp --dereference "$root"/boot/initrd.img-* "$out/initrd.img"
rm -rf "${root:?}"/boot/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{man,doc,locale} "$root"/tmp/* "$root/debootstrap"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
mkfs.ext4 -q -L root -d "$root" "$out/disk.ext4" 3G
rm -rf "$root"
