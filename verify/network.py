"""Host firewalls: real connections between the hosts, compared with the plan.

A port that the plan opens answers or refuses; one that it does not open stays silent, for the ruleset drops.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from verify.runner import CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack, allowed

# Every port of the contract, and two that it does not know.
_PORTS = (22, 80, 111, 179, 443, 2049, 2379, 2380, 5473, 6443, 8404, 9090, 9345, 10250, 12345, 30080, 30443, 31000, 33333)
_SECONDS = 2

_Key = tuple[dict[str, Any], int]
"""A target host and one of its TCP ports."""
_Seen = dict[tuple[str, int], str]
"""Address and port to what answered."""


def reachability(stack: Stack, ssh: Ssh) -> str:
    """One source and one target of each role and cluster, all ports, from every source to every target."""
    sample = _sample(stack)
    wanted = {source["name"]: [(t, port) for t in sample if t != source for port in _PORTS] for source in sample}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda source: _probe(ssh, source, wanted[source["name"]], _SECONDS), sample))
    wrong = []
    for source, seen in zip(sample, answers, strict=True):
        differing = [key for key in wanted[source["name"]] if _differs(source, key, seen)]
        if differing:
            # A busy machine answers late; a packet filter answers the same a second time.
            seen.update(_probe(ssh, source, differing, _SECONDS * 4))
            wrong += [_difference(source, key, seen) for key in differing if _differs(source, key, seen)]
    counted = sum(len(keys) for keys in wanted.values())
    if wrong:
        raise CheckFailed(f"{len(wrong)} of {counted} differ from the plan: " + "; ".join(wrong[:6]))
    opened = sum(state != "silent" for seen in answers for state in seen.values())
    return f"{counted} connections between {len(sample)} hosts are as planned: {opened} pass, {counted - opened} do not"


def _planned(source: dict[str, Any], key: _Key) -> str | None:
    target, port = key
    return allowed(target, source["address"], "tcp", port)


def _differs(source: dict[str, Any], key: _Key, seen: _Seen) -> bool:
    return (seen[key[0]["address"], key[1]] != "silent") != (_planned(source, key) is not None)


def _difference(source: dict[str, Any], key: _Key, seen: _Seen) -> str:
    target, port = key
    state = seen[target["address"], port]
    return f"{source['name']} to {target['name']}:{port} is {state}, planned: {_planned(source, key) or 'nothing'}"


def _sample(stack: Stack) -> list[dict[str, Any]]:
    found: dict[tuple[str | None, str], dict[str, Any]] = {}
    for host in stack.hosts:
        found.setdefault((host["cluster"], host["role"]), host)
    workers = [h for h in stack.hosts if h["role"] == "worker"]
    return [*found.values(), *([workers[1]] if len(workers) > 1 else [])]


def _probe(ssh: Ssh, source: dict[str, Any], wanted: list[_Key], seconds: int) -> _Seen:
    """What `source` sees of each target's port: `open`, `refused` or `silent` for `seconds`. All at once, bounded."""
    lines = "".join(f"{target['address']} {port}\n" for target, port in wanted)
    script = f"""\
probe() {{
  local said
  if said=$(timeout {seconds} bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>&1); then echo "$1 $2 open"
  elif [[ $said == *refused* ]]; then echo "$1 $2 refused"
  else echo "$1 $2 silent"; fi
}}
while read -r address port; do
  while (($(jobs -rp | wc -l) >= 40)); do wait -n; done
  probe "$address" "$port" &
done <<'WANTED'
{lines}WANTED
wait
"""
    answers = ssh.run(source["name"], "bash -s", stdin=script, seconds=120).splitlines()
    found = {(a, int(p)): state for a, p, state in (line.split() for line in answers)}
    missing = [f"{target['name']}:{port}" for target, port in wanted if (target["address"], port) not in found]
    if missing:
        raise CheckFailed(f"{source['name']} gave no answer about {', '.join(missing[:3])}")
    return found
