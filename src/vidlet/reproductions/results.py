"""What was measured of the papers' tables and is shipped: a JSON line a value, written by the commands that measured.

``vidlet papers NAME --data D --record`` appends to ``measured.jsonl``; nobody types into it. A value whose code has
changed since is marked: the sources that determine it are hashed, without their comments and docstrings.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from ..errors import DataError
from .rows import table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "measured.jsonl"
ELSEWHERE = ("mAP",)  # units of what a detector has on images of its own, not on these clips: not kept
SHIPPED = resources.files(__package__) / FILE

_TRAINING = (
    "training/loop.py", "training/classification.py", "training/batches.py", "training/augment.py",
    "training/optimizers.py", "training/losses.py", "tasks/prepare.py", "video/sample.py", "video/resize.py",
)  # fmt: skip
_PROTOCOL = ("reproductions/experiment.py", "reproductions/protocol.py")
_TRAINS = tuple(f"tensor_train/{name}.py" for name in ("cores", "layers", "conv", "recurrent"))
_UCF = ("ucf-rgb", "ucf-rgb-tt", "ucf-flow", "ucf-flow-tt")
_MODELS = ("models/head.py", "models/extractor.py")
SOURCES: dict[str, dict[str, tuple[str, ...]]] = {  # what determines what was measured of a paper, part by part
    "youtube8m": {
        "training": (*_TRAINING, "training/record_clips.py", "training/snapshots.py", "tasks/prepare_records.py"),
        "protocol": ("reproductions/youtube8m_records.py", "tasks/ensemble.py", "compression/ensemble_search.py"),
        "models": (*_MODELS, "models/pooled.py", "models/centers.py", "models/frame_parts.py"),
        "recipes": tuple(f"recipes/{name}.toml" for name in ("records-mean", "gated-netvlad-small", "gated-netvlad")),
    },
    "tt3dcnn": {
        "training": _TRAINING,
        "protocol": (*_PROTOCOL, "reproductions/tt3dcnn.py", "tasks/joint_depth.py", "tasks/flow.py"),
        "models": (
            *_MODELS, *_TRAINS, "models/clip_networks.py", "models/clip_tables.py", "models/frame_networks.py",
        ),
        "recipes": tuple(f"recipes/{name}.toml" for name in ("viva-1", "viva-1-tt", "viva-2", "viva-2-tt")),
        "recipes of UCF": tuple(f"recipes/{name}.toml" for name in _UCF),
    },
    "deepeye": {
        "training": _TRAINING,
        "protocol": (*_PROTOCOL, "reproductions/deepeye.py"),
        "models": (*_MODELS, *_TRAINS, "models/tt_heads.py", "models/thesis_heads.py", "models/detector_file.py"),
        "recipes": ("recipes/deepeye.toml", "recipes/tt-lstm-pixels.toml", "recipes/lstm-pixels.toml"),
    },
    "mobile": {
        "training": _TRAINING,
        "protocol": (*_PROTOCOL, "reproductions/mobile.py"),
        "models": (*_MODELS, "models/thesis_heads.py", "models/mobilenets.py", "models/inceptionv3.py"),
        "recipes": tuple(f"recipes/mobilenetv2-{head}.toml" for head in ("gru", "lstm", "single")),
    },
}  # fmt: skip


def record(
    paper: str,
    tables: Sequence[Mapping[str, Any]],
    told: Mapping[str, Any],
    command: str,
    path: Path | None = None,
    log: Path | None = None,
) -> int:
    """Append the values measured on these clips to the file, the shipped one where none is given; returns how many.

    Args:
        told: what ``papers`` says of it, ``measured_on``.
        log: the finished runs, which may be of an older code.

    Raises:
        DataError: the file cannot be written.
    """
    code = _code_of_runs(paper, log)
    lines = [
        {
            "paper": paper, "table": found["title"], "row": row["name"], "unit": row["unit"], "value": row["measured"],
            "data": told["data"], "clips": told["scored"], "seeds": told["seeds"],
            "protocol": told.get("protocol", "quick"), "reduction": reduction(told),
            "version": metadata.version("vidlet"), "command": command,
            "machine": machine(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "code": {part: known for part, known in code.items() if "UCF" not in part or row["name"].startswith("UCF")},
        }
        for found in tables for row in found["rows"] if row["measured"] is not None and row["unit"] not in ELSEWHERE
    ]  # fmt: skip
    where = path or Path(str(SHIPPED))
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        with where.open("a", encoding="utf-8") as sink:
            sink.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    except OSError as error:
        raise DataError(f"{where}: cannot be written ({error.strerror})") from error
    return len(lines)


def reduction(told: Mapping[str, Any]) -> str:
    """What is less than the paper's, in words; "" of a whole protocol."""
    if told.get("protocol") == "paper":
        return ", ".join(told["reduced"])
    changed = [f"{key}={value}" for key, value in told.get("overrides", {}).items()]
    share = [f"{told['clips']:g} of the clips"] if told["clips"] < 1 else []
    return ", ".join([f"{told['epochs']} epochs", f"{told['seeds']} seeds", *share, *changed, "one split"])


