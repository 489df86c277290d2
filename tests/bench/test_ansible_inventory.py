"""What Ansible is given by the benchmark: the same hosts and the same texts as the product's, or the race is not fair."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from bench.ansible_inventory import Material, inventory
from plan import haproxy, nftables
from plan.tools.catalogue import NAMES
from tests.plan.stacks import plan

_FOLDER = Path(__file__).resolve().parents[2] / "bench/ansible"
_ANSIBLE = {"inventory_hostname", "item"}  # Ansible's own variables
_MATERIAL = Material(
    ca_bundle="CA", certificate="CERTIFICATE", private_key="KEY", gitlab_password="PASSWORD",
    tokens=dict.fromkeys(("standalone", "devsecops", "observability", "dev", "prd"), "TOKEN"),
)  # fmt: skip
_MEDIA = {
    "source": "airgap",
    "artifacts": "http://media.example.com",
    "chartRepository": "https://charts.example.com",
    "sha256": {
        name: "0" * 64
        for name in (
            "install.sh", "rke2.linux-amd64.tar.gz", "sha256sum-amd64.txt", "rke2-images-core.linux-amd64.tar.zst",
            "rke2-images-calico.linux-amd64.tar.zst", "gitlab-ce_18.5.1-ce.0_amd64.deb",
        )
    },
}  # fmt: skip


def _plan(architecture: str):
    tools = {name: {"enabled": False} for name in NAMES}
    return plan(architecture, tools=tools, media=_MEDIA, gitlab={"version": "18.5.1"})


@pytest.mark.parametrize("architecture", ["standalone", "multicluster"])
def test_every_host_is_prepared_and_has_one_role(architecture: str) -> None:
    found = _plan(architecture)
    given = inventory(found, _MATERIAL, "/ssh_config")["all"]
    assert set(given["hosts"]) == {host.name for host in found.topology.hosts}
    roles = [name for group in given["children"].values() for name in group["hosts"]]
    assert sorted([*roles, "bastion"]) == sorted(given["hosts"])


def test_the_texts_are_those_that_the_product_writes() -> None:
    found = _plan("standalone")
    hosts = inventory(found, _MATERIAL, "/ssh_config")["all"]["hosts"]
    (cluster,) = found.topology.clusters
    assert hosts["haproxy"]["haproxy_cfg"] == haproxy.configuration(found.topology.load_balancers[0])
    worker = cluster.workers[0]
    assert hosts["worker-1"]["ruleset"] == nftables.ruleset(worker, found.contract)
    configuration = {file["name"]: file["content"] for file in hosts["worker-1"]["rke2_configuration"]}
    assert yaml.safe_load(configuration["config.yaml"])["token"] == "TOKEN"


def test_a_host_has_every_variable_that_its_plays_name() -> None:
    given = inventory(_plan("standalone"), _MATERIAL, "/ssh_config")["all"]
    for play in yaml.safe_load((_FOLDER / "site.yaml").read_text()):
        text = yaml.safe_dump(play)
        text += "".join((_FOLDER / name).read_text() for name in re.findall(r"import_tasks: (\S+)", text))
        wanted = set(re.findall(r"\{\{ (\w+)", text)) - _ANSIBLE
        groups = {name: set(members["hosts"]) for name, members in given["children"].items()}
        everyone = set(given["hosts"])
        groups |= {"bastion": {"bastion"}, "all:!bastion": everyone - {"bastion"}}
        group = groups[play["hosts"]]
        assert wanted, play["name"]
        for host in group:
            assert wanted <= {*given["vars"], *given["hosts"][host]}, (play["name"], host)


@pytest.mark.toolchain
def test_ansible_takes_the_playbook() -> None:
    root = _FOLDER.parents[1]
    built = subprocess.run(
        [root / "lab/toolchain/build", "ansible"], capture_output=True, text=True, check=True, timeout=600
    )
    done = subprocess.run(
        [f"{built.stdout.strip()}/bin/ansible-playbook", "--syntax-check", "--inventory", "localhost,", "site.yaml"],
        cwd=_FOLDER, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
