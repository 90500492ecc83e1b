"""`python -m vidlet`."""

import os
import sys

from .cli import main
from .progress import follows

status = main()
if follows():  # libraries' threads have aborted at the interpreter's end, and torchrun ends all for it
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
sys.exit(status)
