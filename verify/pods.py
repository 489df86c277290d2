"""What a pod that no policy covers reaches of the machines: asked by packets, from a namespace on a worker that stands for one.

The namespace has an address of the pods' network and a link to the worker, as a pod has; nothing else of it is a pod, so no
image is pulled and no object made. It goes with the command, after a few seconds.
"""

from __future__ import annotations

import shlex
from ipaddress import IPv4Network
from typing import Any

from verify.runner import CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack

METADATA = "169.254.169.254"
# Held: the worker refused it by an ICMP message (EHOSTUNREACH), at once: of a machine that is away that comes after three seconds.
# Refused, and open: it got to the machine.
_SCRIPT = """\
set -euo pipefail
pod=$1 own=$2
shift 2
link=opv$$
unshare --net sleep 60 &
holder=$!
trap 'kill $holder 2>/dev/null; ip link delete "$link" 2>/dev/null || true' EXIT
for _ in {1..50}; do
  [[ $(readlink /proc/$holder/ns/net) == "$(readlink /proc/self/ns/net)" ]] || break
  sleep 0.1
done
ip link add "$link" type veth peer name pod netns $holder
ip link set "$link" up
ip route add "$pod/32" dev "$link"
mac=$(ip -o link show dev "$link" | sed 's,.*link/ether \\([^ ]*\\).*,\\1,')
inside() { nsenter --net=/proc/$holder/ns/net "$@"; }
inside ip link set pod up
inside ip address add "$pod/32" dev pod
inside ip route add 169.254.1.1 dev pod scope link
inside ip neighbour add 169.254.1.1 lladdr "$mac" dev pod
inside ip route add default via 169.254.1.1 dev pod
ask() {
  local said
  if said=$(inside env LC_ALL=C timeout 2 bash -c ": </dev/tcp/${1%:*}/${1#*:}" 2>&1); then
    printf open
  else
    case $said in *'No route to host'*) printf held ;; *refused*) printf refused ;; *) printf silent ;; esac
  fi
}
printf '%s %s\\n' "$own" "$(ask "$own")"
for target in "$@"; do printf '%s %s\\n' "$target" "$(ask "$target")"; done
"""
KUBELET, NFS, ETCD = 10250, 2049, 2379


def held_back(stack: Stack, ssh: Ssh, cluster: dict[str, Any]) -> str:
    """A pod's way to NFS, SSH, etcd and the cloud's metadata ends on its node. Raises CheckFailed."""
    if not stack.firewall:
        return "opstella:firewall.enabled is false: nothing is held back, nothing was asked"
    worker = next(host for host in stack.hosts if host["name"] == cluster["workers"][0])
    targets = _targets(stack, cluster, worker)
    pod = str(IPv4Network(cluster["pods"])[-2])
    said = ssh.run(worker["name"], _command(stack, pod, worker["address"], targets), stdin=_SCRIPT)
    return judged(worker["name"], f"{worker['address']}:{KUBELET}", targets, said)


def _targets(stack: Stack, cluster: dict[str, Any], worker: dict[str, Any]) -> dict[str, str]:
    """What a pod must not reach, as address:port, by name: one machine of each role, here and elsewhere."""
    ssh_port = stack.plan["ssh"]["port"]
    found = {f"{cluster['nfs']['address']}:{NFS}": "NFS", f"{METADATA}:80": "the cloud's metadata"}
    for host in stack.hosts:
        # Git by SSH on GitLab is for anyone.
        if host["role"] != "gitlab" and host["name"] != worker["name"] and f"SSH of a {host['role']}" not in found.values():
            found[f"{host['address']}:{ssh_port}"] = f"SSH of a {host['role']}"
        if host["name"] == cluster["masters"][0]:
            found[f"{host['address']}:{ETCD}"] = "etcd"
    return found


def _command(stack: Stack, pod: str, own: str, targets: dict[str, str]) -> str:
    words = " ".join(map(shlex.quote, (pod, f"{own}:{KUBELET}", *targets)))
    return f"{'sudo -n ' if stack.plan['ssh']['sudo'] else ''}bash -s -- {words}"


def judged(worker: str, own: str, targets: dict[str, str], said: str) -> str:
    """The answer lines of the script as a sentence. Raises CheckFailed."""
    answers = dict(line.split() for line in said.splitlines())
    if answers.get(own) not in ("open", "refused"):
        raise CheckFailed(f"a namespace on {worker} that stands for a pod does not reach that node's kubelet ({own}), which pods may ask")
    wrong = [f"{name} ({target}): {answers.get(target, 'not asked')}" for target, name in targets.items() if answers.get(target) != "held"]
    if wrong:
        raise CheckFailed(
            f"pods on {worker} are not held back from {', '.join(wrong)}; the rules for it are in the chain pods_to_machines of "
            "`nft list table inet opstella`: run up again, which loads them"
        )
    return f"{', '.join(dict.fromkeys(targets.values()))}: held back on {worker}, by packets"
