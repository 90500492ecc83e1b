"""Features of clips: extracted once through the runtime, stored, read memory-mapped."""

from .cluster import extract_on_ray, on_cluster, same_version, what_failed
from .extract import (
    Extracted,
    damaged_clips,
    extract,
    extract_taps,
    holds_any,
    joined,
    narrowed,
    not_stored,
    store_setting,
    thinned,
)
from .shards import Shard, merge_stores
from .store import ClipFeatures, FeatureStore, clip_key

__all__ = [
    "ClipFeatures",
    "Extracted",
    "FeatureStore",
    "Shard",
    "clip_key",
    "damaged_clips",
    "extract",
    "extract_on_ray",
    "extract_taps",
    "holds_any",
    "joined",
    "merge_stores",
    "narrowed",
    "not_stored",
    "on_cluster",
    "same_version",
    "store_setting",
    "thinned",
    "what_failed",
]
