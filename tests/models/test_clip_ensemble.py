"""`vidlet ensemble` on files of clips: one file that sees each frame once, and members that do not go together."""

import shutil

import pytest

import vidlet
from vidlet.errors import DataError
from vidlet.runtime import read_metadata, write_metadata


def sampled_at(path, hz, out):
    """The same file, said to see so many frames a second."""
    shutil.copy(path, out)
    metadata = read_metadata(path)
    write_metadata(out, metadata | {"sampling": metadata["sampling"] | {"hz": hz}})
    return out


def test_files_of_clips_become_one_that_is_scored_again(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    limit = sum(path.stat().st_size for path in tiny_run.folder.glob("model*.onnx"))
    found = vidlet.ensemble(tiny_run.clips, [tiny_run.folder], limit, tmp_path / "best")
    path = tmp_path / "best" / "model.onnx"
    assert path.stat().st_size == found["metrics"]["bytes"]["model.onnx"] <= limit
    assert vidlet.evaluate(path, tiny_run.clips)["accuracy"] == found["metrics"]["accuracy"]


def test_members_that_see_other_frames_are_refused(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    faster = sampled_at(tiny_run.model, 16.0, tmp_path / "faster.onnx")
    with pytest.raises(
        DataError, match=r"faster.onnx: sees clips otherwise \(16 Hz, 64 x 64\) than .* \(8 Hz, 64 x 64\)"
    ):
        vidlet.ensemble(tiny_run.clips, [tiny_run.model, faster], 10**6, tmp_path / "best")
