"""`python -m verify --stack NAME`: checks a deployed stack from outside; exits 1 when a check fails, 2 when none ran."""

from __future__ import annotations

import argparse
import itertools
import sys

from verify.checks import checks
from verify.runner import run
from verify.ssh import session
from verify.stack import StackUnreadable, read


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m verify", description=__doc__)
    parser.add_argument("--stack", required=True, help="the stack's name, such as standalone")
    parser.add_argument("--config-file", help="its stack file, if it is not Pulumi.NAME.yaml here")
    parser.add_argument("--only", default="", metavar="WORD", help="only the checks in whose name it stands, such as etcd")
    given = parser.parse_args()
    try:
        stack = read(given.stack, given.config_file)
    except StackUnreadable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with session(stack) as ssh:
        chosen = (check for check in checks(stack, ssh) if given.only in check.name)
        first = next(chosen, None)
        if first is None:
            print(f"error: no check has '{given.only}' in its name", file=sys.stderr)
            return 2
        return 1 if run(itertools.chain([first], chosen), stack=given.stack) else 0


sys.exit(main())
