"""`opstella charts`: the digests that the chart repositories of a stack give now, as a block for its stack file.

Each archive is fetched and hashed, and compared with what the repository's index says. Pasted, the block has every later
deployment refuse another archive (opstella:media.chartDigests). Charts of this project have no archive.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence

from components.chart_archives import digest_of, download
from config.errors import ConfigurationError, Fault
from config.stack_choice import add_arguments, stack_file
from plan.chart_sources import ChartSource
from plan.stack_file import of_stack_file


def main(arguments: list[str] | None = None) -> int:
    """0: every digest is there, and none differs from a pinned one; 1: one is not, or the stack file makes no sense."""
    parser = argparse.ArgumentParser(prog="opstella charts", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, with version, repository and the pinned digest")
    given = parser.parse_args(arguments)
    try:
        plan = of_stack_file(stack_file(given))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    found: dict[ChartSource, str] = {}
    good = True
    for source, archive in download(plan.charts).items():
        about = f"{source.tool} (chart {source.chart} {source.version} of {source.repository})"
        if isinstance(archive, Fault):
            print(f"error: {about}: {archive.what}\n    fix: {archive.fix}", file=sys.stderr)
            good = False
            continue
        found[source] = digest_of(archive)
        if source.digest and source.digest != found[source]:
            print(
                f"warning: {about} is pinned to {source.digest}, and the repository gives {found[source]}: if neither version "
                "nor repository was changed since, ask its owner why before you write the new digest",
                file=sys.stderr,
            )
            good = False
    print(json.dumps(_data(found), indent=2) if given.json else _block(found))
    return 0 if good else 1


def _block(found: dict[ChartSource, str]) -> str:
    """Indented as it stands below `config:`."""
    lines = [f"      {s.tool}: {digest}  # {s.chart} {s.version}, {s.repository}" for s, digest in found.items()]
    return "\n".join(["  opstella:media:", "    chartDigests:", *lines])


def _data(found: dict[ChartSource, str]) -> Sequence[dict[str, str | None]]:
    return [
        {
            "tool": s.tool,
            "chart": s.chart,
            "version": s.version,
            "repository": s.repository,
            "digest": digest,
            "pinned": s.digest,
        }
        for s, digest in found.items()
    ]


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops, such as `head`, is no error
    sys.exit(main())
