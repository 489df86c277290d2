#!/bin/sh
# Installs the double of RKE2 from a folder of artifacts. It keeps the contract
# of RKE2's own install.sh for that method (tar, INSTALL_RKE2_ARTIFACT_PATH) and
# refuses the methods that need the internet.
#
#   INSTALL_RKE2_ARTIFACT_PATH   folder with rke2.linux-amd64.tar.gz and
#                                sha256sum-amd64.txt; image tarballs named
#                                rke2-images.linux-amd64.tar.{zst,gz} are staged
#                                too, split ones (-core, -calico …) are not
#   INSTALL_RKE2_TYPE            server (default) or agent
#   INSTALL_RKE2_EXEC            the same, by K3s' name
#   INSTALL_RKE2_METHOD          tar (default), nothing else
#   INSTALL_RKE2_TAR_PREFIX      /usr/local (default; /opt/rke2 if that is a
#                                mount point or read-only)
#   INSTALL_RKE2_AGENT_IMAGES_DIR  /var/lib/rancher/rke2/agent/images (default)
#   INSTALL_RKE2_SKIP_RELOAD     when set, systemd is not reloaded
set -e

info() { echo "[INFO]  $*"; }
fatal() {
    echo "[ERROR] $*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fatal "You need to be root to perform this install"
case $(uname -m) in
    x86_64 | amd64) suffix=linux-amd64 arch=amd64 ;;
    *) fatal "unsupported architecture $(uname -m)" ;;
esac
type=${INSTALL_RKE2_TYPE:-${INSTALL_RKE2_EXEC:-server}}
case $type in
    server | agent) ;;
    *) fatal "INSTALL_RKE2_TYPE is $type, it must be server or agent" ;;
esac
case ${INSTALL_RKE2_METHOD:-tar} in
    tar) ;;
    *) fatal "INSTALL_RKE2_METHOD is $INSTALL_RKE2_METHOD; these artifacts install by tar only" ;;
esac
path=${INSTALL_RKE2_ARTIFACT_PATH:-}
[ -n "$path" ] || fatal "INSTALL_RKE2_ARTIFACT_PATH is not set; this is the double of RKE2 and downloads nothing"
prefix=${INSTALL_RKE2_TAR_PREFIX:-}
if [ -z "$prefix" ]; then
    prefix=/usr/local
    if mountpoint -q "$prefix" || ! touch "$prefix/.rke2-ro-test" 2>/dev/null; then
        prefix=/opt/rke2
    fi
    rm -f /usr/local/.rke2-ro-test 2>/dev/null || true
fi
images=${INSTALL_RKE2_AGENT_IMAGES_DIR:-/var/lib/rancher/rke2/agent/images}

# expected FILE: the digest that the checksum list gives for it.
expected() { awk -v name="$1" '$2 == name || $2 == "*" name { print $1 }' "$path/sha256sum-$arch.txt"; }

# verify FILE: refuses a file that is missing, unlisted or different.
verify() {
    [ -f "$path/$1" ] || fatal "$path/$1 is missing"
    want=$(expected "$1")
    [ -n "$want" ] || fatal "$path/sha256sum-$arch.txt has no line for $1"
    got=$(sha256sum "$path/$1" | awk '{ print $1 }')
    [ "$want" = "$got" ] || fatal "download sha256 does not match for $1: expected $want, got $got"
}

[ -f "$path/sha256sum-$arch.txt" ] || fatal "$path/sha256sum-$arch.txt is missing"
info "staging local checksums from $path/sha256sum-$arch.txt"
for form in zst gz; do
    if [ -f "$path/rke2-images.$suffix.tar.$form" ]; then
        verify "rke2-images.$suffix.tar.$form"
        mkdir -p "$images"
        info "installing airgap tarball to $images"
        cp -f "$path/rke2-images.$suffix.tar.$form" "$images/"
        break
    fi
done
info "verifying tarball"
verify "rke2.$suffix.tar.gz"
info "unpacking tarball file to $prefix"
mkdir -p "$prefix"
tar -xzf "$path/rke2.$suffix.tar.gz" -C "$prefix"
if [ "$prefix" != /usr/local ]; then
    sed -i "s|/usr/local|$prefix|g" "$prefix"/lib/systemd/system/rke2-*.service "$prefix/bin/rke2-uninstall.sh"
    mv -f "$prefix"/lib/systemd/system/rke2-*.service /etc/systemd/system/
fi
if [ -z "${INSTALL_RKE2_SKIP_RELOAD:-}" ]; then
    systemctl daemon-reload
fi
