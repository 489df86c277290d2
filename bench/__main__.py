"""`python -m bench [preview] [deploy]`: prints figures with their baselines; `deploy` needs the lab (root)."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from pathlib import Path

from bench import deploy, preview
from bench.engine import EngineFailed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=("preview", "deploy"), default=("preview", "deploy"), metavar="PART")
    parts = parser.parse_args().parts
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {int(memory.split()[1]) // 2**20} GiB", flush=True)
    for name, part in (("preview", preview), ("deploy", deploy)):
        if name not in parts:
            continue
        try:
            for line in part.figures():
                print(line, flush=True)
        except EngineFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


sys.exit(main())
