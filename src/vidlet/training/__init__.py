"""Training: batches of clips, augmentation, and the one loop."""

from .augment import check_amounts
from .batches import Batch, Clips, FeatureClips, FrameClips
from .loop import ClipNetwork, Progress, fit, predict_logits, save_tensors
from .memory import keep_memory

__all__ = [
    "Batch",
    "ClipNetwork",
    "Clips",
    "FeatureClips",
    "FrameClips",
    "Progress",
    "check_amounts",
    "fit",
    "keep_memory",
    "predict_logits",
    "save_tensors",
]
