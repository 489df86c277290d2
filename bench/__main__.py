"""`python -m bench [preview] [state] [network] [deploy] [bastion] [nodes] [ansible]`: prints figures with their baselines;
all but `preview`, `state` and `network` need the lab (root)."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from pathlib import Path

from bench import against_ansible, bastion, deploy, network, nodes, preview, state
from bench.profile import EngineFailed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    choices = ("preview", "state", "network", "deploy", "bastion", "nodes", "ansible")
    parser.add_argument("parts", nargs="*", choices=choices, default=choices, metavar="PART")
    parser.add_argument("--stack", default="standalone", help="of the part ansible (default: standalone)")
    options = parser.parse_args()
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {int(memory.split()[1]) // 2**20} GiB", flush=True)
    parts = {
        "preview": preview.figures,
        "state": state.figures,
        "network": network.figures,
        "deploy": deploy.figures,
        "bastion": bastion.figures,
        "nodes": nodes.figures,
        "ansible": lambda: against_ansible.figures(options.stack),
    }
    for name, figures in parts.items():
        if name not in options.parts:
            continue
        try:
            for line in figures():
                print(line, flush=True)
        except EngineFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


sys.exit(main())
