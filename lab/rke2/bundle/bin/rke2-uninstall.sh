#!/bin/sh
# Double of RKE2 for the lab: removes the installation and all state.
set -u

if [ "$(id -u)" -ne 0 ]; then
    echo "$(basename "$0"): must be run as root" >&2
    exit 1
fi
RKE2_DATA_DIR=${RKE2_DATA_DIR:-/var/lib/rancher/rke2}
INSTALL_RKE2_ROOT=${INSTALL_RKE2_ROOT:-/usr/local}

"$(dirname "$0")/rke2-killall.sh" || exit 1
if command -v systemctl >/dev/null 2>&1; then
    systemctl disable rke2-server rke2-agent >/dev/null 2>&1 || true
fi
rm -f "$INSTALL_RKE2_ROOT"/lib/systemd/system/rke2-server.service "$INSTALL_RKE2_ROOT"/lib/systemd/system/rke2-agent.service \
    "$INSTALL_RKE2_ROOT"/lib/systemd/system/rke2-server.env "$INSTALL_RKE2_ROOT"/lib/systemd/system/rke2-agent.env \
    /etc/systemd/system/rke2-server.service /etc/systemd/system/rke2-agent.service \
    "$INSTALL_RKE2_ROOT/bin/rke2" "$INSTALL_RKE2_ROOT/bin/rke2-killall.sh"
rm -rf "$INSTALL_RKE2_ROOT/share/rke2" /etc/rancher/rke2 /etc/rancher/node /var/lib/kubelet "$RKE2_DATA_DIR"
rmdir /etc/rancher /var/lib/rancher 2>/dev/null || true
if command -v systemctl >/dev/null 2>&1; then
    systemctl daemon-reload
    systemctl reset-failed rke2-server rke2-agent >/dev/null 2>&1 || true
fi
rm -f "$INSTALL_RKE2_ROOT/bin/rke2-uninstall.sh"
echo "Cleanup completed successfully"
