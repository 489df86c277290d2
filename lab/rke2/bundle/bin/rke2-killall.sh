#!/bin/sh
# Double of RKE2 for the lab: ends all that the services started.
set -u

if [ "$(id -u)" -ne 0 ]; then
    echo "$(basename "$0"): must be run as root" >&2
    exit 1
fi
RKE2_DATA_DIR=${RKE2_DATA_DIR:-/var/lib/rancher/rke2}

if command -v systemctl >/dev/null 2>&1; then
    systemctl stop rke2-server.service rke2-agent.service 2>/dev/null || true
fi

# The services end their children; this is for what a crash may have left.
left() {
    for exe in /proc/[0-9]*/exe; do
        program=$(readlink "$exe" 2>/dev/null) || continue
        case $program in
            "$RKE2_DATA_DIR"/data/*) pid=${exe%/exe}; echo "${pid#/proc/}" ;;
        esac
    done
}
for signal in TERM KILL; do
    for pid in $(left); do
        kill -s "$signal" "$pid" 2>/dev/null || true
    done
    if [ -z "$(left)" ]; then
        break
    fi
    sleep 1
done
exit 0
