"""How many SSH sessions a second one bastion lets through: `true` on the hosts behind it, by ever more at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.engine import ROOT
from bench.lab import BenchLab
from plan.stack_file import of_stack_file

_STACK = "standalone"
_SESSIONS = 200
_AT_A_TIME = (1, 8, 32, 100, 200)
# Every session is a login of its own at the bastion and at the host; failures are counted, not tried again.
_SESSION = (
    'ssh -F "$0" -o ControlMaster=no -o ConnectTimeout=60 -o LogLevel=ERROR "$1" true 2>/dev/null || echo refused'
)


def figures() -> Iterator[str]:
    """Lines of figures, as they are measured. The lab goes when they end, however they end."""
    lab = BenchLab(_STACK)
    try:
        lab.start(ROOT / f"Pulumi.{_STACK}.yaml")
        hosts = [h.name for h in of_stack_file(lab.file).topology.hosts if h.role != "bastion"]
        targets = " ".join(hosts[number % len(hosts)] for number in range(_SESSIONS))
        for many in _AT_A_TIME:
            each = f"printf '%s\\n' {targets} | xargs -P {many} -n 1 bash -c '{_SESSION}' {lab.folder}/ssh_config"
            start = time.monotonic()
            refused = lab.command("run", "--", "bash", "-c", each).count("refused")
            seconds = time.monotonic() - start
            yield (
                f"{_SESSIONS} sessions through the bastion, {many:3} at a time  {seconds:6.1f} s"
                f"   {_SESSIONS / seconds:5.1f} a second   {refused} refused"
            )
    finally:
        lab.down()
