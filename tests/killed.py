"""Commands of vidlet that are killed at a moment of the program, for test_kills.py: a process that forks one a job.

A moment is an atomic step: the renaming of a finished draft, by which every file of ours gets its name. Killed "before"
step N, the draft is left and the file is not there; killed "behind" it, the file is there and nothing that follows.
Jobs come as lines of JSON on standard input: {"words", "folder", "env", "at", "when"}; "at" 0 kills never. Each is
answered by {"code", "steps", "said"}: the exit status (-9 if killed), the steps that were begun, standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path


def kill_at(step: int, when: str, steps: Path) -> None:
    """From now on count the renamings of this process into a file, and kill it at one of them."""
    real, done = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        steps.write_text(str(done))
        if done == step and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        moved = real(self, target)
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.replace = replace


def run(job: dict) -> None:
    """The child."""
    folder = Path(job["folder"])
    os.chdir(folder)
    os.environ.update(job["env"])
    for number, name in ((1, "said.out"), (2, "said.err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    kill_at(job["at"], job["when"], folder / "steps")
    from vidlet.cli import main

    os._exit(main(job["words"]))


def serve() -> None:
    """Import once what every job needs, then fork for each."""
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch

    import vidlet.jobs.compress
    import vidlet.jobs.train  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        job = json.loads(line)
        folder = Path(job["folder"])
        (folder / "steps").write_text("0")
        child = os.fork()
        if child == 0:
            try:
                run(job)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(99)
        _, status = os.waitpid(child, 0)
        found = {
            "code": os.waitstatus_to_exitcode(status),
            "steps": int((folder / "steps").read_text()),
            "said": (folder / "said.err").read_text()[-2000:],
        }
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    serve()
