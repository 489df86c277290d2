"""The GitLab double's own tests, and its package."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from plan.versions import GITLAB

pytestmark = pytest.mark.toolchain

ROOT = Path(__file__).resolve().parents[2]


def test_go_tests_pass() -> None:
    path = f"{os.environ['PATH']}:/usr/local/go/bin"
    done = subprocess.run(
        ["go", "test", "./..."], cwd=ROOT / "lab/gitlab", env={**os.environ, "PATH": path, "GOFLAGS": "-buildvcs=false"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_package_has_the_real_name_and_says_what_it_is() -> None:
    folder = subprocess.run([ROOT / "lab/toolchain/build", "gitlab"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    package = Path(folder) / f"gitlab-ce_{GITLAB.version}-ce.0_amd64.deb"
    fields = subprocess.run(["dpkg-deb", "--field", package], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert f"Version: {GITLAB.version}-ce.0" in fields and "double" in fields
    listed = subprocess.run(["dpkg-deb", "--contents", package], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "./opt/gitlab/bin/gitlab-ctl -> ../embedded/bin/gitlab-double" in listed
    assert "root/root" in listed and " ./usr/lib/systemd/system/gitlab-runsvdir.service" in listed
