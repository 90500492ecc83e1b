"""Where pretrained weights come from, and what becomes of wrong ones. Nothing is downloaded: file:// stands in."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from vidlet import published
from vidlet.errors import WeightsError
from vidlet.models import MobileNetV2, build_extractor
from vidlet.models.weights import load_into_, load_state_dict, torchvision_key
from vidlet.published import WeightsFile, find_weights
from vidlet.recipe import Extractor

CONTENT = b"pretrained"


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A table of one file on a local server, an empty cache, no VIDLET_WEIGHTS. Returns the server's folder."""
    server = tmp_path / "server"
    server.mkdir()
    (server / "net.bin").write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    entry = WeightsFile("net.bin", (server / "net.bin").as_uri(), digest, "Apache-2.0", "a test")
    monkeypatch.setattr(published, "WEIGHTS", {"net": entry})
    monkeypatch.setenv("VIDLET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VIDLET_WEIGHTS", raising=False)
    return server


def torchvision_names() -> dict[str, str]:
    """Ours -> torchvision's, written out block by block as its source lays them: the slow way round."""
    names: dict[str, str] = {}

    def layer(ours: str, conv: str, norm: str) -> None:
        names[f"{ours}.conv.weight"] = f"{conv}.weight"
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            names[f"{ours}.norm.{tensor}"] = f"{norm}.{tensor}"

    layer("stem", "features.0.0", "features.0.1")
    layer("block0.depthwise", "features.1.conv.0.0", "features.1.conv.0.1")
    layer("block0.project", "features.1.conv.1", "features.1.conv.2")
    for block in range(1, 17):
        place = f"features.{block + 1}.conv"
        layer(f"block{block}.expand", f"{place}.0.0", f"{place}.0.1")
        layer(f"block{block}.depthwise", f"{place}.1.0", f"{place}.1.1")
        layer(f"block{block}.project", f"{place}.2", f"{place}.3")
    layer("head", "features.18.0", "features.18.1")
    return {**names, "classifier.weight": "classifier.1.weight", "classifier.bias": "classifier.1.bias"}


def torchvision_state(width: float = 1.0) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    ours = MobileNetV2(width, classes=10).state_dict()
    names = torchvision_names()
    return {names[key]: value for key, value in ours.items() if key in names}


def test_every_tensor_has_its_torchvision_name():
    names = torchvision_names()
    ours = [key for key in MobileNetV2(classes=10).state_dict() if not key.endswith("num_batches_tracked")]
    assert {key: torchvision_key(key) for key in ours} == names


def test_a_torchvision_state_dict_fills_a_cut_network_and_brings_its_normalization(tmp_path):
    state = torchvision_state()
    torch.save(state, tmp_path / "mobilenet_v2.pth")
    config = Extractor(weights=str(tmp_path / "mobilenet_v2.pth"), cut="block3", grid=0, input_size=(64, 64))
    extractor = build_extractor(config)
    assert torch.equal(extractor.backbone.block3.expand.conv.weight, state["features.4.conv.0.0.weight"])
    gray = torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)
    red, green, blue = extractor.normalize(gray)[0, :, 0, 0].tolist()
    assert (red, green, blue) == pytest.approx(
        ((1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225), rel=1e-5
    )
    assert extractor.provenance["file"] == "mobilenet_v2.pth"


def test_a_wrong_state_dict_is_named_with_what_would_fit():
    backbone = MobileNetV2()
    before = backbone.stem.conv.weight.clone()
    state = torchvision_state()
    del state["features.3.conv.2.weight"]
    state["features.19.weight"] = torch.zeros(1)
    words = "missing features.3.conv.2.weight; unexpected features.19.weight; a MobileNetV2 of width 1 would fit"
    with pytest.raises(WeightsError, match=words):
        load_into_(backbone, state, "x.pth")
    with pytest.raises(WeightsError, match=r"features\.0\.0\.weight has shape .*set extractor.width = 0\.35"):
        load_into_(backbone, torchvision_state(0.35), "x.pth")
    assert torch.equal(backbone.stem.conv.weight, before)


def test_what_is_no_state_dict_is_an_error_and_runs_no_code(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match=r"a\.pt: cannot be read as a PyTorch state dict"):
        load_state_dict(tmp_path / "a.pt")
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(WeightsError, match=r"b\.pt: holds a list, expected a state dict"):
        load_state_dict(tmp_path / "b.pt")
    torch.save({"weight": Path("x")}, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match=r"c\.pt: cannot be read"):
        load_state_dict(tmp_path / "c.pt")


def test_weights_are_downloaded_once_and_then_found(table):
    path = find_weights("net")
    assert path.read_bytes() == CONTENT
    (table / "net.bin").unlink()
    assert find_weights("net") == path


def test_a_local_folder_is_searched_with_its_subfolders_and_nothing_is_downloaded(table, tmp_path, monkeypatch):
    local = tmp_path / "local"
    (local / "deep").mkdir(parents=True)
    monkeypatch.setenv("VIDLET_WEIGHTS", str(local))
    with pytest.raises(WeightsError, match=r"no net\.bin in it or below; get it from file:"):
        find_weights("net")
    (local / "deep" / "net.bin").write_bytes(CONTENT)
    assert find_weights("net") == local / "deep" / "net.bin"
    monkeypatch.setenv("VIDLET_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="nowhere: not a folder"):
        find_weights("net")


def test_a_wrong_checksum_is_an_error_and_leaves_nothing_behind(table, tmp_path, monkeypatch):
    (table / "net.bin").write_bytes(b"other")
    with pytest.raises(WeightsError, match=r"sha256 is .* expected .*set VIDLET_WEIGHTS"):
        find_weights("net")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    monkeypatch.setenv("VIDLET_WEIGHTS", str(table))
    with pytest.raises(WeightsError, match="get it again from"):
        find_weights("net")


def test_without_a_network_the_error_says_what_to_do(table, tmp_path):
    (table / "net.bin").unlink()
    words = f"cannot be downloaded .* by hand into {re.escape(str(tmp_path / 'cache'))}.* or set VIDLET_WEIGHTS"
    with pytest.raises(WeightsError, match=words):
        find_weights("net")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(WeightsError, match=r"weights 'imagenat': .*\(imagenet, imagenet-paper, mobilenet_v2"):
        find_weights("imagenat")


def test_every_entry_of_the_table_is_complete():
    for name, entry in published.WEIGHTS.items():
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256), name
        assert entry.url.startswith("https://")
        assert entry.url.endswith(entry.file)
        assert entry.licence
    assert set(published.ALIASES.values()) <= set(published.WEIGHTS)
