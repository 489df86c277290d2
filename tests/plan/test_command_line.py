"""`opstella`: the file at the top of the repository, from anywhere, and as the documents have it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "docs/network.md")


def said(*arguments: str | Path, folder: Path, status: int = 0, stack: str = "") -> subprocess.CompletedProcess[str]:
    """A run in `folder`, with nothing of this process's environment."""
    done = subprocess.run(
        list(map(str, arguments)), cwd=folder, env={"PATH": "/usr/bin:/bin", "STACK": stack},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.toolchain
def test_it_works_from_any_folder_and_by_a_link(tmp_path: Path) -> None:
    link = tmp_path / "opstella"
    link.symlink_to(ROOT / "opstella")
    # What the folder of the caller holds is no part of it.
    (tmp_path / "plan.py").write_text("raise SystemExit('not this one')")
    shutil.copy(ROOT / "Pulumi.multicluster.yaml", tmp_path / "mine.yaml")
    for command in (ROOT / "opstella", link):
        assert "standalone  worker" in said(command, "network", folder=tmp_path).stdout
        assert "prd            worker" in said(command, "network", folder=tmp_path, stack="multicluster").stdout
        assert "prd-worker-1" in said(command, "network", "export", "json", "--config-file", "mine.yaml", folder=tmp_path).stdout
    assert json.loads(said(link, "plan", "--stack", "multicluster", folder=tmp_path).stdout)["stack"] == "opstella/multicluster"


def test_a_reader_that_stops_is_no_error(tmp_path: Path) -> None:
    for command in ("network export json", "plan"):
        done = said("bash", "-c", f"{ROOT}/opstella {command} --stack multicluster | head -c 1", folder=tmp_path)
        assert not done.stderr


def test_what_it_cannot_do_is_told(tmp_path: Path) -> None:
    command = ROOT / "opstella"
    assert "opstella knows no command 'netwrk'" in said(command, "netwrk", folder=tmp_path, status=2).stderr
    for arguments in ((), ("--help",)):
        assert "network why gitlab worker-1 443" in said(command, *arguments, folder=tmp_path).stdout
    for name in ("network", "plan"):
        done = said(command, name, "--stack", "none", folder=tmp_path, status=2 if name == "network" else 1)
        assert "there is no stack 'none'" in done.stderr and "multicluster, standalone" in done.stderr
    shutil.copy(command, tmp_path)
    assert f"not built yet; run: make -C {tmp_path} engine" in said(tmp_path / "opstella", "network", folder=ROOT, status=2).stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_documents_commands_are_understood(document: str) -> None:
    lines = re.findall(r"^    \./(opstella [a-z][^#>|\n]*)", (ROOT / document).read_text(encoding="utf-8"), re.M)
    assert lines, "the pattern finds nothing"
    for line in lines:
        program, *arguments = shlex.split(line)
        status = 1 if " why " in line else 0
        done = subprocess.run([ROOT / program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, status), f"{line}\n{done.stderr}"
