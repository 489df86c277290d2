"""`python -m docs.budget`: writes docs/budget.md, what the tools request and what the workers have, from the plan.

`--check` writes nothing and exits 1 when the page differs from the file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generated import write
from docs.tools import plans
from plan.plan import Plan
from plan.tools.budget import RESERVED_CPU, RESERVED_MEMORY, Amount, Budget
from plan.tools.waves import critical_path, waves

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs/budget.md"

HEAD = f"""\
# Resource budget

What the tools of each cluster request (Kubernetes places pods by requests, not by what they use) against what its workers
have for them: their size, less {RESERVED_CPU} millicores and {RESERVED_MEMORY} MiB each for the node itself. `python -m docs.budget`
makes this page from the plan of the two stack files; other sizes (`opstella:clusters.standalone.workers`) or fewer tools give
other sums, which `python -m plan` prints. A stack whose tools do not fit is refused with these sums. `make verify` prints what
the pods of a deployed stack really request beside them.
"""


def page(found: list[Plan]) -> str:
    """The whole page."""
    parts = [HEAD]
    for plan in found:
        for cluster, budget in plan.budgets.items():
            name = plan.stack.partition("/")[2]
            parts.append(f"\n## {name}{'' if cluster == name else f': {cluster}'}\n\n")
            parts.append(_table(budget))
            parts.append(_order(plan, cluster))
    return "".join(parts)


def _table(budget: Budget) -> str:
    rows = ["| tool | pods | CPU | memory |\n|---|---|---|---|\n"]
    for row in budget.rows:
        pods = ", ".join(f"{number} × {name}" for name, number, _ in row.pods) or "–"
        rows.append(f"| {row.tool} | {pods} | {_cpu(row.total)} | {_memory(row.total)} |\n")
    rows.append(f"| provisioning Jobs | at once | {_cpu(budget.jobs)} | {_memory(budget.jobs)} |\n")
    rows.append(f"| **together** | | **{_cpu(budget.total)}** | **{_memory(budget.total)}** |\n")
    rows.append(f"| **workers have** | | **{_cpu(budget.capacity)}** | **{_memory(budget.capacity)}** |\n")
    free = [
        100 * (have - asked) / have if have else 0
        for have, asked in (
            (budget.capacity.cpu, budget.total.cpu), (budget.capacity.memory, budget.total.memory),
        )
    ]  # fmt: skip
    rows.append(f"| free | | {free[0]:.0f} % | {free[1]:.0f} % |\n")
    return "".join(rows)


def _order(plan: Plan, cluster: str) -> str:
    releases = plan.releases[cluster]
    steps = "".join(f"{number}. {', '.join(wave)}\n" for number, wave in enumerate(waves(releases), 1))
    return (
        "\nWaves, in which they deploy (each starts as soon as what it needs stands):\n\n"
        f"{steps}\nLongest chain of needs: {' → '.join(critical_path(releases))}.\n"
    )


def _cpu(amount: Amount) -> str:
    return f"{amount.cpu / 1000:.2f}"


def _memory(amount: Amount) -> str:
    return f"{amount.memory / 1024:.2f} Gi"


if __name__ == "__main__":
    sys.exit(write("budget", FILE, page(plans()), __doc__, "the plan"))
