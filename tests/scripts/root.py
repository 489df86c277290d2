"""A root file system of its own for one command: an overlay of a lab artifact, in namespaces of its own, not booted.

Real package managers run in it. What it does not prove: there is no systemd, and the kernel is the machine's.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.scripts.container import build, run
from tests.scripts.sender import SCRIPTS, Result


class Root:
    """`path` is its root as the test sees it; `bash` runs code with the library and a phase's functions in it."""

    def __init__(self, folder: Path, artifact: str) -> None:
        self.path = folder / "root"
        for name in ("root", "upper", "work"):
            (folder / name).mkdir()
        lower = build(artifact) / "rootfs"
        run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work", str(self.path))
        for device in ("null", "zero", "random", "urandom"):
            (self.path / "dev" / device).touch()
            run("mount", "--bind", f"/dev/{device}", str(self.path / "dev" / device))

        # The journal of a run asks systemd to undo what a killed run changed.
        self.write("/usr/local/sbin/systemd-run", "#!/bin/sh\n", 0o755)
        self.write("/usr/local/sbin/systemctl", '#!/bin/sh\ncase "$1" in is-*) exit 3 ;; esac\n', 0o755)

    def close(self) -> None:
        """Unmounts it; nothing runs in it any more."""
        run("umount", "--recursive", str(self.path))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Writes a file of the root."""
        file = self.path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def read(self, path: str) -> str:
        """The text of a file of the root."""
        return (self.path / path.lstrip("/")).read_text()

    def remove(self, path: str) -> None:
        """Removes a file or a folder of the root."""
        file = self.path / path.lstrip("/")
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)

    def bash(self, code: str, phase: str = "", seconds: int = 120, **environment: str) -> Result:
        """Runs `code` as root of this root, with loopback as its only network; what it leaves running ends with it."""
        source = "".join((SCRIPTS / f"{name}.sh").read_text() for name in ("lib", *([phase] if phase else [])))
        done = subprocess.run(
            ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount", "--uts", "timeout", "--kill-after=5", str(seconds),
             "sh", "-c", 'mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/run" && ip link set lo up && exec chroot "$1" bash -s unit',
             "sh", str(self.path)],
            input=f"{source}\n{code}\n", capture_output=True, text=True, timeout=seconds + 10, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)
