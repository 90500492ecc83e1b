"""Files of the real MobileNetV2 that tests on other machines and in the browser's client share."""

import numpy as np
import pytest
import torch

from shared_data import shared
from vidlet.artifact import ArtifactNetwork, artifact_graph, artifact_metadata, write_artifact
from vidlet.compression.tflite import quantize_imported
from vidlet.models import build_extractor, build_head
from vidlet.recipe import Extractor, Head, Recipe
from vidlet.video import resize
from vidlet.video.folder import load_image

WEIGHTS = ("weights", "coral_tflite", "tf2_mobilenet_v2_1.0_224_ptq.tflite")
CUTS = {"cut": ("block12", 4, "grid-gru"), "whole": ("head", 0, "mean")}
LABELS = ("a", "b", "c", "d")


def pictures() -> np.ndarray:
    """A cat and a bird, uint8 (2, 224, 224, 3)."""
    files = [load_image(shared("weights", "coral_tflite", name)) for name in ("cat.bmp", "bird.bmp")]
    return np.stack([resize(picture, (224, 224)) for picture in files])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of a cut: {"float32": path, "int8": path}, with a head whose scores are far from equal; made once."""
    files: dict[str, dict] = {}

    def make(cut: str):
        if cut in files:
            return files[cut]
        block, grid, name = CUTS[cut]
        extractor = build_extractor(Extractor(weights=str(shared(*WEIGHTS)), cut=block, grid=grid)).eval()
        torch.manual_seed(1)
        head = build_head(Head(name), extractor.feature_shape, len(LABELS))
        frames = pictures()
        with torch.no_grad():
            features = extractor(torch.from_numpy(frames))
            dims = (0, *range(2, features.ndim))
            head.calibrate(features.mean(dims), features.std(dims))
            for parameter in head.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        graph = artifact_graph(ArtifactNetwork(extractor, head).eval(), extractor.input_size)
        about = artifact_metadata(Recipe("test", head=Head(name)), LABELS, 2.0, extractor.provenance)
        folder, checked = tmp_path_factory.mktemp(cut), np.concatenate([frames, frames[:, :, ::-1]])
        write_artifact(graph, folder / "float32.onnx", about, checked)
        write_artifact(quantize_imported(graph, extractor), folder / "int8.onnx", about, checked)
        files[cut] = {kind: folder / f"{kind}.onnx" for kind in ("float32", "int8")}
        return files[cut]

    return make
