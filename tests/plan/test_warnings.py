"""What is written for something that is not there is told, and what is right is not."""

from __future__ import annotations

from typing import Any

import pytest

from plan import media
from tests.plan.stacks import plan, read

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBe0nbW4jzGuzQ3dlBD0N1Yp6mYv7MDQ2ZAtmLkPIaiT"
QUIET = plan().warnings


def told(**sections: Any) -> list[str]:
    """The warnings that `sections` add to those of the reference."""
    return [text for text in plan(**sections).warnings if text not in QUIET]


def ssh(**host_keys: str) -> dict[str, Any]:
    return {"privateKey": read().ssh.private_key.get_secret_value(), "hostKeys": {n.replace("_", "-"): k for n, k in host_keys.items()}}


def airgap(**more: Any) -> dict[str, Any]:
    folder, charts = "https://media.example.com/o", "https://charts.example.com"
    sums = dict.fromkeys(media.required_artifacts(read()), "0" * 64)
    return {"source": "airgap", "artifacts": folder, "chartRepository": charts, "sha256": sums, **more}


@pytest.mark.parametrize(
    ("sections", "starts", "corrected"),
    [
        (
            {"media": airgap()},
            "media.registryMirror is not named: in an air gap",
            {"media": airgap(registryMirror="https://registry.example.com")},
        ),
        (
            {"media": airgap(registryMirror="https://harbor.devops.example.com")},
            "media.registryMirror: harbor.devops.example.com is the name of domains.harbor, which would be installed from there",
            {"media": airgap(registryMirror="https://registry.devops.example.com")},
        ),
        (
            {"ssh": ssh(bastoin=KEY)},
            "ssh.hostKeys.bastoin: no machine has that name, so the key is held to none; did you mean bastion?",
            {"ssh": ssh(bastion=KEY, worker_5=KEY)},
        ),
        (
            {"network": {"neighbours": ["10.1.0.0/16"]}},
            "network.neighbours: 10.1.0.0/16 is in no subnet of machines",
            {"network": {"neighbours": ["192.168.72.240/28"]}},
        ),
        (
            {"kubernetes": {"projects": {"team": {"cpu": 21}}}},
            "kubernetes.projects.team: its 21 CPU and 8 GB are more than all workers of standalone have, 20 CPU and 50 GB",
            {"kubernetes": {"projects": {"team": {"cpu": 20, "memoryGb": 50}}}},
        ),
        (
            {"tools": {"minio": {"storage": 65536}}},
            "clusters.standalone.nfs.diskGb: the tools' volumes add up to at least 65620 GB (minio 65536, ",
            {"tools": {"minio": {"storage": 50}}},
        ),
    ],
)
def test_what_has_no_effect_is_told(sections: dict[str, Any], starts: str, corrected: dict[str, Any]) -> None:
    (text,) = told(**sections)
    assert text.startswith(starts)
    assert told(**corrected) == []


def test_a_project_is_compared_with_the_workers_of_its_clusters() -> None:
    large = {"kubernetes": {"projects": {"team": {"cpu": 20, "clusters": ["prd"]}}}}
    assert not [text for text in plan("multicluster", **large).warnings if "projects" in text]
    large["kubernetes"]["projects"]["team"]["clusters"] = ["prd", "dev"]
    (text,) = (text for text in plan("multicluster", **large).warnings if "projects" in text)
    assert "all workers of dev have, 12 CPU and 24 GB" in text


def test_volumes_are_compared_with_the_disk_of_their_own_cluster() -> None:
    told = [text for text in plan("multicluster").warnings if "nfs.diskGb" in text]
    assert told == []
    small = {"devsecops": {"nfs": {"diskGb": 156}}, "observability": {"nfs": {"diskGb": 114}}}
    (text,) = (text for text in plan("multicluster", clusters=small).warnings if "nfs.diskGb" in text)
    # A volume of a StatefulSet counts for each of its pods, a database for each of its instances.
    assert text.startswith("clusters.devsecops.nfs.diskGb: the tools' volumes add up to at least 157 GB (minio 50, vault 30, harbor 25 and others)")
    (text,) = (t for t in plan(clusters={"standalone": {"nfs": {"diskGb": 1}}}).warnings if "nfs.diskGb" in t)
    assert "134 GB (minio 50, mimir 15, defectdojo 10 and others), and the disk has 1 GB" in text
    assert not [t for t in plan(clusters={"standalone": {"nfs": {"diskGb": 134}}}).warnings if "nfs.diskGb" in t]


def test_a_volume_elsewhere_or_switched_off_is_not_counted() -> None:
    enough = {"standalone": {"nfs": {"diskGb": 84}}}
    for values in ({"persistence": {"enabled": False}}, {"persistence": {"storageClass": "block"}}):
        stack = plan(clusters=enough, tools={"minio": {"values": values}})
        assert not [text for text in stack.warnings if "nfs.diskGb" in text]
