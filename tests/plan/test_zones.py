"""The picture of the zones: its arrows are the contract, and everything on it can be read."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

import pytest
from hypothesis import given

from config.model import Settings
from plan import network
from plan.contract import zones
from plan.contract.contract import Contract
from plan.contract.rule import Rule
from plan.contract.zones import Graph, Place, graph
from plan.contract.zones_picture import svg
from plan.plan import Plan
from plan.topology import Host
from tests.plan.stacks import contracts, examples, plan
from tests.plan.test_real_servers import edges

STRANGER = IPv4Address("198.51.100.7")


def open_to(found: Graph, places: set[Place], target: Host) -> set[tuple[str, int, int]]:
    """Protocol and ends of the ports that arrows of `places` open on `target`."""
    roles = {target.role, "node"} if target.role in ("master", "worker") else {target.role}
    zone = target.cluster or zones.SHARED
    return {
        (protocol, low, high)
        for arrow in found.arrows
        if arrow.source in places and arrow.target.zone == zone and arrow.target.role in roles
        for protocols, low, high in arrow.ports
        for protocol in protocols
    }


def sources(found: Graph, settings: Settings, source: Host | None) -> set[Place]:
    """The places of a machine, or of a stranger: among them who may be anyone."""
    every = {place for zone in found.zones for place in zone.places}
    outside = {"anyone"} if settings.firewall.operator_networks else {"anyone", "operator"}
    places = {place for place in every if place.zone == zones.OUTSIDE and place.role in outside}
    if source:
        roles = {source.role, "node"} if source.role in ("master", "worker") else {source.role}
        places |= {p for p in every if p.zone == (source.cluster or zones.SHARED) and p.role in roles}
    return places


@pytest.mark.toolchain
@examples(8)
@given(contracts())
def test_the_arrows_are_the_contract(stack: Plan) -> None:
    """Machines are outside of the networks that the user's settings name, so nothing else lets them in."""
    settings, machines = stack.settings, stack.topology
    named = [n for rule in settings.network.rules for n in rule.sources] + [*settings.firewall.operator_networks]
    found = graph(stack.contract)
    first = {(h.role, h.cluster): h for h in reversed(machines.hosts)}
    last = {(h.role, h.cluster): h for h in machines.hosts}
    for target in last.values():
        openings = network.openings(target, stack.contract)
        ports = sorted(edges(openings))
        for source in [*first.values(), None]:
            address = source.address if source else STRANGER
            if source == target or any(address in n and n.prefixlen for n in named):
                continue
            spans = open_to(found, sources(found, settings, source), target)
            for protocol in ("tcp", "udp"):
                for port in ports:
                    planned = network.allows(openings, IPv4Network(address), protocol, port) is not None
                    drawn = any(p == protocol and low <= port <= high for p, low, high in spans)
                    assert drawn == planned, (source and source.name, target.name, protocol, port)


def test_what_settings_name_stands_outside() -> None:
    own = {"purpose": "ours", "to": "node", "from": ["10.9.0.0/16", "10.10.0.0/16"], "ports": [9400], "protocols": ["udp"]}
    contract = plan(network={"rules": [own]}, firewall={"operatorNetworks": ["192.168.0.0/16"]}).contract
    found = graph(contract)
    outside = {place.role: place.lines for place in found.zones[0].places}
    assert outside["given"] == ("10.9.0.0/16", "10.10.0.0/16") and outside["operator"] == ("192.168.0.0/16",)
    arrows = {(a.source.role, a.target.role): a.label for a in found.arrows}
    assert arrows["given", "node"] == "udp 9400"
    # The operators' network holds the machines', which are no operators.
    assert arrows["operator", "haproxy"] == arrows["bastion", "haproxy"].split(", ")[1] == "6443"
    assert arrows["operator", "bastion"] == "22" and ("bastion", "bastion") not in arrows


def test_labels_say_protocols_where_they_are_not_tcp() -> None:
    pair = {"count": 2, "virtualAddress": "192.168.72.10", "addresses": ["192.168.72.12", "192.168.72.9"]}
    found = graph(plan(clusters={"standalone": {"loadBalancer": pair}}, network={"strict": False}).contract)
    labels = {(a.source.role, a.target.role): a.label for a in found.arrows}
    assert labels["haproxy", "haproxy"] == "VRRP"
    assert labels["worker", "nfs"] == "tcp+udp 111, 2049, 33333"
    assert labels["node", "node"] == "179, 5473, 9098, 9099, 9100, udp 4789"
    assert labels["haproxy", "worker"] == "30080, 30443"


def test_a_flow_without_a_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    contract = plan().contract
    found = zones.flows(contract)
    rule = Rule(target="nfs", protocols=("tcp",), ports=(1,), source="platform", purpose="backups")
    nowhere = replace(found[-1], rule=rule, sources=(IPv4Network("10.99.0.0/30"), IPv4Network(contract.topology.gitlab.address)))
    monkeypatch.setattr(zones, "flows", lambda _: (*found, nowhere))
    with pytest.raises(ValueError, match="'backups' to workers of standalone comes from 10.99.0.0/30, .* 4 addresses have no place"):
        svg(contract)


