"""etcd's members as the masters tell of them: in order, and every way in which they are not; a double answers for each."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.verify.conftest import Make
from verify import etcd
from verify.runner import CheckFailed
from verify.ssh import Ssh
from verify.stack import Stack

MASTERS = {"dev-master-1": "192.168.74.13", "dev-master-2": "192.168.74.14", "dev-master-3": "192.168.74.15"}
AUTHORITY = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
WELL = '{"health":"true","reason":""}'


def member(name: str, address: str = "", **more: Any) -> dict[str, Any]:
    address = address or MASTERS[name]
    return {"ID": 1, "name": name and f"{name}-0a1b2c3d", "peerURLs": [f"https://{address}:2380"], **more}


@dataclass(frozen=True)
class Master:
    """What the programs on one master would answer."""

    health: str = WELL
    leads: str = "0"
    members: Iterable[dict[str, Any]] | str = tuple(member(name) for name in MASTERS)

    def said(self) -> str:
        listed = self.members if isinstance(self.members, str) else json.dumps({"members": list(self.members)})
        return f"health {self.health}\nleads {self.leads}\nmembers {listed}\n"


ORDER = {name: Master(leads="1" if name == "dev-master-2" else "0") for name in MASTERS}


@dataclass(frozen=True)
class Answering(Ssh):
    """A double of the connections: each master answers, first as in `before`, if it stands there, then as in `masters`."""

    config: Path = Path("/nonexistent")
    masters: dict[str, Master] = field(default_factory=dict)
    before: dict[str, Master] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def run(self, host: str, command: str, *, stdin: str = "", seconds: int = 60) -> str:
        assert command == "bash -s"
        first = host not in self.asked
        self.asked.append(host)
        answers = {**self.masters, **self.before} if first else self.masters
        if host not in answers:
            raise CheckFailed(f"{host}: Offending ED25519 key in known_hosts:5\nHost key verification failed.")
        return answers[host].said()


@pytest.fixture
def dev(make: Make) -> tuple[Stack, dict[str, Any]]:
    """A cluster of three masters, and a kubeconfig with its authority."""
    stack = make("multicluster")
    authority = base64.b64encode(AUTHORITY.encode()).decode()
    kubeconfig = {"clusters": [{"cluster": {"certificate-authority-data": authority}}]}
    stack = replace(stack, outputs={**stack.outputs, "kubeconfigs": {"dev": yaml.safe_dump(kubeconfig)}})
    cluster = next(c for c in stack.plan["clusters"] if c["name"] == "dev")
    assert {h["name"]: h["address"] for h in stack.hosts if h["name"] in cluster["masters"]} == MASTERS
    return stack, cluster


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(etcd.time, "sleep", seconds.append)
    return seconds


def test_as_planned(dev: tuple[Stack, dict[str, Any]], waited: list[float]) -> None:
    stack, cluster = dev
    ssh = Answering(masters=ORDER)
    assert etcd.members(stack, ssh, cluster) == "3 voting members, healthy; dev-master-2 leads"
    assert sorted(ssh.asked) == sorted(MASTERS) and not waited


FEWER = [member("dev-master-1"), member("dev-master-2")]
WITH_LEARNER = [*FEWER, member("dev-master-3", isLearner=True)]
ALL = "by dev-master-1, dev-master-2, dev-master-3: "


@pytest.mark.parametrize(
    ("masters", "said"),
    [
        pytest.param(
            {name: replace(one, members=FEWER) for name, one in ORDER.items()},
            f"{ALL}dev-master-3 (192.168.74.15) is no member",
            id="a member too few",
        ),
        pytest.param(
            {name: replace(one, members=[*one.members, member("old", "192.168.74.99")]) for name, one in ORDER.items()},
            f"{ALL}old-0a1b2c3d at 192.168.74.99 is a member, and no planned master",
            id="a member too many",
        ),
        pytest.param(
            {name: replace(one, members=[*one.members, member("", "192.168.74.99")]) for name, one in ORDER.items()},
            f"{ALL}one that never started at 192.168.74.99 is a member, and no planned master",
            id="a member that never started",
        ),
        pytest.param(
            {name: replace(one, members=WITH_LEARNER) for name, one in ORDER.items()},
            f"{ALL}dev-master-3 is a learner, which has no vote",
            id="a learner",
        ),
        pytest.param(
            {name: replace(one, leads="0") for name, one in ORDER.items()}, "no master's etcd leads", id="no leader"
        ),
        pytest.param(
            {**ORDER, "dev-master-1": Master(leads="1", members=[member("dev-master-1")])},
            "more than one leads: dev-master-1, dev-master-2; "
            "by dev-master-1: dev-master-2 (192.168.74.14) is no member; by dev-master-1: dev-master-3 (192.168.74.15) is no member",
            id="two leaders, for a master has a cluster of its own",
        ),
        pytest.param(
            {**ORDER, "dev-master-3": Master(health='{"health":"false","reason":"RAFT NO LEADER"}')},
            "dev-master-3: etcd is not healthy: RAFT NO LEADER",
            id="one unhealthy",
        ),
        pytest.param(
            {**ORDER, "dev-master-3": Master(health="curl: (7) Failed to connect to 127.0.0.1 port 2381", leads="")},
            "dev-master-3: etcd does not tell its health: curl: (7) Failed to connect to 127.0.0.1 port 2381",
            id="one that does not run",
        ),
        pytest.param(
            {**ORDER, "dev-master-3": Master(members='{"message":"failed to get etcd MemberList"}')},
            "dev-master-3: RKE2 does not list etcd's members: {\"message\":\"failed to get etcd MemberList\"}",
            id="one whose list is missing",
        ),
        pytest.param(
            {name: ORDER[name] for name in ("dev-master-1", "dev-master-2")},
            "dev-master-3: Host key verification failed.",
            id="one that cannot be asked",
        ),
    ],
)  # fmt: skip
def test_what_is_not_as_planned_is_named(
    dev: tuple[Stack, dict[str, Any]], masters: dict[str, Master], said: str
) -> None:
    stack, cluster = dev
    with pytest.raises(CheckFailed) as caught:
        etcd.members(stack, Answering(masters=masters), cluster)
    assert str(caught.value) == said


def test_who_is_asked_during_an_election_is_asked_again(dev: tuple[Stack, dict[str, Any]], waited: list[float]) -> None:
    stack, cluster = dev
    electing = Master(health='{"health":"false","reason":"RAFT NO LEADER"}')
    ssh = Answering(masters=ORDER, before=dict.fromkeys(MASTERS, electing))
    assert etcd.members(stack, ssh, cluster).endswith("dev-master-2 leads")
    assert waited == [10.0]


def test_a_cluster_of_one_master(make: Make) -> None:
    stack = make()
    kubeconfig = yaml.safe_dump({"clusters": [{"cluster": {"certificate-authority-data": ""}}]})
    stack = replace(stack, outputs={**stack.outputs, "kubeconfigs": {"standalone": kubeconfig}})
    alone = Master(leads="1", members=[member("master-1", "192.168.72.15")])
    line = etcd.members(stack, Answering(masters={"master-1": alone}), stack.plan["clusters"][0])
    assert line == "1 voting member, healthy; master-1 leads"


CURL = """\
#!/bin/bash
for url; do :; done
case $url in
  http://127.0.0.1:2381/health) echo '{"health":"true","reason":""}' ;;
  http://127.0.0.1:2381/metrics) printf 'etcd_server_is_leader_x 0\\netcd_server_is_leader 1\\n' ;;
  https://127.0.0.1:9345/db/info)
    [[ " $* " == *" --insecure "* ]] || while [ $# -gt 0 ]; do [ "$1" != --cacert ] || ca=$(cat "$2"); shift; done
    [[ $ca == -----BEGIN* ]] && echo '{"members":[{"peerURLs":["https://192.0.2.1:2380"]}]}' || echo 'curl: (60) SSL' >&2 ;;
  *) echo "curl: (7) $url" >&2; exit 7 ;;
esac
"""


def test_the_script_that_a_master_runs(dev: tuple[Stack, dict[str, Any]], tmp_path: Path) -> None:
    """With a double of curl: the addresses, the authority by which RKE2's certificate is verified, a line each."""
    stack, _ = dev
    double = tmp_path / "curl"
    double.write_text(CURL)
    double.chmod(0o755)
    said = subprocess.run(
        ["bash", "-s"], input=etcd._script(stack.outputs["kubeconfigs"]["dev"]), text=True, check=True, capture_output=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": str(tmp_path)},
    ).stdout  # fmt: skip
    assert said == (
        'health {"health":"true","reason":""} \nleads 1\nmembers {"members":[{"peerURLs":["https://192.0.2.1:2380"]}]} \n'
    )
    assert list(tmp_path.iterdir()) == [double], "the file of the authority stays behind"
