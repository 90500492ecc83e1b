"""Training: batches of clips, augmentation, and the one loop."""

from .augment import check_amounts, training_sampling
from .batches import Batch, Clips, FeatureClips, FrameClips
from .checkpoint import Progress, save_tensors
from .loop import ClipNetwork, fit, predict_logits
from .losses import Teacher
from .memory import keep_memory
from .record_clips import RecordClips
from .taught import StoredAnswers, TaughtClips

__all__ = [
    "Batch",
    "ClipNetwork",
    "Clips",
    "FeatureClips",
    "FrameClips",
    "Progress",
    "RecordClips",
    "StoredAnswers",
    "TaughtClips",
    "Teacher",
    "check_amounts",
    "fit",
    "keep_memory",
    "predict_logits",
    "save_tensors",
    "training_sampling",
]
