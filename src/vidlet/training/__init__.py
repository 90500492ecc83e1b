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
from .team import check_alike, check_device, the_team, together

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
    "check_alike",
    "check_amounts",
    "check_device",
    "find_device",
    "for_clips",
    "keep_memory",
    "predict_logits",
    "save_tensors",
    "the_team",
    "together",
    "train_network",
    "training_sampling",
]
