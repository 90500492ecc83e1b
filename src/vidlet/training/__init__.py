"""Training: batches of clips and pictures, augmentation, the one loop, and the one way to train a network."""

from .augment import check_amounts, training_sampling
from .batches import Batch, Clips, Draw, FeatureClips, FrameClips
from .checkpoint import Progress, save_tensors
from .classification import ClipNetwork, predict_logits, train_network
from .device import DEVICES, find_device, keep_memory
from .losses import Teacher
from .optimizers import for_clips
from .record_clips import RecordClips
from .taught import StoredAnswers, TaughtClips

__all__ = [
    "DEVICES",
    "Batch",
    "ClipNetwork",
    "Clips",
    "Draw",
    "FeatureClips",
    "FrameClips",
    "Progress",
    "RecordClips",
    "StoredAnswers",
    "TaughtClips",
    "Teacher",
    "check_amounts",
    "find_device",
    "for_clips",
    "keep_memory",
    "predict_logits",
    "save_tensors",
    "train_network",
    "training_sampling",
]
