"""Compact video classifiers: train from a folder of clips, compress to a budget, ship one file that runs anywhere.

    model = vidlet.load("runs/a")                   # or a file
    model.classify("clip.mp4")                      # -> Prediction(label, score, scores)
    scores, state = model(frames, state)            # the one idea; state=None starts
    for moment in model.stream("rtsp://..."): ...   # -> moment.time_s, moment.scores, moment.boxes
    vidlet.train("clips/", recipe="mobilenetv2-grid-gru", epochs=30, out="runs/a")

Nothing heavy is imported before it is used; the functions below are one a command.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what checkers and editors see; at run time each is imported when it is first asked for
    from .errors import VidletError
    from .jobs.benchmark import benchmark
    from .jobs.compare import compare
    from .jobs.compress import compress
    from .jobs.data import inspect_data as data
    from .jobs.demo import demo
    from .jobs.ensemble import ensemble
    from .jobs.evaluate import evaluate
    from .jobs.export import export
    from .jobs.extract import extract
    from .jobs.fit import fit
    from .jobs.fuse import fuse
    from .jobs.inspect import inspect
    from .jobs.label import label
    from .jobs.load import load
    from .jobs.models import ready_models
    from .jobs.papers import papers
    from .jobs.predict import predict
    from .jobs.push import push
    from .jobs.recipes import recipes
    from .jobs.record import record
    from .jobs.segment import segment
    from .jobs.sweep import sweep
    from .jobs.train import train
    from .plugins import register_data, register_extractor, register_head, register_step
    from .runtime import Model, Prediction

    __version__: str

_JOBS = ["train", "compress", "ensemble", "evaluate", "predict", "extract", "export", "benchmark", "inspect"]
_JOBS += ["compare", "demo", "fit", "fuse", "label", "load", "papers", "push", "recipes", "record", "segment", "sweep"]
_NAMES = {name: (f"vidlet.jobs.{name}", name) for name in _JOBS}
_NAMES |= {"data": ("vidlet.jobs.data", "inspect_data"), "VidletError": ("vidlet.errors", "VidletError")}
_NAMES |= {"ready_models": ("vidlet.jobs.models", "ready_models")}
_NAMES |= {name: ("vidlet.runtime", name) for name in ("Model", "Prediction")}
_NAMES |= {f"register_{kind}": ("vidlet.plugins", f"register_{kind}") for kind in ("data", "extractor", "head", "step")}

__all__ = [
    "Model",
    "Prediction",
    "VidletError",
    "__version__",
    "benchmark",
    "compare",
    "compress",
    "data",
    "demo",
    "ensemble",
]
__all__ += [
    "evaluate",
    "export",
    "extract",
    "fit",
    "fuse",
    "inspect",
    "label",
    "load",
    "papers",
    "predict",
    "push",
    "ready_models",
    "recipes",
    "record",
    "segment",
]
__all__ += ["register_data", "register_extractor", "register_head", "register_step", "sweep", "train"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("vidlet")
    if name not in _NAMES:
        raise AttributeError(f"module 'vidlet' has no attribute {name!r}")
    module, attribute = _NAMES[name]
    found = getattr(importlib.import_module(module), attribute)
    return found if isinstance(found, type) else importlib.import_module("vidlet.called").called(found, name)


def __dir__() -> list[str]:
    return sorted(__all__)
