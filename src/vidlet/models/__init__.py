"""Networks in PyTorch: frame extractors and the heads on their features."""

from .extractor import FrameExtractor
from .extractors import build_extractor
from .head import Head
from .heads import HEADS, build_head
from .mobilenets import MobileNetV2, fuse_batch_norm

__all__ = ["HEADS", "FrameExtractor", "Head", "MobileNetV2", "build_extractor", "build_head", "fuse_batch_norm"]
