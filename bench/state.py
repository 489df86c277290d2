"""What saving the state costs as it grows: `up` of more and more resources of the size that this project's have."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.engine import WITHOUT_SAVING, exponent, run

_RESOURCES = (100, 200, 400)
_KIB_EACH = 20
# One after the other, as a chain of hosts and clusters makes them; a random text, so that nothing compresses.
_PROGRAM = """\
import secrets

import pulumi_random

text = secrets.token_hex({size})
for number in range({count}):
    pulumi_random.RandomId(f"row-{{number}}", byte_length=8, keepers={{"text": text}})
"""


def figures() -> Iterator[str]:
    """Lines of figures, as they are measured."""
    with tempfile.TemporaryDirectory(prefix="opstella-bench-") as name:
        folder = Path(name)
        (folder / "state").mkdir()
        (folder / "Pulumi.yaml").write_text("name: opstella\nruntime: python\n")
        environment = {"PULUMI_BACKEND_URL": f"file://{folder}/state", "PULUMI_CONFIG_PASSPHRASE": "bench"}
        saved = []
        for count in _RESOURCES:
            (folder / "__main__.py").write_text(_PROGRAM.format(count=count, size=_KIB_EACH * 512))
            seconds = []
            for which, more in (("saved", {}), ("unsaved", WITHOUT_SAVING)):
                stack = f"{which}-{count}"
                run(["stack", "init", stack], folder=folder, environment=environment)
                up = ["up", "--stack", stack, "--yes", "--skip-preview", "--suppress-outputs"]
                seconds.append(run(up, folder=folder, environment={**environment, **more}).seconds)
            size = (folder / f"state/.pulumi/stacks/opstella/saved-{count}.json").stat().st_size
            saved.append(seconds[0] - seconds[1])
            yield (
                f"{count:5} resources of {_KIB_EACH} KiB, state {size / 2**20:5.1f} MiB   up {seconds[0]:6.1f} s"
                f"   without saving {seconds[1]:6.1f} s   saving {saved[-1]:6.1f} s"
            )
        yield f"growth of saving, least squares: exponent {exponent(_RESOURCES, saved):.2f}"
