"""Networks in PyTorch: frame extractors and the heads on their features."""

from .extractor import FrameExtractor, build_extractor
from .mobilenetv2 import MobileNetV2, fuse_batch_norm

__all__ = ["FrameExtractor", "MobileNetV2", "build_extractor", "fuse_batch_norm"]
