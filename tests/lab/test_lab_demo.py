"""The whole, end to end: the demo of standalone, a host that dies, and no trace afterwards. Needs root."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]
NAME = f"d{os.getpid() % 100000}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("demo") / "lab"
    environment = {**os.environ, "OPSTELLA_LAB_NAME": NAME, "OPSTELLA_LAB": str(folder), "STACK": "standalone"}
    yield environment
    done = subprocess.run([ROOT / "lab/lab", "down"], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not folder.exists() and not list(Path("/run/netns").glob(f"{NAME}-*"))


def lab(environment: dict[str, str], *arguments: str, seconds: int = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "lab/lab", *arguments], env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


@pytest.fixture(scope="module")
def demo(environment: dict[str, str]) -> str:
    done = subprocess.run([ROOT / "lab/demo"], env=environment, capture_output=True, text=True, timeout=2400, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def test_demo_deploys_checks_and_has_nothing_left_to_change(demo: str) -> None:
    assert " passed, 0 failed" in demo
    assert "nothing is left to change" in demo and "https://gitlab." in demo
    assert "PRIVATE KEY" not in demo


def test_secrets_of_the_stack_are_not_in_its_output(demo: str, environment: dict[str, str]) -> None:
    told = json.loads(lab(environment, "pulumi", "stack", "output", "--json", "--show-secrets").stdout)
    passwords = [entry["password"] for entry in told["credentials"].values()]
    assert len(passwords) >= 2 and all(len(p) >= 12 for p in passwords)
    hidden = lab(environment, "pulumi", "stack", "output", "--json").stdout
    for secret in passwords:
        assert secret not in demo and secret not in hidden


def verified(environment: dict[str, str]) -> dict[str, bool]:
    """Check name to whether it passed, as `lab/lab verify` prints them."""
    lines = [line.split(maxsplit=3) for line in lab(environment, "verify").stdout.splitlines()]
    return {line[3].partition(": ")[0]: line[0] == "ok" for line in lines if len(line) == 4 and line[0] in ("ok", "FAIL")}


def test_a_dead_worker_is_seen_and_its_machine_comes_back(demo: str, environment: dict[str, str]) -> None:
    ssh, firewalls = "ssh through the bastion", "host firewalls"
    assert lab(environment, "stop", "worker-2").returncode == 0
    assert verified(environment)[ssh] is False
    assert lab(environment, "start", "worker-2").returncode == 0
    told = verified(environment)
    # Host key, trust store and firewall are on its disk, and are in force again after the boot.
    assert told[ssh] and told[firewalls] and told["hosts trust the platform's CA"]
    unchanged = lab(environment, "pulumi", "preview", "--expect-no-changes", "--non-interactive")
    assert unchanged.returncode == 0, unchanged.stdout[-3000:]
