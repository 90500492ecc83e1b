"""Commands of vidlet that are killed at a moment of the program, for test_kills.py: a process that forks one a job.

A moment is an atomic step: the renaming of a finished draft, by which every file of ours gets its name, or a line of a
search's log. Killed "before" step N, the draft is left and the file is not there; killed "behind" it, the file is there
and nothing that follows. The word "fit-small" searches a few small networks, untouched by the clock.
What takes long and is not what is killed, torch's exporter and the timing of files, is done once for all jobs and
remembered in the folder beside theirs; every step stays.
Jobs come as lines of JSON on standard input: {"words", "folder", "env", "at", "when"}; "at" 0 kills never. Each is
answered by {"code", "steps", "said"}: the exit status (-9 if killed), the steps that were begun, standard error.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path


def kill_at(step: int, when: str, steps: Path) -> None:
    """From now on count the renamings of this process into a file, and kill it at one of them."""
    from vidlet.search.trials import TrialLog

    done = 0

    def counted(real):
        def act(*given):
            nonlocal done
            done += 1
            steps.write_text(str(done))
            if done == step and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            found = real(*given)
            if done == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return act

    Path.replace = counted(Path.replace)
    TrialLog._write = counted(TrialLog._write)


def once(path: Path, make: Callable[[], bytes]) -> bytes:
    """What ``make`` gave when it was first asked, in whichever process."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(make())
        os.replace(draft, path)  # noqa: PTH105  # not a step
    return path.read_bytes()


def remember_exports(folder: Path) -> None:
    """From now on torch's exporter is asked once for each graph; that it is kept stays a step of each job."""
    import onnx

    from vidlet.artifact import kept_graphs

    own = kept_graphs._from_disk

    def quick(structure, request, export):
        name = hashlib.sha256(repr((structure.digest, request)).encode()).hexdigest()
        made = partial(once, folder / name, lambda: export().SerializeToString(deterministic=True))
        return own(structure, request, lambda: onnx.load_model_from_string(made()))

    kept_graphs._from_disk = quick


def fit_small(data: str, weights: str, resume: bool) -> int:
    """A search over two cuts of an untrained network, with the heads that it begins with and all the time it needs."""
    from vidlet.jobs.fit import fit
    from vidlet.runtime import benchmark
    from vidlet.search import cards, clips, course, halving, realize
    from vidlet.search.space import Space, cuts_of

    def timed(path, seconds, threads):
        measured = once(Path("../remembered/benchmark"), lambda: json.dumps(benchmark(path, 0.02, threads)).encode())
        return {**json.loads(measured), "bytes": path.stat().st_size}

    for place in (realize, course, cards):
        place.benchmark = timed
    halving.DRAWS, own = 0, halving.finalists
    clips.finalists = lambda *given: own(*given)[:1]
    cuts = cuts_of(width=0.35, weights=weights, size=64, cuts=("block2", "block5"))
    space = Space(cuts, epochs=2, rounds=(0.5,), begin=("default",))
    fit(data, max_size=70_000, time=36_000, out="out", workers=1, resume=resume, space=space)
    return 0


def run(job: dict) -> None:
    """The child."""
    folder = Path(job["folder"])
    os.chdir(folder)
    os.environ.update(job["env"])
    for number, name in ((1, "said.out"), (2, "said.err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    kill_at(job["at"], job["when"], folder / "steps")
    remember_exports(folder.parent / "remembered")
    from vidlet.cli import main

    words = job["words"]
    os._exit(fit_small(*words[1:3], resume="--resume" in words) if words[0] == "fit-small" else main(words))


def serve() -> None:
    """Import once what every job needs, then fork for each."""
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import torch

    import vidlet.jobs.compress
    import vidlet.jobs.fit
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
