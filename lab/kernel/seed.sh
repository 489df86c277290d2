#!/bin/sh
# The first boot of a machine without cloud-init: user `ops` with sudo, and the files of the archive on the disk $1.
set -eu
useradd --create-home --shell /bin/bash ops
printf 'ops ALL=(ALL) NOPASSWD:ALL\n' >/etc/sudoers.d/ops
chmod 0440 /etc/sudoers.d/ops
tar -x -f "$1" -C /
chown -R ops:ops /home/ops
hostname -F /etc/hostname
