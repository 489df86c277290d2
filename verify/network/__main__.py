"""`python -m verify.network --stack NAME`: proves the network contract by real packets between the stack's hosts.

Exits 0 when all is as planned, 1 on differences or where a host is away, 2 when it could not run.
"""

from __future__ import annotations

import argparse
import json
import sys

from verify.network.proof import RATE, prove
from verify.network.table import data, text
from verify.ssh import session
from verify.stack import StackUnreadable, read


def _rate(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of packets from 1 to 1000")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m verify.network", description=__doc__)
    parser.add_argument("--stack", required=True, help="the stack's name, such as standalone")
    parser.add_argument("--config-file", help="its stack file, if it is not Pulumi.NAME.yaml here")
    parser.add_argument("--rate", type=_rate, default=RATE, metavar="N", help=f"packets a second from one host, at most (default: {RATE})")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    given = parser.parse_args(arguments)
    try:
        stack = read(given.stack, given.config_file)
    except StackUnreadable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not stack.firewall:
        print("error: opstella:firewall.enabled is false: the hosts hold nothing back, there is nothing to prove", file=sys.stderr)
        return 2
    with session(stack) as ssh:
        proof = prove(stack, ssh, stack.hosts, given.rate)
    if len(proof.away) > len(proof.hosts) - 2:
        reasons = "\n".join(f"  {why}" for why in proof.away.values())
        print(f"error: fewer than two hosts could be asked\n{reasons}", file=sys.stderr)
        return 2
    print(json.dumps(data(proof), indent=2) if given.json else "\n".join(text(proof)))
    return 0 if proof.as_planned else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; the hosts remove their records by themselves", file=sys.stderr)
        sys.exit(130)
