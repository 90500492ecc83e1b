"""Sessions of ONNX Runtime: the one place where threads, provider and options are set and its errors are translated.

Whatever runs a graph opens it here, so that a setting that all of them need (a session config entry such as
``session.x64quantprecision``) is one line in ``open_session``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from ..errors import DependencyError, ModelError, RecipeError
from ..progress import without_remarks

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
MOST_THREADS = 1024
ENTRIES = {"session.load_model_format": "ONNX"}  # the format is never guessed from the content


class Serializable(Protocol):
    """A model in memory, as the onnx package has it; this room does without that package."""

    def SerializeToString(self) -> bytes:
        """The bytes of its file."""
        ...


@dataclass(frozen=True)
class Session:
    """A graph that is ready to run. ``where`` names it in errors. Made by ``open_session``."""

    raw: Any
    where: str

    @property
    def inputs(self) -> dict[str, list[Any]]:
        """Name -> shape of every input; a free dimension is its name."""
        return {value.name: value.shape for value in self.raw.get_inputs()}

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [value.name for value in self.raw.get_outputs()]

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The values of some outputs (None: of all).

        Raises:
            ModelError: ONNX Runtime cannot run the graph on these inputs; one line.
        """
        with _translated(f"{self.where}: the runtime cannot run it"):
            found: list[NDArray[Any]] = self.raw.run(None if outputs is None else list(outputs), dict(feeds))
        return found


def open_session(
    graph: bytes | Serializable,
    where: str = "the graph",
    threads: int | None = None,
    provider: str = "cpu",
    entries: Mapping[str, str] | None = None,
    folded_file: str = "",
) -> Session:
    """Open a graph in ONNX Runtime.

    Args:
        graph: a model, or the bytes of its file. A file that others made is checked (``check_safe``) before.
        where: what errors call it.
        threads: for one operator; None or 0 lets the runtime choose.
        provider: where it runs, a key of ``PROVIDERS``.
        entries: session config entries beside those of ``ENTRIES``.
        folded_file: where to write the graph with its constants folded and its normalizations in their convolutions,
            in standard operators; "" writes nothing.

    Raises:
        ModelError: ONNX Runtime refuses the graph; one line.
        RecipeError: a number of threads that is none.
        DependencyError: the installed ONNX Runtime has no such provider.
    """
    if not 0 <= (threads or 0) <= MOST_THREADS:
        raise RecipeError(f"threads must be from 0 to {MOST_THREADS}, got {threads}")
    if "onnxruntime" not in sys.modules:
        with without_remarks():  # where a board has no graphics card it says so
            importlib.import_module("onnxruntime")
    import onnxruntime

    name = _provider_name(provider, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, and need not be printed too
    for key, value in {**ENTRIES, **(entries or {})}.items():
        options.add_session_config_entry(key, value)
    if folded_file:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = folded_file
    data = graph if isinstance(graph, bytes) else graph.SerializeToString()
    with _translated(f"{where}: the runtime refuses it"):
        raw = onnxruntime.InferenceSession(data, options, providers=[name])
    if raw.get_providers()[0] != name:
        raise DependencyError(f"{where}: onnxruntime could not start its {name} (provider {provider})")
    return Session(raw, where)


def _provider_name(provider: str, available: Sequence[str]) -> str:
    if provider not in PROVIDERS:
        raise DependencyError(f"unknown provider {provider!r}; known: {', '.join(PROVIDERS)}")
    if PROVIDERS[provider] not in available:
        raise DependencyError(f"the installed onnxruntime has no {PROVIDERS[provider]} (provider {provider})")
    return PROVIDERS[provider]


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn what ONNX Runtime raises, which has no class of its own in common, into one line."""
    try:
        yield
    except Exception as error:
        raise ModelError(f"{what} ({' '.join(str(error).split())[:300]})") from error
