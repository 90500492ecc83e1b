"""A detector's file as an extractor of frames: its final map is the features, and its boxes go with the action.

Cheng et al., "DEEPEYE": one pass of the detector a frame gives boxes, shown live, and the map that a recurrent network
reads the action from. The file stays what it is, in 8 bits if it is: training sees the map that the device computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..errors import ModelError, RecipeError, WeightsError
from ..files import sha256_of
from ..onnx_graph import Graph
from ..recipe import Extractor
from ..runs import model_file
from ..runtime import Session, load, open_session
from .extractor import FrameExtractor

MAP, BOXES, FEATURES = "map", "boxes", "features"
PART = "detector."  # names of all that is the detector's begin with it
ANSWERS = ("box_corners", "box_scores")  # of all cells, before suppression
KEPT = ("frames", MAP, BOXES, *ANSWERS)  # names that others know


class DetectorFile(FrameExtractor):
    """uint8 frames (T, H, W, 3) -> the maps (T, A (5 + K), h, w) that a detector's file computes; not trained.

    Args:
        path: a file that detects, as ``vidlet train`` writes it.

    Raises:
        ModelError: not a model file. WeightsError: it does not detect, or has no map to read.
    """

    def __init__(self, path: Path) -> None:
        nn.Module.__init__(self)
        model = load(path, threads=1)
        if not model.box_labels or model.labels:
            raise WeightsError(f"{path}: not the file of a detector alone; it cannot be an extractor")
        self.box_labels, self.input_size = model.box_labels, model.input_size
        self.backbone = nn.Identity()  # type: ignore[assignment]
        self.grid, self.ranges, self.whole, self.freeze_norm = 0, None, True, True
        self.provenance = {
            "weights": "detector", "file": f"{path.parent.name}/{path.name}", "sha256": sha256_of(path),
            "licence": str(model.metadata["provenance"].get("licence", "not stated")),
        }  # fmt: skip
        self.detector = _all_frames(onnx.load(str(path)), str(path))
        self._session: Session | None = None
        probe = torch.zeros(2, *self.input_size, 3, dtype=torch.uint8)
        self.feature_shape = tuple(self.forward(probe).shape[1:])

    def forward(self, frames: Tensor) -> Tensor:
        """Frames uint8 (T, H, W, 3) -> maps (T, A (5 + K), h, w)."""
        if self._session is None:
            self._session = open_session(self.graph(), "the detector", threads=1)
        found: np.ndarray = self._session.run([FEATURES], {"frames": frames.cpu().numpy()})[0]
        return torch.from_numpy(found)

    def graph(self) -> onnx.ModelProto:
        """Frames uint8 (T, H, W, 3) -> ``features`` (T, A (5 + K), h, w), as the file computes them."""
        graph = Graph.copy_of(self.detector)
        shape = ["T", None, None, None]
        graph.set_outputs([onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, shape)])
        graph.prune()
        return graph.model

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}  # made again where it is needed


def build_detector_file(config: Extractor) -> FrameExtractor:
    """The extractor "detector" of a recipe; ``weights``: a detector's run folder (its model.onnx), or one of its files.

    Raises:
        RecipeError: no weights, a grid, or frames of another size than the detector's.
        WeightsError: no such file, or not a detector's.
    """
    if config.weights in ("none", "imagenet"):
        raise RecipeError(
            "extractor.weights of detector must be the run folder of a detector, or one of its .onnx files, got "
            f"{config.weights!r}: train one, as in `vidlet train boxes/ --recipe tiny-yolov2 --out runs/boxes`, and "
            "give it by --set extractor.weights=runs/boxes"
        )
    path = Path(config.weights).expanduser()
    path = model_file(path)
    if not path.is_file():
        raise WeightsError(f"{config.weights}: no such file, or no finished run of a detector")
    if config.grid:
        raise RecipeError(f"extractor.grid of detector must be 0: its map stays whole, got {config.grid}")
    if config.cut not in ("map", "block12", ""):
        raise RecipeError(f"extractor.cut of detector must be 'map', its last one, got {config.cut!r}")
    try:
        found = DetectorFile(path)
    except ModelError as error:
        raise WeightsError(str(error)) from error
    if found.input_size != config.input_size:
        height, width = found.input_size
        raise RecipeError(
            f"extractor.input_size is {list(config.input_size)}, but {path} takes frames of {height} x {width}: "
            f"--set extractor.input_size=[{height},{width}]"
        )
    return found


def _all_frames(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """A detector's graph that computes the maps of all frames, ``features``, and the boxes of the last of them."""
    graph = Graph(model)
    readers = graph.readers.get("frames", [])
    if MAP not in graph.makers or len(readers) != 1 or readers[0].op_type != "Slice":
        raise WeightsError(f"{where}: has no map of its last frame; write it again with this version")
    graph.redirect({readers[0].output[0]: "frames"})
    graph.remove([readers[0]])
    of_cells = BOXES in graph.descendants(MAP)  # else the boxes come from other numbers of the network
    for name, of_all in {MAP: FEATURES, **({} if of_cells else {n: f"{n}.all" for n in ANSWERS})}.items():
        maker = graph.makers[name]
        maker.output[0] = of_all
        of_last = onnx.helper.make_node("Slice", [of_all, "first", "end", "axis"], [name])
        graph.insert(graph.nodes.index(maker) + 1, [of_last])
    for name, value in (("first", -1), ("end", np.iinfo(np.int64).max), ("axis", 0)):
        graph.store(name, np.array([value], np.int64))
    del model.graph.value_info[:], model.metadata_props[:]
    graph.index()
    outputs = list(graph.proto.output)
    graph.set_outputs([*outputs, onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, None)])
    graph.prune()
    graph.set_outputs(outputs)
    kept = (*KEPT, FEATURES)
    graph.rename(lambda name: name if name in kept or name.startswith(PART) else PART + name)
    graph.drop_node_names()  # those of the head have names
    onnx.checker.check_model(model)
    return model
