"""Features of clips: extracted once through the runtime, stored, read memory-mapped."""

from .extract import Extracted, extract, extract_taps, narrowed, not_stored, thinned
from .store import ClipFeatures, FeatureStore, clip_key

__all__ = [
    "ClipFeatures",
    "Extracted",
    "FeatureStore",
    "clip_key",
    "extract",
    "extract_taps",
    "narrowed",
    "not_stored",
    "thinned",
]
