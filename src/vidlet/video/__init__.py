"""Video in and out: decode, sample, resize, read ahead, write, annotate, watch live."""

from .address import as_place, is_live
from .ahead import read_many
from .annotate import Strip, annotate, enlarge
from .clip import SampledClip, frame_times, iter_frames, probe, read_clip, stream_clip
from .frames import Frame, VideoInfo
from .live import LiveSource
from .resize import RESIZE, resize
from .sample import consecutive_window, random_ascending, rate_ticks, uniform_indices
from .upright import COLORS
from .write import VideoWriter, container_of, write_video

__all__ = [
    "COLORS",
    "RESIZE",
    "Frame",
    "LiveSource",
    "SampledClip",
    "Strip",
    "VideoInfo",
    "VideoWriter",
    "annotate",
    "as_place",
    "consecutive_window",
    "container_of",
    "enlarge",
    "frame_times",
    "is_live",
    "iter_frames",
    "probe",
    "random_ascending",
    "rate_ticks",
    "read_clip",
    "read_many",
    "resize",
    "stream_clip",
    "uniform_indices",
    "write_video",
]
