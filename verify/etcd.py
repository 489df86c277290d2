"""etcd behind a cluster's API: its members and their votes, whether each is well, and which one leads.

Every master is asked on itself: etcd's health and metrics on port 2381, and RKE2 on port 9345 for the list of members, which
it gives to whoever asks from the same machine (k3s, pkg/etcd: `/db/info`). Neither takes a key or the rights of root.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from components.kubeconfig import authority
from verify.runner import CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack

# While a leader is elected (2 to 4 s, plan/rke2.py; 10 s with RKE2's own times) nobody leads, and nobody is healthy.
_ELECTION_SECONDS = 10.0
_LIST = "https://127.0.0.1:9345/db/info"


@dataclass(frozen=True)
class Member:
    """A member of etcd as another one lists it: the address of its peers' URL; its name, empty before its first start."""

    address: str
    name: str
    learner: bool


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one master tells; `fault` says what could not be learned or is not well, and is empty when nothing is."""

    fault: str = ""
    leads: bool = False
    members: frozenset[Member] = frozenset()


def members(stack: Stack, ssh: Ssh, cluster: Mapping[str, Any]) -> str:
    """The planned masters, and nobody else, vote in etcd; all are healthy, one leads. Raises CheckFailed."""
    planned = {h["address"]: h["name"] for h in stack.hosts if h["name"] in cluster["masters"]}
    script = _script(stack.outputs["kubeconfigs"][cluster["name"]])

    def look() -> dict[str, Told]:
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(planned.values(), pool.map(lambda name: _ask(ssh, name, script), planned.values()), strict=True))

    told = look()
    if faults(planned, told):
        time.sleep(_ELECTION_SECONDS)
        told = look()
    if found := faults(planned, told):
        raise CheckFailed("; ".join(found))
    leader = next(name for name, one in told.items() if one.leads)
    return f"{len(planned)} voting member{'s' if len(planned) > 1 else ''}, healthy; {leader} leads"


def faults(planned: Mapping[str, str], told: Mapping[str, Told]) -> list[str]:
    """What is not as planned. `planned` is address to name of the masters, `told` is by name."""
    found = [f"{name}: {one.fault}" for name, one in told.items() if one.fault]
    leaders = [name for name, one in told.items() if one.leads]
    if not leaders:
        found.append("no master's etcd leads")
    elif len(leaders) > 1:
        found.append(f"more than one leads: {', '.join(leaders)}")
    # All list the same ones, unless they are not of one cluster.
    lists: dict[frozenset[Member], list[str]] = {}
    for name, one in told.items():
        if one.members:
            lists.setdefault(one.members, []).append(name)
    for listed, tellers in lists.items():
        found += [f"by {', '.join(tellers)}: {fault}" for fault in _differences(planned, listed)]
    return found


def _differences(planned: Mapping[str, str], listed: frozenset[Member]) -> list[str]:
    there = {member.address for member in listed}
    found = [f"{name} ({address}) is no member" for address, name in planned.items() if address not in there]
    for member in sorted(listed, key=lambda m: m.address):
        if member.address not in planned:
            found.append(f"{member.name or 'one that never started'} at {member.address} is a member, and no planned master")
        elif member.learner:
            found.append(f"{planned[member.address]} is a learner, which has no vote")
    return found


def _ask(ssh: Ssh, master: str, script: str) -> Told:
    try:
        lines = ssh.run(master, "bash -s", stdin=script).splitlines()
    except CheckFailed as error:
        # OpenSSH says what it means in its last line.
        return Told(fault=str(error).removeprefix(f"{master}: ").splitlines()[-1])
    said = {name: answer for name, _, answer in (line.partition(" ") for line in lines)}
    leads = said["leads"] == "1"
    try:
        health = json.loads(said["health"])
        if health["health"] != "true":
            return Told(fault=f"etcd is not healthy: {health.get('reason') or 'it gives no reason'}", leads=leads)
    except (ValueError, KeyError, TypeError):
        return Told(fault=f"etcd does not tell its health: {said['health'][:200] or 'no answer'}", leads=leads)
    try:
        listed = [
            Member(str(urlsplit(m["peerURLs"][0]).hostname), m.get("name", ""), m.get("isLearner", False))
            for m in json.loads(said["members"])["members"]
        ]
    except (ValueError, KeyError, TypeError):
        return Told(fault=f"RKE2 does not list etcd's members: {said['members'][:200] or 'no answer'}", leads=leads)
    return Told(leads=leads, members=frozenset(listed))


def _script(kubeconfig: str) -> str:
    """Three lines, the first word of each its name; behind it the answer, or curl's word for there being none."""
    # Port 9345's certificate is of the authority that also signs the API server's.
    return f"""\
authority=$(mktemp)
trap 'rm -f "$authority"' EXIT
cat >"$authority" <<'PEM'
{authority(kubeconfig).strip()}
PEM
ask() {{ curl --silent --show-error --max-time 10 --noproxy '*' "$@" 2>&1; }}
printf 'health %s\\n' "$(ask http://127.0.0.1:2381/health | tr '\\n' ' ')"
printf 'leads %s\\n' "$(ask http://127.0.0.1:2381/metrics | sed -n 's/^etcd_server_is_leader //p')"
printf 'members %s\\n' "$(ask --cacert "$authority" {_LIST} | tr '\\n' ' ')"
"""
