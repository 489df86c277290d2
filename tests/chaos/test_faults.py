"""The fault that takes the machine with the virtual address away; a double stands for the lab's hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from chaos import lab
from chaos.cluster import Cluster
from chaos.faults import NotHere, haproxy_host
from chaos.lab import ChaosError
from plan.plan import as_data
from tests.support.platform import plan_of

VIRTUAL = "192.168.72.10"
PAIR = {"count": 2, "virtualAddress": VIRTUAL, "addresses": ["192.168.72.8", "192.168.72.9"]}


class Hosts:
    """A double of the lab: two load balancers, of which one has the address, and the other when that one is off.

    A booted one has the address, too, until it was asked `late` times; with `greedy`, it takes it back for good.
    """

    def __init__(self, changes: dict[str, Any], late: int = 0, greedy: bool = False) -> None:
        self.plan = as_data(plan_of("standalone", {"clusters": {"standalone": {"loadBalancer": changes}}}))
        self.holders = ["haproxy-1"] if changes else ["haproxy"]
        self.done: list[str] = []
        self._late, self._greedy = late, greedy

    def console(self, host: str, script: str, **_: object) -> str:
        assert script == f"ip -oneline address show to {VIRTUAL if 'haproxy-1' in str(self.plan) else '192.168.72.12'}/32"
        if len(self.holders) > 1 and host == "haproxy-1":
            self._late -= 1
            if self._late < 0:
                self.holders = ["haproxy-1"] if self._greedy else ["haproxy-2"]
        return "2: eth0 inet …" if host in self.holders else ""

    @contextlib.contextmanager
    def off(self, host: str) -> Iterator[None]:
        self.done.append(host)
        self.holders = ["haproxy-2"]
        yield
        self.holders = ["haproxy-1", "haproxy-2"]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes by waiting alone."""
    now = [0.0]
    monkeypatch.setattr(lab.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(lab.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def notes(hosts: Hosts) -> list[str]:
    with haproxy_host(Cluster(hosts, "standalone")) as told:  # type: ignore[arg-type]
        pass
    return told


def test_the_machine_that_holds_the_address_goes_and_who_has_it_is_told() -> None:
    hosts = Hosts(PAIR, late=3)
    assert notes(hosts) == [
        f"haproxy-1, which held {VIRTUAL}, without power and silent",
        "haproxy-2 took the address over",
        "booted, haproxy-1 stays behind it",
    ]
    assert hosts.done == ["haproxy-1"]


def test_a_machine_that_takes_the_address_back_is_told() -> None:
    assert notes(Hosts(PAIR, greedy=True))[-1] == "booted, haproxy-1 took it back"


def test_two_that_keep_it_are_an_error() -> None:
    with pytest.raises(ChaosError, match=f"standalone: one load balancer has {VIRTUAL}: not within 20 s: held by haproxy-1 and by haproxy-2"):
        notes(Hosts(PAIR, late=1000))


def test_a_single_one_cannot_be_spared() -> None:
    hosts = Hosts({})
    with pytest.raises(NotHere, match=r"one load balancer, a single point; opstella:clusters.standalone.loadBalancer.count: 2"):
        notes(hosts)
    assert not hosts.done
    assert Cluster(hosts, "standalone").entrance() == "haproxy"  # type: ignore[arg-type]
