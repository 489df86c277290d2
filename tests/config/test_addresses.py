"""Addresses in the settings: all of them are found, and none may belong to a cluster's pods or Services."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from config.addresses import named
from config.errors import ConfigurationError
from tests.plan.stacks import read

PODS = "172.16.73"
SEAL = {"type": "transit", "parameters": {"address": f"https://{PODS}.8:8200"}}
MAIL = {"smarthost": f"{PODS}.25:25", "sender": "a@example.com", "to": ["b@example.com"]}
# A section with one address inside the pods' network, and the path of that address.
INSIDE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("dns.servers[1]", {"dns": {"servers": ["10.0.0.53", f"{PODS}.53"]}}),
    ("proxy.http", {"proxy": {"http": f"http://{PODS}.10:3128"}}),
    ("proxy.https", {"proxy": {"https": f"http://{PODS}.10:3128"}}),
    ("time.servers[0]", {"time": {"servers": [f"{PODS}.7"]}}),
    ("media.registryMirror", {"media": {"registryMirror": f"https://{PODS}.9:5000"}}),
    ("media.chartRepository", {"media": {"chartRepository": f"https://{PODS}.9/charts"}}),
    ("bastion.publicAddress", {"bastion": {"publicAddress": f"{PODS}.2"}}),
    ("firewall.operatorNetworks[0]", {"firewall": {"operatorNetworks": [f"{PODS}.0/25"]}}),
    ("vault.seal.parameters.address", {"vault": {"unseal": "auto", "seal": SEAL}}),
    ("alerts.mail.smarthost", {"alerts": {"mail": MAIL}}),
)  # fmt: skip


@pytest.mark.parametrize(("path", "section"), INSIDE, ids=[path for path, _ in INSIDE])
def test_an_address_of_the_pods_is_refused_wherever_it_is(path: str, section: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(**section)
    (problem,) = caught.value.problems
    assert problem.key == f"opstella:{path}" and "opstella:clusters.standalone.podSubnet" in problem.what


@pytest.mark.parametrize(("path", "section"), INSIDE, ids=[path for path, _ in INSIDE])
def test_another_pod_network_is_a_remedy(path: str, section: dict[str, Any]) -> None:
    settings = read(**section, clusters={"standalone": {"podSubnet": "10.42.0.0/16"}})
    assert path in dict(named(settings))


def test_what_may_mean_pods_is_no_fault() -> None:
    rule = {"purpose": "pods", "to": "worker", "from": ["172.16.72.0/22"], "ports": [9999]}
    own = {"purpose": "pods", "to": ["172.16.72.0/24"], "ports": [80]}
    read(
        network={"rules": [rule], "egress": {"enforce": True, "rules": [own]}},
        proxy={"http": "http://10.0.0.8:3128", "noProxy": ["172.16.72.0/22"]},
        firewall={"operatorNetworks": ["172.16.0.0/12"]},  # wider: operators are at its other addresses
        tools={"loki": {"values": {"anything": "172.16.72.9"}}},
    )


def test_a_cluster_that_is_left_out_has_no_networks() -> None:
    sections: dict[str, Any] = {
        "clusters": {"dev": {"enabled": False, "podSubnet": "10.50.0.0/16"}},
        "dns": {"servers": ["10.50.0.53"]},
    }
    settings = read("multicluster", tools={"gitlab-runner": {"enabled": False}}, **sections)
    assert "clusters.dev.podSubnet" not in dict(named(settings))


def test_addresses_are_found_in_every_form() -> None:
    settings = read(
        dns={"servers": ["10.0.0.53"]}, proxy={"http": "http://10.0.0.8:3128"}, alerts={"mail": {**MAIL, "smarthost": "10.0.0.25:587"}},
        firewall={"operatorNetworks": ["10.9.0.0/16"]}, time={"servers": ["ntp.example.com", "10.0.0.123"]},
    )  # fmt: skip
    found = dict(named(settings))
    assert {path: str(found[path]) for path in found if not path.startswith("clusters.")} == {
        "dns.servers[0]": "10.0.0.53/32", "proxy.http": "10.0.0.8/32", "alerts.mail.smarthost": "10.0.0.25/32",
        "firewall.operatorNetworks[0]": "10.9.0.0/16", "time.servers[1]": "10.0.0.123/32",
    }  # fmt: skip
    assert found["clusters.standalone.subnet"] == IPv4Network("192.168.72.0/24")
