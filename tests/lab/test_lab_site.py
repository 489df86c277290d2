"""The lab's pure parts: the plan read as a site, the servers' configurations, the overlay of settings."""

from __future__ import annotations

import copy
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from lab.hosts import cli, overlay
from lab.hosts.site import (
    SERVICES_ADDRESS,
    Names,
    Site,
    SiteError,
    chrony_configuration,
    dnsmasq_configuration,
    lacks_route_out,
)

PLAN: dict[str, Any] = {
    "stack": "opstella/two",
    "domain": "devops.example.com",
    "subnets": ["192.168.72.0/24", "192.168.73.0/24"],
    "dns": [
        {"name": "GitLab.devops.example.com.", "address": "192.168.72.14"},
        {"name": "*.devops.example.com", "address": "192.168.73.12"},
    ],
    "hosts": [
        {"name": "bastion", "role": "bastion", "cluster": None, "address": "192.168.72.11", "prefix_length": 24},
        {"name": "worker-1", "role": "worker", "cluster": "b", "address": "192.168.73.16", "prefix_length": 24},
    ],
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(PLAN), **changes}


def with_host(**changes: Any) -> dict[str, Any]:
    plan = copy.deepcopy(PLAN)
    plan["hosts"][1].update(changes)
    return plan


def test_hosts_get_their_place() -> None:
    site = Site.from_plan(PLAN)
    bastion, worker = site.hosts
    assert site.bastion is bastion and site.host("worker-1") is worker
    assert (str(worker.interface), worker.link, worker.cluster) == ("192.168.73.16/24", "v1", "b")
    assert site.subnet_of(worker).bridge == "br1"
    assert str(site.subnet_of(worker).gateway) == "192.168.73.1/24"


