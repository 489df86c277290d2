"""Entry point: settings become a plan, the plan becomes components, components become outputs."""

import sys
from datetime import UTC, datetime

import pulumi

from components.chart_archives import archives
from config.errors import ConfigurationError
from config.load import load
from plan.checks import problems_beside
from plan.plan import build
from stacks.ending import SHOWN, leave_when_interrupted, settle
from stacks.outputs import outputs
from stacks.platform import deploy


def main() -> None:
    leave_when_interrupted()
    try:
        plan = build(load(problems_beside), f"{pulumi.get_project()}/{pulumi.get_stack()}", datetime.now(UTC).date())
        charts = archives(plan.charts)
    except ConfigurationError as error:
        pulumi.log.error(str(error))
        sys.exit(SHOWN)
    for warning in plan.warnings:
        pulumi.log.warn(warning)
    for name, value in outputs(plan, deploy(plan, charts)).items():
        pulumi.export(name, value)
    pulumi.run(settle)


main()
