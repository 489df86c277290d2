"""The GitLab double's own tests, and its package."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from plan import gitlab
from plan.versions import GITLAB
from tests.support.platform import plan_of

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
    assert "./opt/gitlab/bin/gitlab-rails -> ../embedded/bin/gitlab-double" in listed
    assert "root/root" in listed and " ./usr/lib/systemd/system/gitlab-runsvdir.service" in listed


def test_gitlab_rails_takes_the_products_script_and_what_the_plan_wants_and_nothing_else(tmp_path: Path) -> None:
    folder = subprocess.run([ROOT / "lab/toolchain/build", "gitlab"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    package = Path(folder) / f"gitlab-ce_{GITLAB.version}-ce.0_amd64.deb"
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path], check=True)
    shutil.copy(ROOT / "scripts/gitlab-tokens.rb", tmp_path / "tokens.rb")
    (tmp_path / "other.rb").write_text("puts 1\n")
    tokens = gitlab.access_tokens(plan_of().releases)
    until = gitlab.tokens_until(datetime.now(UTC).date())
    values = [f"{number:x>{gitlab.TOKEN_LENGTH}}" for number, _ in enumerate(tokens)]
    wanted = gitlab.wanted_tokens(tokens, values, "gitlab.example.com", until)

    def runner(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["chroot", tmp_path, "/opt/gitlab/bin/gitlab-rails", "runner", script],
            input=wanted, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    first, again, other = runner("/tokens.rb"), runner("/tokens.rb"), runner("/other.rb")
    assert first.returncode == 0, first.stderr
    assert f"changed: token '{tokens[0].name}' until {until}" in first.stdout
    assert again.returncode == 0 and "changed" not in again.stdout.replace("unchanged", "")
    assert other.returncode != 0 and "is not the script" in other.stderr
    for kept in (tmp_path / "var/opt/gitlab/double").iterdir():
        assert not [value for value in values if value in kept.read_text()]
