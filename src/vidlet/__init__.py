"""Compact video classifiers: train from a folder of clips, compress to a budget, ship one file that runs anywhere.

    model = vidlet.load("model.onnx")
    model.classify("clip.mp4")                      # -> Prediction(label, score, scores)
    scores, state = model(frames, state)            # the one idea; state=None starts
    for moment in model.stream("rtsp://..."): ...   # -> moment.time_s, moment.scores, moment.boxes
    vidlet.train("clips/", recipe="mobilenetv2-grid-gru", out="runs/a")

Nothing heavy is imported before it is used; the functions below are one a command.
"""

import importlib
from typing import Any

_JOBS = ["train", "compress", "ensemble", "evaluate", "predict", "extract", "export", "benchmark", "inspect", "data"]
_JOBS += ["demo", "fit", "fuse", "papers", "recipes", "segment"]
_NAMES = {"load": ("vidlet.runtime", "load"), **{name: (f"vidlet.jobs.{name}", name) for name in _JOBS}}
_NAMES["data"] = ("vidlet.jobs.data", "inspect_data")
_NAMES |= {f"register_{kind}": ("vidlet.plugins", f"register_{kind}") for kind in ("data", "extractor", "head", "step")}

__all__ = ["__version__", "benchmark", "compress", "data", "demo", "ensemble", "evaluate", "export", "extract", "fit"]
__all__ += ["fuse", "inspect", "load", "papers", "predict", "recipes", "segment", "train"]
__all__ += ["register_data", "register_extractor", "register_head", "register_step"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("vidlet")
    if name not in _NAMES:
        raise AttributeError(f"module 'vidlet' has no attribute {name!r}")
    module, function = _NAMES[name]
    return getattr(importlib.import_module(module), function)


def __dir__() -> list[str]:
    return sorted(__all__)
