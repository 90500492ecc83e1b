"""`python -m vidlet`."""

import sys

from .cli import main

sys.exit(main())
