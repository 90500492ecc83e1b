"""A run on Hugging Face's hub: which of its files go there, the model card that their evidence makes, and the way back.

Only model files, the recipe and the card leave the machine: reports show pictures of clips, metrics name files. Logins
are those of huggingface_hub itself (`hf auth login`, HF_TOKEN); none is read or said here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import DataError, DependencyError, ModelError, why
from ..runtime import read_metadata
from ..wording import how_to_install, redact, shown
from .folder import MODEL, RECIPE, RunFolder

SCHEME = "hf://"
CARD = "README.md"
NAME = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}")
TAGS = ("vidlet", "onnx", "video-classification")


def parts_of(address: str) -> tuple[str, str | None, str]:
    """Repository, revision and file of hf://USER/NAME[@REVISION][/FILE.onnx].

    Raises:
        ModelError: not such an address.
    """
    rest = address.removeprefix(SCHEME)
    match = re.fullmatch(r"([^/@]+/[^/@]+)(?:@([\w.-]+))?(?:/([\w.-]+\.onnx))?", rest)
    if match is None or not NAME.fullmatch(match[1]):
        raise ModelError(f"{shown(address)}: expected hf://USER/NAME, hf://USER/NAME@REVISION or .../model.int8.onnx")
    return match[1], match[2], match[3] or MODEL


def fetched(address: str) -> Path:
    """A model file of the hub on this machine; fetched once, as huggingface_hub keeps it.

    Raises:
        ModelError: no such repository, revision or file, or no way to it. DependencyError: huggingface_hub is missing.
    """
    repository, revision, name = parts_of(address)
    hub = _hub()
    try:
        return Path(hub.hf_hub_download(repository, name, revision=revision, library_name="vidlet"))
    except Exception as error:  # whatever the library and the network raise
        raise ModelError(f"{shown(address)}: cannot be fetched ({redact(why(error))})") from error


def gather(run: RunFolder, names: Sequence[str], repository: str, folder: Path) -> list[str]:
    """Copy what goes to the hub into a folder: model files, recipe, card. Returns the names.

    Raises:
        DataError: a name of a repository that is none, or a file that is not there.
    """
    if not NAME.fullmatch(repository):
        raise DataError(f"{shown(repository)}: a repository is USER/NAME")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (run / name).is_file():
            raise DataError(f"{run}: holds no {name}")
        shutil.copyfile(run / name, folder / name)
    copied = [*names]
    if (run / RECIPE).is_file():
        shutil.copyfile(run / RECIPE, folder / RECIPE)
        copied.append(RECIPE)
    (folder / CARD).write_text(card({name: run / name for name in names}, repository), "utf-8")
    return [*copied, CARD]


def upload(folder: Path, repository: str, public: bool, message: str) -> str:
    """Make the repository where there is none, and put the files of a folder there in one commit; returns its address.

    Raises:
        DataError: the hub refused, or cannot be reached. DependencyError: huggingface_hub is missing.
    """
    api = _hub().HfApi(library_name="vidlet")
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message=message)
    except Exception as error:  # whatever the library and the network raise
        raise DataError(f"{repository}: cannot be pushed ({redact(why(error))})") from error
    return f"{SCHEME}{repository}"


def card(files: Mapping[str, Path], repository: str) -> str:
    """The model card of some files, the product first: what they are, how good by their evidence, how they are run."""
    known = {name: read_metadata(path) for name, path in files.items()}
    first = next(iter(known.values()))
    labels = [*first["labels"], *first.get("box_labels", [])]
    recipe = str((first.get("recipe") or {}).get("name", ""))
    rows = [_row(name, files[name], known[name]) for name in files]
    head = {
        "library_name": "vidlet",
        "pipeline_tag": "video-classification" if first["labels"] else "object-detection",
        "tags": list(TAGS),
        "model-index": [{"name": repository.partition("/")[2], "results": _results(first)}],
    }
    evidence = first.get("evidence") or []
    lines = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {repository.partition('/')[2]}",
        f"{len(labels)} {'labels' if first['labels'] else 'kinds of boxes'}: {', '.join(map(_plain, labels))}.",
        f"Recipe `{_plain(recipe)}` of vidlet. Frames {_inputs(first)}; {_sampling(first)}.",
        "| file | bytes | measured |\n|---|---|---|\n" + "\n".join(rows),
        _measured(evidence),
        f'```python\nimport vidlet\n\nmodel = vidlet.load("{SCHEME}{repository}")\n'
        'print(model.classify("clip.mp4").label)\n```',
        "Each file is one ONNX graph with its preprocessing inside: any ONNX Runtime runs it, without vidlet or torch.",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _row(name: str, path: Path, metadata: Mapping[str, Any]) -> str:
    figures = [f"{_plain(item['what'])} {_number(item['value'])}" for item in metadata.get("evidence") or []][:2]
    return f"| `{name}` | {path.stat().st_size:,} | {'; '.join(figures) or 'nothing'} |"


def _measured(evidence: Sequence[Mapping[str, Any]]) -> str:
    """On what the figures were measured: a reader must be able to judge them."""
    if not evidence:
        return "Nothing was measured of this file."
    item = evidence[0]
    count = next((f"{item[key]} {key}" for key in ("clips", "images") if key in item), "")
    table = str(item.get("table_sha256", "?"))[:16]
    return (
        f"Measured on {count} of {_plain(item.get('data', '?'))} (sha256 of its table {_plain(table)}): "
        "clips like those that it was trained on. Other cameras, people and places must be measured anew: "
        "`vidlet evaluate FILE CLIPS`."
    )


def _results(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The hub's own form of results, of figures that are plain numbers."""
    found = []
    for item in metadata.get("evidence") or []:
        if isinstance(item.get("value"), (int, float)):
            kind, _, where = str(item["what"]).partition(", ")
            task = {"type": "video-classification" if metadata["labels"] else "object-detection"}
            data = {"name": str(item.get("data", "?")), "type": "private", "split": where.removeprefix("split ")}
            found.append({"task": task, "dataset": data, "metrics": [{"type": kind, "value": float(item["value"])}]})
    return found


def _inputs(metadata: Mapping[str, Any]) -> str:
    return f"as `{json.dumps(metadata.get('inputs', ['frames']))}`"


def _sampling(metadata: Mapping[str, Any]) -> str:
    rule = metadata["sampling"]
    return f"{rule['hz']:g} a second" if rule["rule"] == "rate" else f"{rule['frames']} a clip"


def _number(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_number, value))}]"
    return f"{value:.3f}" if isinstance(value, float) else _plain(value)


def _plain(text: object) -> str:
    """A text that is no markup: what names hold must not become a link, a table or a page."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", shown(str(text)))


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise DependencyError(f"the hub needs huggingface_hub; {how_to_install('hub')}") from error
    return huggingface_hub
