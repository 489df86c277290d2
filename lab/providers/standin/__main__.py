"""Serve one stand-in: ``python <folder>/standin PACKAGE ENGINE_ADDRESS``."""

import sys
from pathlib import Path

# Running a folder puts the folder itself on the path, where modules such as
# ``schema`` would be importable under bare names; the package's parent belongs there.
sys.path[0] = str(Path(__file__).absolute().parent.parent)

from standin.server import run  # noqa: E402  (needs the path above)

run(sys.argv[1], sys.argv[2:])
