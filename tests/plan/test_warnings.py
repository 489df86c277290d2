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
