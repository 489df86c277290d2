"""The stack files and the reader against the real engine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from config.load import from_stack_file
from config.stack_file import read
from tests.config.test_stack_files import FILES, ROOT, uncommented

pytestmark = pytest.mark.toolchain

Pulumi = Callable[..., str]


@pytest.fixture(scope="session")
def engine() -> Path:
    built = subprocess.run([ROOT / "lab/toolchain/build", "pulumi"], check=True, capture_output=True, text=True)
    return Path(built.stdout.strip().splitlines()[-1]) / "bin"


@pytest.fixture
def pulumi(engine: Path, tmp_path: Path) -> Pulumi:
    """The engine in a folder with the project file and a state of its own."""
    (tmp_path / "state").mkdir()
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    environment = os.environ | {
        "PATH": f"{engine}:{os.environ['PATH']}",
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{tmp_path}/state",
        "PULUMI_CONFIG_PASSPHRASE": "passphrase",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }

    def run(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["pulumi", "--non-interactive", *arguments], cwd=tmp_path, env=environment, input=stdin,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def without_salt(file: Path) -> str:
    """The file as it is committed, though a stack of this checkout may have been made already."""
    lines = file.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("encryptionsalt:"))


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_the_comments_survive_the_engine(file: Path, pulumi: Pulumi, tmp_path: Path) -> None:
    """The engine rewrites the file when it sets a value; commented settings keep their place and indentation."""
    copy = tmp_path / file.name
    copy.write_text(without_salt(file))
    before = uncommented(copy.read_text(), examples=True)
    pulumi("stack", "init", file.stem.removeprefix("Pulumi."))
    assert without_salt(copy) == without_salt(file), "the committed file is written as the engine writes it"
    pulumi("config", "set", "--secret", "--path", "opstella:ssh.privateKey", stdin="key")
    pulumi("config", "set", "opstella:domain", "other.example.com")
    text = copy.read_text()
    assert "encryptionsalt" in text
    after = uncommented(text, examples=True)
    assert set(after["opstella:ssh"].pop("privateKey")) == {"secure"}
    assert after.pop("opstella:domain") == "other.example.com"
    del before["opstella:ssh"]["privateKey"], before["opstella:domain"]
    assert after == before
    assert from_stack_file(copy).domain == "other.example.com"
    pulumi(
        "config", "set", "--path", f"opstella:clusters.{next(iter(from_stack_file(file).clusters))}.workers.count", "4"
    )
    assert next(iter(from_stack_file(copy).clusters.values())).workers.count == 4


SCALARS = (
    "yes", "on", "No", "true", "True", "FALSE", "3", "'3'", "-4", "010", "0o10", "0x1F", "0b11", "1_000", "22:22",
    "1.10", "1.5e3", ".5", "null", "~", "", "v1.36.3+rke2r1", "10.0.0.0/8", "[yes, 1, null]", "{a: off, b: {c: 1}}",
    "<<x", "+1", "12e03", "0", "00", "09", "0o9", "1.", "y", "Null", "=", "!!str 7", "8_", "-0x1", "1e3",
)  # fmt: skip


def test_yaml_means_what_the_engine_takes_it_for(pulumi: Pulumi, tmp_path: Path) -> None:
    stack = tmp_path / "Pulumi.dialect.yaml"
    pulumi("stack", "init", "dialect")
    stack.write_text("config:\n  opstella:x:\n" + "".join(f"    k{n}: {text}\n" for n, text in enumerate(SCALARS)))
    engine = json.loads(pulumi("config", "--json", "--stack", "dialect"))["opstella:x"]["objectValue"]
    ours = read(stack, "opstella")[0]["x"]
    different = {
        text: (engine[f"k{n}"], ours[f"k{n}"])
        for n, text in enumerate(SCALARS)
        if (engine[f"k{n}"], type(engine[f"k{n}"]) is str) != (ours[f"k{n}"], type(ours[f"k{n}"]) is str)
    }
    assert different == {}
