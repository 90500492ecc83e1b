"""`python -m vidlet.cli`."""

import sys

from . import main

sys.exit(main())
