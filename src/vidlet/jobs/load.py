"""Open a model file, or the one of a run."""

from __future__ import annotations

from pathlib import Path

from ..runs import hub, shipped
from ..runtime import Model
from ..runtime import load as load_file


def load(path: str | Path, threads: int | None = None, provider: str = "cpu") -> Model:
    """Read a model file, or that of a run folder, check it, and make it ready to run.

        model = vidlet.load("runs/a")                 # its file to ship; or one: "runs/a/model.int8.onnx"
        model.classify("clip.mp4").label              # one clip, or a list of them
        scores, state = model(frames, state)          # uint8 (T, H, W, 3), any T; state=None starts
        for moment in model.stream(0): ...            # a camera, a stream or a file: moment.time_s, .label, .scores

    Args:
        path: a run folder, for its file to ship on this machine (runs/shipped.py), a .onnx file as ``vidlet train``
            writes it, or hf://USER/NAME[@REVISION][/FILE] of the hub (``vidlet push``). Nothing in it is
            executed but the graph, which is checked.
        threads: for one operator; None lets the runtime choose.
        provider: where it runs: "cpu", "cuda", "openvino" ..., a key of ``vidlet.runtime.PROVIDERS``.

    Raises:
        ModelError: a folder without a finished run; truncated, foreign, hostile, of another version, or not as the
            contract says; one line.
        DependencyError: the installed runtime has no such provider.
    """
    if str(path).startswith(hub.SCHEME):
        return load_file(hub.fetched(str(path)), threads, provider)
    return load_file(shipped(path, threads or 1, told=False), threads, provider)
