"""Where the real clips and pretrained weights for tests lie; what needs them skips where they are absent."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("VIDLET_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared(*parts: str) -> Path:
    """Return a path below ../shared (or $VIDLET_SHARED), or skip the calling test with the reason."""
    path = ROOT.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real data are not here: {'/'.join(parts)} is missing from ../shared (set VIDLET_SHARED)")
    return path
