"""`python -m plan --config-file Pulumi.standalone.yaml`: the plan as JSON, without the engine and without secrets."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from config.errors import ConfigurationError
from config.load import from_stack_file
from plan.plan import as_data, build


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m plan", description=__doc__)
    parser.add_argument("--config-file", type=Path, required=True, help="a stack file")
    file = parser.parse_args().config_file
    stack = file.name.removeprefix("Pulumi.").removesuffix(".yaml")
    try:
        json.dump(as_data(build(from_stack_file(file), f"opstella/{stack}")), sys.stdout, indent=2)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    print()
    return 0


sys.exit(main())