# What is drawn


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float
    what: str

    def meets(self, other: Box) -> bool:
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Box) -> bool:
        return self.left <= other.left and other.right <= self.right and self.top <= other.top and other.bottom <= self.bottom


def numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.get(name, "nan")) for name in names]


def texts(root: ElementTree.Element) -> Iterator[Box]:
    """By what DejaVu Sans takes: narrow signs a third of its size, others nearly two."""
    for text in root.iterfind("{*}text"):
        x, y, size = numbers(text, "x", "y", "font-size")
        words = text.text or ""
        wide = 0.70 if text.get("font-weight") else 0.64
        width = size * sum(0.35 if sign in " .,:/il" else 0.98 if sign in "mwMW" else wide for sign in words)
        yield Box(x, y - 0.76 * size, x + width, y + 0.24 * size, words)


def rectangles(root: ElementTree.Element) -> list[Box]:
    found = (numbers(r, "x", "y", "width", "height") for r in root.iterfind("{*}rect") if r.get("rx"))
    return [Box(x, y, x + width, y + height, "rectangle") for x, y, width, height in found]


def lines(root: ElementTree.Element) -> Iterator[Box]:
    for line in root.iterfind("{*}polyline"):
        (x1, y1), (x2, y2) = ([float(n) for n in point.split(",")] for point in line.get("points", "").split())
        yield Box(min(x1, x2) - 0.7, min(y1, y2) - 0.7, max(x1, x2) + 0.7, max(y1, y2) + 0.7, f"line {line.get('points')}")


def tips(root: ElementTree.Element) -> Iterator[Box]:
    for line in root.iterfind("{*}polyline"):
        if line.get("marker-end"):
            (x1, _), (x2, y) = ([float(n) for n in point.split(",")] for point in line.get("points", "").split())
            yield Box(min(x2, x2 + (11 if x1 > x2 else -11)), y - 5.6, max(x2, x2 + (11 if x1 > x2 else -11)), y + 5.6, f"tip at {x2},{y}")


def assert_legible(picture: str) -> None:
    root = ElementTree.fromstring(picture)
    canvas = Box(0, 0, *numbers(root, "width", "height"), "canvas")
    words, boxes = list(texts(root)), rectangles(root)
    assert words and all(canvas.holds(thing) for thing in (*words, *boxes, *lines(root)))
    for one, other in combinations(words, 2):
        assert not one.meets(other), f"{one.what!r} on {other.what!r}"
    for text in words:
        for other in (*lines(root), *tips(root)):
            assert not text.meets(other), f"{text.what!r} on {other.what}"
        for box in boxes:
            assert box.holds(text) or not box.meets(text), f"{text.what!r} across the edge of {box}"
    for one, other in combinations(boxes, 2):
        assert one.holds(other) or other.holds(one) or not one.meets(other), f"{one} on {other}"
    for line in lines(root):
        for box in boxes:
            if any(other != box and box.holds(other) for other in boxes):
                continue  # a zone with boxes in it
            inner = Box(box.left + 1, box.top + 1, box.right - 1, box.bottom - 1, "")
            assert not inner.meets(line), f"{line.what} across {box}"


@pytest.mark.toolchain
@examples(8)
@given(contracts())
def test_nothing_covers_anything(stack: Plan) -> None:
    assert_legible(svg(stack.contract))


def many(count: int) -> Contract:
    clusters = {
        f"a-rather-long-name-of-cluster-{number}": {
            "subnet": f"192.168.{100 + number}.0/24", "masters": {"count": 3}, "workers": {"count": 100, "cpu": 16, "memoryGb": 32},
            "podSubnet": f"10.{number}.0.0/16", "serviceSubnet": f"172.31.{number * 4}.0/22",
        }
        for number in range(count)
    }  # fmt: skip
    rule = {"purpose": "ours", "to": "gitlab", "from": [f"10.200.{n}.0/24" for n in range(0, 20, 2)], "ports": [f"{n}-{n + 9}" for n in range(10000, 11000, 20)]}
    return plan("custom", clusters=clusters, network={"rules": [rule]}).contract


@pytest.mark.parametrize("count", [1, 3, 7])
def test_there_is_room_for_many_clusters(count: int) -> None:
    picture = svg(many(count))
    assert_legible(picture)
    # A picture, not a scroll.
    width, height = numbers(ElementTree.fromstring(picture), "width", "height")
    assert 0.3 < width / height < 4


def test_every_label_is_drawn() -> None:
    contract = plan("multicluster").contract
    drawn = " ".join(box.what for box in texts(ElementTree.fromstring(svg(contract))))
    for arrow in graph(contract).arrows:
        who = "among themselves" if arrow.source == arrow.target else arrow.source.name(arrow.target.zone)
        assert f"{who}: {arrow.label}" in drawn
