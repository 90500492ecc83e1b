"""Processes that work for this one: they begin without the script that a user runs, unless something in it is needed.

Python begins a process of its own by running the main script once more under another name. A script that calls ``fit``
and does not stand under ``if __name__ == "__main__":`` would begin the search in each of its workers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

from .errors import VidletError
from .plugins import added_by_calls


def processes(count: int, begin: Callable[..., None], *given: Any) -> ProcessPoolExecutor:
    """So many processes, each of which calls ``begin`` with what is given first; VidletError: see ``check_script``."""
    check_script()
    return ProcessPoolExecutor(count, mp_context=_Context(), initializer=begin, initargs=given)


def check_script() -> None:
    """For work that will need processes, before it begins.

    Raises:
        VidletError: the script registers what they need, and would begin all of its work in each of them.
    """
    main = getattr(sys.modules["__main__"], "__file__", None)
    if (needed := added_by_calls()) and main and not _guards(Path(main)):
        raise VidletError(
            f'{main}: put what it does under if __name__ == "__main__":, for other processes run it, too: they need '
            f"{', '.join(needed)}, which it registers"
        )


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _without_main():
            return SpawnProcess._Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process


@contextmanager
def _without_main() -> Iterator[None]:
    """While a process begins nothing says where the main script is, unless what it registered is needed."""
    main = vars(sys.modules["__main__"])
    if added_by_calls():
        yield
        return
    kept: dict[str, Any] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
    main["__spec__"] = None
    main.pop("__file__", None)
    try:
        yield
    finally:
        main.update(kept)


def _guards(script: Path) -> bool:
    """Whether a script looks at its name; one that cannot be read may."""
    try:
        return "__main__" in script.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return True
