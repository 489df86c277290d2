"""`opstella plan`, or `python -m plan --config-file Pulumi.standalone.yaml`: the plan as JSON, without the engine and without secrets."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from datetime import UTC, datetime

from config.errors import ConfigurationError
from config.stack_choice import add_arguments, stack_file
from plan.plan import as_data
from plan.stack_file import of_stack_file


def main() -> int:
    parser = argparse.ArgumentParser(prog="opstella plan", description=__doc__)
    add_arguments(parser)
    given = parser.parse_args()
    try:
        plan = of_stack_file(stack_file(given), today=datetime.now(UTC).date())
        json.dump(as_data(plan), sys.stdout, indent=2)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    return 0


signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops, such as `head`, is no error
sys.exit(main())
