"""`opstella plan`, or `python -m plan --config-file Pulumi.standalone.yaml`: the plan as JSON, without the engine and without secrets."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from datetime import UTC, datetime

from config.errors import ConfigurationError
from config.load import from_stack_file
from config.stack_choice import add_arguments, stack_file
from plan.checks import problems_beside
from plan.plan import as_data, build


def main() -> int:
    parser = argparse.ArgumentParser(prog="opstella plan", description=__doc__)
    add_arguments(parser)
    given = parser.parse_args()
    try:
        file = stack_file(given)
        stack = file.name.removeprefix("Pulumi.").removesuffix(".yaml")
        settings = from_stack_file(file, beyond=problems_beside)
        json.dump(as_data(build(settings, f"opstella/{stack}", datetime.now(UTC).date())), sys.stdout, indent=2)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    return 0


signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops, such as `head`, is no error
sys.exit(main())
