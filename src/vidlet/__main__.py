"""`python -m vidlet`."""

import sys

from .cli import program

sys.exit(program())
