"""A network of others, tried in a process of its own before it is run here: it may take so much memory and time.

What ``safety.py`` knows is judged without running it. A file with operators that it does not know (an image model
brought along may end in some) is opened and run once in a child that has limits; what survives there does the same
here. ``vidlet ... --trust`` skips that, for files that one has made oneself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..errors import ModelError
from .safety import judge
from .structure import check_structure

TRUST = "VIDLET_TRUST"  # set by --trust, so that worker processes know of it, too
MEMORY_BYTES = 6 * 2**30  # of addresses, which are more than what is used
SECONDS = 120.0


def check_runnable(data: bytes, where: str, memory_bytes: int = MEMORY_BYTES, seconds: float = SECONDS) -> None:
    """Refuse a network of others that hangs, crashes, or takes all memory; free dimensions are 1.

    Raises:
        ModelError: refused by ``check_structure``; beyond the limits of ``judge``; or not known there, and the child
            that ran it once did not end well. One line that begins with ``where``.
    """
    file = check_structure(data, where)
    if os.environ.get(TRUST):
        return
    try:
        judge(file)
    except ModelError as error:
        _try(data, where, str(error), memory_bytes, seconds)


def _try(data: bytes, where: str, why: str, memory_bytes: int, seconds: float) -> None:
    """Run it once in a child; ``why`` it could not be judged is part of what is said if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(data)
        command = [sys.executable, "-c", f"from {__name__} import _run_once; _run_once()"]
        command += [str(path), str(memory_bytes), str(int(seconds))]
        try:
            child = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"{where}: refused, one run of it takes more than {seconds:g} s ({_short(why)})"
            ) from error
    if child.returncode == 0:
        return
    last = (child.stderr.strip().splitlines() or [f"status {child.returncode}"])[-1]
    if child.returncode < 0:
        last = f"it ended by signal {-child.returncode}"
    raise ModelError(
        f"{where}: cannot be run within {memory_bytes // 2**20} MiB and {seconds:g} s ({' '.join(last.split())[:200]})"
    )


def _short(why: str) -> str:
    return why.partition("refused, ")[2] or why


def _run_once() -> None:
    """The child: limits first, then one session and one run on zeros."""
    path, memory_bytes, seconds = sys.argv[1:4]
    with contextlib.suppress(ImportError):  # Windows has no limits of this kind; the time is limited from outside
        import resource

        limits = {resource.RLIMIT_AS: int(memory_bytes), resource.RLIMIT_CPU: int(seconds), resource.RLIMIT_CORE: 0}
        for kind, most in limits.items():
            _, allowed = resource.getrlimit(kind)  # whoever started us may have allowed less already
            resource.setrlimit(kind, (most if allowed == resource.RLIM_INFINITY else min(most, allowed), allowed))
    import numpy as np

    from .session import open_session

    kinds = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
    try:
        session = open_session(Path(path).read_bytes(), "the network", threads=1)
        feeds = {
            value.name: np.zeros([d if isinstance(d, int) and d > 0 else 1 for d in value.shape], kinds[value.type])
            for value in session.raw.get_inputs()
        }
        session.run(None, feeds)
    except Exception as error:  # whatever is wrong is told in one line
        sys.exit(" ".join(str(error).split())[:300] or type(error).__name__)
