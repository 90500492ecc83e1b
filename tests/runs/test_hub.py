"""The hub, by a stand-in that keeps repositories in a folder: what goes there, what the card says, the way back."""

import shutil
import sys
import types
from pathlib import Path

import pytest
import yaml

import vidlet
from artifacts import classifier, save
from vidlet.cli import main
from vidlet.errors import DataError, DependencyError, ModelError
from vidlet.runs.hub import card, parts_of

EVIDENCE = [
    {
        "what": "accuracy, split test", "value": 0.9375, "data": "clips", "clips": 16, "table_sha256": "ab" * 32,
        "command": "vidlet train clips", "graph_sha256": "cd" * 32,
    },
    {
        "what": "accuracy_interval, split test", "value": [0.85, 0.99], "data": "clips", "clips": 16,
        "table_sha256": "ab" * 32, "command": "vidlet train clips", "graph_sha256": "cd" * 32,
    },
]  # fmt: skip


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("model.onnx", "model.int8.onnx"):
        save(classifier(), folder / name, evidence=EVIDENCE)
    (folder / "recipe.toml").write_text('name = "test"\n')
    for private in ("report.html", "metrics.json", "predictions.csv", "checkpoint.pt"):
        (folder / private).write_text("pictures and paths of clips")
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """huggingface_hub as far as it is used; repositories are folders, ``made`` tells how each was made."""
    root = tmp_path / "hub"
    module = types.ModuleType("huggingface_hub")
    module.root, module.made = root, {}

    class HfApi:
        def __init__(self, library_name: str = "") -> None: ...

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            if repo_id.startswith("locked/"):
                raise OSError("403 Forbidden for https://eve:hf_secret@hub/api?token=hf_secret")
            module.made[repo_id] = private
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            assert commit_message
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def hf_hub_download(repo_id: str, filename: str, *, revision: str | None, library_name: str) -> str:
        path = root / repo_id / filename
        if revision not in (None, "main") or not path.is_file():
            raise FileNotFoundError(f"404: {repo_id}/{filename} at {revision}")
        return str(path)

    module.HfApi, module.hf_hub_download = HfApi, hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_what_is_pushed_is_loaded_again_and_nothing_private_goes_with_it(run, hub):
    found = vidlet.push(run, "me/gestures")
    there = {path.name for path in (hub.root / "me" / "gestures").iterdir()}
    assert there == {"model.onnx", "model.int8.onnx", "recipe.toml", "README.md"} == set(found["files"])
    assert (found["out"], hub.made) == ("hf://me/gestures", {"me/gestures": True})
    model = vidlet.load("hf://me/gestures")
    assert model.labels == vidlet.load(run).labels
    assert vidlet.load("hf://me/gestures@main/model.int8.onnx").path.name == "model.int8.onnx"
    vidlet.push(run, "me/gestures", public=True)
    assert hub.made["me/gestures"] is False
    for wrong in ("hf://me/gestures@v2", "hf://me/other", "hf://me/gestures/model.half.onnx"):
        with pytest.raises(ModelError, match="cannot be fetched"):
            vidlet.load(wrong)


def test_the_card_holds_the_evidence_and_the_hub_s_form_of_it(run):
    text = card({name: run / name for name in ("model.onnx", "model.int8.onnx")}, "me/gestures")
    _, head, body = text.split("---\n", 2)
    told = yaml.safe_load(head)
    assert (told["pipeline_tag"], told["library_name"]) == ("video-classification", "vidlet")
    (result,) = told["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.9375}]
    assert result["dataset"] == {"name": "clips", "type": "private", "split": "test"}
    assert "4 labels: red, green, blue, moving." in body
    size = (run / "model.onnx").stat().st_size
    assert f"| `model.onnx` | {size:,} | accuracy, split test 0.938; accuracy" in body
    assert "[0.850, 0.990] |" in body
    assert "Measured on 16 clips of clips" in body
    assert 'vidlet.load("hf://me/gestures")' in body


def test_names_in_a_card_are_no_markup(tmp_path):
    evil = "[x](http://evil) <script>|`\n# h"
    save(classifier(), tmp_path / "m.onnx", labels=[evil, "b", "c", "d"], evidence=[{**EVIDENCE[0], "data": evil}])
    body = card({"m.onnx": tmp_path / "m.onnx"}, "me/x").split("---\n", 2)[2]
    assert "<script>" not in body
    assert "[x](http" not in body
    assert "\n# h" not in body


def test_the_command_shows_before_it_sends(run, hub, tmp_path, capsys):
    assert main(["push", str(run), "me/gestures", "--out", str(tmp_path / "look")]) == 0
    assert hub.made == {}
    assert "nothing was sent" in capsys.readouterr().err
    assert (tmp_path / "look" / "README.md").read_text().startswith("---\nlibrary_name: vidlet")
    assert main(["push", str(run), "me/gestures", "--json"]) == 0
    out, err = capsys.readouterr()
    assert '"hf://me/gestures"' in out
    assert 'vidlet.load("hf://me/gestures")' in err


def test_what_cannot_be_pushed_or_named_is_one_line_without_secrets(run, hub, monkeypatch):
    with pytest.raises(DataError, match="cannot be pushed") as caught:
        vidlet.push(run, "locked/gestures")
    assert "hf_secret" not in str(caught.value)
    with pytest.raises(DataError, match="a repository is USER/NAME"):
        vidlet.push(run, "gestures")
    for wrong in ("hf://gestures", "hf://me/x/../y.onnx", "hf://me/x/model.pt", "hf://../x"):
        with pytest.raises(ModelError, match="expected hf://USER/NAME"):
            parts_of(wrong)
    assert parts_of("hf://me/x@v1/model.int8.onnx") == ("me/x", "v1", "model.int8.onnx")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match="needs huggingface_hub"):
        vidlet.load("hf://me/gestures")
