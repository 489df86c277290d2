"""`python -m chaos`: does each fault to a running lab and prints a table; exit status 1 when a target is missed.

Without a lab, the demo of $STACK (multicluster) is brought up first, and left standing. Faults are undone at the end, also
on Ctrl-C.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from chaos import engine
from chaos.cluster import Cluster
from chaos.experiment import experiment
from chaos.faults import FAULTS, NotHere
from chaos.lab import ROOT, ChaosError, Lab
from chaos.page import Row, table, with_rows

_DEMO_SECONDS = 7200
NAMES = [*(fault.name for fault in FAULTS), *engine.FAULTS]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--list", action="store_true", help="the faults there are")
    parser.add_argument("--only", default="", metavar="NAME,…", help="only these faults")
    parser.add_argument("--cluster", help="the cluster they are done to (default: the first; to be cut off: the last)")
    parser.add_argument("--seed", type=int, help="of the random moments (default: a new one, which is printed)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the rows into the table of this page, by fault")
    parser.add_argument("--requests", type=Path, metavar="FOLDER", help="keep every request there, a JSON line each")
    given = parser.parse_args()
    if given.list:
        for fault in FAULTS:
            print(f"{fault.name:<18} {fault.what} ({fault.target.value})")
        for name, one in engine.FAULTS.items():
            print(f"{name:<18} {one.what}")
        return 0
    only = [name for name in given.only.split(",") if name]
    if unknown := sorted(set(only) - set(NAMES)):
        parser.error(f"no fault {', '.join(unknown)}; there are {', '.join(NAMES)}")
    try:
        if given.write:
            with_rows(given.write.read_text(encoding="utf-8"), [], NAMES)
    except (OSError, ValueError) as error:
        parser.error(f"--write {given.write}: {error}")
    if os.geteuid() != 0:
        parser.error("the lab needs root: sudo -E make chaos")
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    try:
        rows, failed = run(only or NAMES, given.cluster, seed, given.requests, given.write)
    except ChaosError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n" + table(rows))
    return 1 if failed or any(row.target.startswith("MISSED") for row in rows) else 0


def run(
    names: list[str], cluster: str | None, seed: int, keep: Path | None, page: Path | None
) -> tuple[list[Row], int]:
    """The rows of the faults that could be made, and how many of them came to no end."""
    lab = Lab()
    if not lab.stands:
        stack = os.environ.get("STACK") or "multicluster"
        print(f"no lab stands: lab/demo brings {stack} up first", flush=True)
        try:
            subprocess.run(
                [ROOT / "lab/demo"],
                env={**lab.environment, "STACK": stack},
                cwd=ROOT,
                check=True,
                timeout=_DEMO_SECONDS,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            raise ChaosError(f"the demo of {stack} failed; the reason stands above") from None
    clusters = [c["name"] for c in lab.plan["clusters"]]
    if cluster and cluster not in clusters:
        raise ChaosError(f"no cluster {cluster!r} in this lab; there are {', '.join(clusters)}")
    rows: list[Row] = []
    failed = 0

    def attempt(name: str, make: Callable[[], Row]) -> None:
        nonlocal failed
        print(f"{datetime.datetime.now():%H:%M:%S} {name}", flush=True)
        try:
            rows.append(make())
        except NotHere as reason:
            print(f"         left out: {reason}", flush=True)
        except ChaosError as error:
            failed += 1
            print(f"         FAILED: {error}", flush=True)
        else:
            row = rows[-1]
            if page:  # at once: what was measured is not lost by what comes after
                page.write_text(with_rows(page.read_text(encoding="utf-8"), [row], NAMES), encoding="utf-8")
            print(
                f"         {row.done}\n         {row.clients}\n         {row.recovered}\n         {row.lost}; {row.target}",
                flush=True,
            )

    outputs = lab.outputs()
    for fault in FAULTS:
        if fault.name in names:
            chosen = Cluster(lab, cluster or clusters[-1 if fault.elsewhere else 0])
            attempt(fault.name, lambda: experiment(lab, fault, chosen, outputs, f"{machine(lab)}, {chosen.name}", keep))
    for name, one in engine.FAULTS.items():
        if name in names:
            attempt(
                name,
                lambda: one.do(
                    lab, Cluster(lab, cluster or clusters[0]), outputs, random.Random(f"{seed} {name}"), machine(lab)
                ),
            )
    return rows, failed


def machine(lab: Lab) -> str:
    """When and on what: date, machine size and how busy it was with everything else, stack."""
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    hosts = len(lab.plan["hosts"])
    load = f"load {os.getloadavg()[1]:.0f}"
    return f"{datetime.date.today()}, {os.cpu_count()} cores ({load}), {int(total.split()[1]) // 2**20} GiB, {lab.stack} ({hosts} hosts)"


sys.exit(main())