def test_36_hosts_in_four_subnets_fit_the_kernels_interface_names() -> None:
    hosts = [
        {"name": f"observability-worker-{i}", "role": "worker", "cluster": "c",
         "address": f"192.168.{72 + i % 4}.{11 + i // 4}", "prefix_length": 24}
        for i in range(36)
    ]  # fmt: skip
    site = Site.from_plan(changed(hosts=hosts, subnets=[f"192.168.{72 + i}.0/24" for i in range(4)]))
    assert len({h.link for h in site.hosts}) == 36
    assert all(len(h.link) <= 15 for h in site.hosts) and all(len(s.bridge) <= 15 for s in site.subnets)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"stack": "x", "domain": "d", "hosts": []}, "the key 'subnets' is missing"),
        (changed(hosts=[]), "has no hosts"),
        (changed(subnets=["192.168.72.0/23", "192.168.73.0/24"]), "192.168.72.0/23 and 192.168.73.0/24 overlap"),
        (changed(subnets=["192.168.72.0/24", "192.168.73.0/24", "198.18.0.0/24"]), "which the lab's services need"),
        (with_host(address="192.168.74.16"), "worker-1: 192.168.74.16 lies in none"),
        (with_host(address="192.168.72.11"), "192.168.72.11 is taken by bastion"),
        (with_host(address="192.168.73.1"), "taken by the gateway of 192.168.73.0/24"),
        (with_host(name="bastion"), "'bastion' stands twice"),
        (with_host(name="lab"), "the lab's own"),
        (with_host(name="a/../b"), "is not a DNS label"),
    ],
)
def test_a_plan_that_cannot_be_built_is_refused(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(SiteError) as caught:
        Site.from_plan(plan)
    assert message in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    plan = with_host(address="192.168.74.16", name="Bad_Name")
    with pytest.raises(SiteError) as caught:
        Site.from_plan(plan)
    assert "192.168.74.16" in str(caught.value) and "Bad_Name" in str(caught.value)


def test_unknown_host_names_those_there_are() -> None:
    with pytest.raises(SiteError, match="no host 'worker-9'.*bastion, worker-1"):
        Site.from_plan(PLAN).host("worker-9")


def test_names_keep_two_labs_apart() -> None:
    one = Names.from_environment({})
    other = Names.from_environment({"OPSTELLA_LAB_NAME": "two"})
    assert (one.operator, one.folder) == ("opstella-lab", "/var/lib/opstella-lab")
    assert (other.operator, other.folder) == ("two-lab", "/var/lib/two-lab")
    assert not {one.operator, one.cgroup, one.lock, one.owner} & {other.operator, other.cgroup, other.lock, other.owner}


def test_a_lab_without_a_plan_claims_no_namespace_of_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["opstella-lab", "opstella-two-lab", "opstella-two-worker-1", "opstella-worker-1"]
    spaces = tmp_path / "netns"
    spaces.mkdir()
    monkeypatch.setattr(cli.kernel, "NETNS", spaces)
    monkeypatch.setattr(Names, "owner", property(lambda self: str(tmp_path / f"{self.name}-lab.json")))
    for name in there:
        (spaces / name).touch()
    names = Names(name="opstella", folder=str(tmp_path / "lab"))
    assert cli.lab_namespaces(names) == there
    (tmp_path / "opstella-two-lab.json").write_text("{}")
    assert cli.lab_namespaces(names) == ["opstella-lab", "opstella-worker-1"]


@pytest.mark.parametrize(
    "environment",
    [{"OPSTELLA_LAB": "/"}, {"OPSTELLA_LAB": "/var"}, {"OPSTELLA_LAB": "lab"}, {"OPSTELLA_LAB": "/var/lib/../.."},
     {"OPSTELLA_LAB_NAME": "../x"}, {"OPSTELLA_LAB_NAME": "Two"}],
)  # fmt: skip
def test_a_folder_that_down_must_not_empty_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(SiteError, match="OPSTELLA_LAB"):
        Names.from_environment(environment)


def test_dns_answers_the_plan_and_nothing_else() -> None:
    lines = dnsmasq_configuration(Site.from_plan(PLAN)).splitlines()
    assert "host-record=gitlab.devops.example.com,192.168.72.14" in lines
    assert "address=/devops.example.com/192.168.73.12" in lines
    assert "address=/#/" in lines and "no-resolv" in lines
    assert f"listen-address={SERVICES_ADDRESS}" in lines


def test_chrony_binds_to_the_services_address_only() -> None:
    assert f"bindaddress {SERVICES_ADDRESS}" in chrony_configuration().splitlines()


def test_a_route_out_is_found() -> None:
    site = Site.from_plan(PLAN)
    inside = [
        {"dst": "192.168.72.0/24", "dev": "br0"},
        {"dst": "192.168.73.255", "dev": "br1"},
        {"dst": "198.18.0.1", "dev": "lo"},
        {"dst": "127.0.0.0/8", "dev": "lo"},
        {"dst": "fe80::/64", "dev": "br0"},
    ]
    assert lacks_route_out(inside, site) == []
    assert len(lacks_route_out([*inside, {"dst": "default", "dev": "eth0"}, {"dst": "10.0.0.0/8", "dev": "eth0"}], site)) == 2


def test_merge_lays_mappings_over_each_other_and_changes_neither() -> None:
    below = {"config": {"a": {"x": 1, "y": [1]}, "b": 2}}
    above = {"config": {"a": {"y": [2]}, "c": 3}}
    before = copy.deepcopy((below, above))
    assert overlay.merge(below, above) == {"config": {"a": {"x": 1, "y": [2]}, "b": 2, "c": 3}}
    assert (below, above) == before


def test_media_are_set_only_with_their_sums() -> None:
    without = overlay.environment(["a"], {}, {})
    assert not {"opstella:media", "opstella:opstella"} & without.keys()
    assert without["opstella:clusters"] == {"a": {"nfs": {"server": "ganesha"}}}
    values = overlay.environment(["a"], {}, {"b.deb": "2", "a.tar": "1"})
    assert set(values["opstella:opstella"]) == {"ui", "core", "clearSession"}
    media = values["opstella:media"]
    assert media["source"] == "airgap" and list(media["sha256"]) == ["a.tar", "b.deb"]
    assert media["artifacts"].startswith(f"http://{SERVICES_ADDRESS}:")


def test_services_address_is_reserved_for_tests() -> None:
    assert IPv4Address("198.18.0.0") <= SERVICES_ADDRESS <= IPv4Address("198.19.255.255")
