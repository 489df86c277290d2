"""`python -m lab.hosts`, which is what lab/lab runs."""

import sys

from lab.hosts.cli import main

sys.exit(main(sys.argv[1:]))
