"""`opstella images`: every container image that the tools of a stack need, one a line, with its digest where the settings
give it (opstella:media.imageDigests).

Images of RKE2 are not in there: each release has a list of its own, rke2-images-all.linux-amd64.txt, and archives.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys

from config.errors import ConfigurationError
from config.stack_choice import add_arguments, stack_file
from plan import images, media
from plan.checks import own_values
from plan.stack_file import of_stack_file


def main(arguments: list[str] | None = None) -> int:
    """0: the list is whole; 1: it is not, or the stack file makes no sense."""
    parser = argparse.ArgumentParser(prog="opstella images", description=__doc__)
    add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, with the tools that need each image")
    given = parser.parse_args(arguments)
    try:
        plan = of_stack_file(stack_file(given))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    digests = plan.settings.media.image_digests
    if given.json:
        json.dump(images.as_data(plan.releases, digests, media.rke2_version(plan.settings), own_values(plan.settings)), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(image.reference for image in images.images(plan.releases, digests)))
    unread = images.unread(plan.releases)
    for chart in unread:
        print(
            f"warning: the images of the chart {chart} are not in the list, since only the pinned version was read: list"
            " them with `helm template`, or remove the tool's setting `version`",
            file=sys.stderr,
        )
    return 1 if unread else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that stops, such as `head`, is no error
    sys.exit(main())