def stored(paper: str, path: Path | None = None) -> list[dict[str, Any]]:
    """The last value of each row on each data set, in the order of the file; ``changed`` names the parts that have.

    Raises:
        DataError: a line that is none of ours.
    """
    source = path or SHIPPED
    if not source.is_file():
        return []
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, text in enumerate(source.read_text("utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            if line["paper"] == paper:
                found[line["table"], line["row"], line["data"], line["protocol"]] = line
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{source} line {number}: not a measured value ({error})") from error
    now = code_of(paper)
    return [
        {**line, "changed": [part for part, known in line["code"].items() if known != now.get(part)]}
        for line in found.values()
    ]


def fill_stored(tables: list[dict[str, Any]], lines: Iterable[Mapping[str, Any]]) -> None:
    """Put stored values into the rows that were measured; rows that only the measurement has become tables of theirs.

    Of several data sets the value of the paper's own protocol stands in the row, else the last one.
    """
    rows = {(found["title"], row["name"]): row for found in tables for row in found["rows"]}
    for key, line in shown(lines).items():
        if key not in rows:
            own = next((found for found in tables if found["title"] == line["table"]), None)
            if own is None:
                own = table(line["table"], [])
                tables.append(own)
            rows[key] = {"name": line["row"], "unit": line["unit"], "printed": None, "recomputed": None}
            own["rows"].append(rows[key])
        rows[key]["measured"] = line["value"]


def shown(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The line whose value stands in a row, by table and row."""
    order = sorted(lines, key=lambda line: line["protocol"] == "paper")
    return {(line["table"], line["row"]): line for line in order}


def _code_of_runs(paper: str, log: Path | None) -> dict[str, str]:
    """The code that finished runs are of: ours, or that of the first of another code; nobody knows it of older logs."""
    now = code_of(paper)
    known = log.read_text("utf-8").splitlines() if log is not None and log.is_file() else []
    of = (json.loads(line).get("code", dict.fromkeys(now, "")) for line in known)
    return next((dict(code) for code in of if code != now), now)


@cache
def code_of(paper: str) -> dict[str, str]:
    """A hash of each part that determines what is measured of a paper, without comments, docstrings and imports."""
    package, found = resources.files("vidlet"), {}
    for part, names in SOURCES.get(paper, {}).items():
        digest = hashlib.sha256()
        for name in names:
            digest.update(_meaning(name, package.joinpath(name).read_text("utf-8")).encode())
        found[part] = digest.hexdigest()[:12]
    return found


def machine() -> str:
    """The processor, how many threads it has, and the GPU where torch sees one."""
    name = platform.processor() or platform.machine()
    told = Path("/proc/cpuinfo")
    if told.exists():
        lines = told.read_text("utf-8", "replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    torch = sys.modules.get("torch")
    gpu = f", {torch.cuda.get_device_name()}" if torch is not None and torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} threads{gpu}"


def _meaning(name: str, text: str) -> str:
    if name.endswith(".toml"):
        return json.dumps(tomllib.loads(text), sort_keys=True)
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Pass()
        if isinstance(body, list):
            node.body = [part for part in body if not isinstance(part, ast.Import | ast.ImportFrom)]  # type: ignore[attr-defined]
    return ast.unparse(tree)
