"""Ready models: what is listed, what a name stands for, and how it comes. Nothing is downloaded: file:// stands in."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

import vidlet
from shared_data import shared
from toy_detectors import fastestdet
from vidlet import published
from vidlet.errors import ModelError, WeightsError
from vidlet.published import DETECTORS, WeightsFile, find_file
from vidlet.runs import READY, keep_ready, model_file, ready
from vidlet.runtime import read_metadata


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no folders of the user's."""
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VIDLET_WEIGHTS", raising=False)
    monkeypatch.delenv("VIDLET_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def row_of(name: str) -> dict:
    [row] = [row for row in vidlet.ready_models() if row["name"] == name]
    return row


def test_what_is_not_here_yet_is_listed_without_figures_and_with_the_way_to_it(run):
    status, out, err = run("models")
    assert (status, err) == (0, "")
    assert re.search(r"^motion +clips .* `vidlet demo` makes it$", out, re.M)
    assert re.search(r"^fastestdet +boxes .* – .*BSD-3-Clause +`vidlet models fastestdet` fetches it$", out, re.M)
    for row in vidlet.ready_models():
        assert row["licence"] and (row["bytes"], row["labels"], row["evidence"], row["path"]) == (None,) * 4
    with pytest.raises(ModelError, match="motion: a ready model that is not on this machine yet; `vidlet demo` makes"):
        vidlet.load("motion")
    assert run("models", "motion")[0] == 2
    assert "motoin: no such file or run, and no ready model (did you mean motion?)" in run("inspect", "motoin")[2]
    assert "imagent: no ready model (did you mean imagenet?)" in run("models", "imagent")[2]


def test_a_ready_model_is_called_by_its_name_and_told_by_its_own_evidence(tiny_run, run, tmp_path):
    keep_ready("motion", tiny_run.folder / "model.int8.onnx")
    row, about = row_of("motion"), read_metadata(tiny_run.folder / "model.int8.onnx")
    assert (row["labels"], row["evidence"], row["hz"]) == (about["labels"], about["evidence"], 8)
    assert (row["bytes"], row["input_size"]) == ((tiny_run.folder / "model.int8.onnx").stat().st_size, [64, 64])
    clip = next(tiny_run.clips.rglob("*.mp4"))
    by_name, by_file = (vidlet.load(name) for name in ("motion", tiny_run.folder / "model.int8.onnx"))
    assert by_name.classify(clip) == by_file.classify(clip)
    status, out, err = run("predict", "motion", str(clip), "--json")
    assert (status, json.loads(out)["label"]) == (0, by_file.classify(clip).label)
    assert f"model   {row['path']}" in err
    accuracy = next(item["value"] for item in about["evidence"] if item["what"].startswith("accuracy, "))
    assert f"accuracy {100 * accuracy:.1f} % (" in run("models")[1]
    shutil.copytree(tiny_run.folder, tmp_path / "motion")  # a path that exists goes first
    assert model_file("motion") == Path("motion/model.onnx")


def test_models_of_ones_own_lie_in_a_folder(tiny_run, run, tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(tiny_run.model, own / "door.onnx")
    shutil.copytree(tiny_run.folder, own / "bell")
    (own / "broken.onnx").write_bytes(b"not a model")
    monkeypatch.setenv("VIDLET_MODELS", str(own))
    assert model_file("door") == own / "door.onnx"
    assert model_file("bell") == own / "bell" / "model.onnx"
    assert row_of("bell")["labels"] == row_of("door")["labels"] == list(vidlet.load(tiny_run.model).labels)
    assert "broken.onnx" in row_of("broken")["about"] and row_of("broken")["task"] is None
    assert "did you mean door?" in run("benchmark", "dor")[2]
    assert run("models", "door", "--json")[0] == 0
    monkeypatch.setenv("VIDLET_MODELS", str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"VIDLET_MODELS=.*nowhere: not a folder"):
        vidlet.ready_models()


def test_damaged_weights_are_told_in_their_row_and_spoil_no_list(cache):
    file = cache / "weights" / published.WEIGHTS["mobilenet_v1_0.25_128_quant"].file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"broken")
    row = row_of("mobilenet_v1_0.25_128_quant")
    assert row["path"] is None and "damaged or another file" in row["about"]


def test_a_published_detector_becomes_a_file_that_says_whose_it_is(tmp_path, monkeypatch):
    server = tmp_path / "server"
    server.mkdir()
    onnx.save(fastestdet(), server / "Net.onnx")
    digest = hashlib.sha256((server / "Net.onnx").read_bytes()).hexdigest()
    part = WeightsFile("Net.onnx", (server / "Net.onnx").as_uri(), digest, "BSD-3-Clause", "a test")
    entry = replace(READY["fastestdet"], parts=(part,), source=part.url, licence=part.licence)
    monkeypatch.setitem(ready.READY, "fastestdet", entry)
    monkeypatch.setattr("vidlet.artifact.detector.COCO", ("person", "cup"))
    with pytest.raises(ModelError, match="`vidlet models fastestdet` fetches it"):
        model_file("fastestdet")
    [row] = vidlet.ready_models(["fastestdet"])
    assert (row["task"], row["labels"], row["evidence"]) == ("boxes", ["person", "cup"], [])
    provenance = vidlet.load("fastestdet").metadata["provenance"]
    assert (provenance["licence"], provenance["url"], provenance["sha256"]) == ("BSD-3-Clause", part.url, digest)
    (server / "Net.onnx").unlink()
    assert vidlet.ready_models(["fastestdet"]) == [row]  # it is fetched once
    (tmp_path / "cache" / "weights" / "Net.onnx").unlink()
    Path(row["path"]).unlink()
    with pytest.raises(WeightsError, match=r"cannot be downloaded .* or set VIDLET_WEIGHTS"):
        vidlet.ready_models(["fastestdet"])


def test_every_published_detector_has_an_address_a_checksum_and_a_licence():
    for name, parts in DETECTORS.items():
        for part in parts:
            assert re.fullmatch(r"[0-9a-f]{64}", part.sha256), name
            assert part.url.startswith("https://github.com/") and part.url.endswith(f"/{part.file}") and part.licence


@pytest.mark.parametrize("name", DETECTORS)
def test_the_checksums_are_those_of_the_files(name, monkeypatch):
    monkeypatch.setenv("VIDLET_WEIGHTS", str(shared("weights")))
    for part in DETECTORS[name]:
        assert find_file(part).name == part.file
        assert published.is_here(part)
