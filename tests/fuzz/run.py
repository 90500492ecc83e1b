"""Feed every parser damaged and hostile inputs, for minutes or hours; say what hangs, crashes or ends in a traceback.

    make fuzz MINUTES=5      or      python tests/fuzz/run.py --minutes 5 --seed 0

Each kind of input has a whole example and a reader. Round r of kind k is made from the seed (S, k, r), so that a
finding is made again by its three numbers; inputs that found something are kept in tests/fuzz/found. A batch of rounds
runs in a child that may take so much memory; a round of more than LIMIT_S is a hang, a child that dies a crash.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

LIMIT_S = 120.0
MEMORY_BYTES = 8 * 2**30
BATCH = 25
FOUND = Path(__file__).with_name("found")
STORED = {"shape": [4], "storage": "float32"}

Make = Callable[[Path], Path]  # a folder -> the file in it that is damaged
Read = Callable[[Path], object]  # that file -> whatever; raises a VidletError or is done


def make_model(folder: Path) -> Path:
    import artifacts

    model = artifacts.classifier()
    model.metadata_props.add(key="vidlet", value=json.dumps(artifacts.metadata()))  # no checksum: it would find all
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def make_detector(folder: Path) -> Path:
    import artifacts

    model = artifacts.detector()
    about = artifacts.metadata(labels=[], box_labels=["a", "b"])
    model.metadata_props.add(key="vidlet", value=json.dumps(about))
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def read_model(path: Path) -> object:
    from vidlet.runtime import inspect_artifact, load

    inspect_artifact(path)
    model = load(path, threads=1)
    height, width, _ = model.inputs["frames"]
    return model.run(np.zeros((2, height, width, 3), np.uint8)) if height * width < 10**6 else None


def make_network(folder: Path) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    stored = [numpy_helper.from_array(draw.normal(size=(8, 3, 3, 3)).astype(np.float32), "w")]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["row"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [1, 3, 32, 32])], [value("row", 1, [1, 8, 1, 1])], stored
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


def read_network(path: Path) -> object:
    from vidlet.models.onnx_file import OnnxBackbone
    from vidlet.tasks.brought import extractor_overrides

    extractor_overrides(str(path))
    return OnnxBackbone(path, "", (32, 32))


def make_recipe(folder: Path) -> Path:
    from vidlet.recipe import load_recipe, save_recipe

    save_recipe(load_recipe("tiny-grid-gru"), folder / "r.toml")
    return folder / "r.toml"


def read_recipe(path: Path) -> object:
    from vidlet.models import build_head
    from vidlet.recipe import load_recipe

    recipe = load_recipe(path)
    return build_head(recipe.head, (32, 4, 4), 3)


def make_checkpoint(folder: Path) -> Path:
    import torch

    from vidlet.training.checkpoint import Checkpoints, Progress

    network, optimizer = _network()
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    best = dict(network.state_dict())
    Checkpoints(folder, "id").save(Progress(epoch=1, history=[{"loss": 1.0}]), network, optimizer, None, best)
    return folder / "checkpoint.pt"


def read_checkpoint(path: Path) -> object:
    import torch

    from vidlet.training.checkpoint import Checkpoints

    network, optimizer = _network()
    found = Checkpoints(path.parent, "id").load(network, optimizer, None)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return found


def _network():
    import torch

    network = torch.nn.Linear(3, 2)
    return network, torch.optim.AdamW(network.parameters())


def make_trials(folder: Path) -> Path:
    from vidlet.search.trials import TrialLog

    log = TrialLog(folder / "trials.jsonl", "id")
    for number in range(5):
        log.add("trial", number=number, loss=0.5, candidate={"hidden": 64})
    return folder / "trials.jsonl"


def read_trials(path: Path) -> object:
    from vidlet.search.trials import TrialLog, holds_search

    holds_search(path)
    return list(TrialLog(path, "id").of("trial"))


def make_metrics(folder: Path) -> Path:
    (folder / "metrics.json").write_text(json.dumps({"files": {"a": {"accuracy": 0.5}}, "bytes": {"a": 3}}))
    return folder / "metrics.json"


def read_metrics(path: Path) -> object:
    from vidlet.runs import RunFolder

    return RunFolder.of(path.parent).metrics()


def make_table(folder: Path) -> Path:
    from vidlet.video import write_video

    for name in "ab":
        write_video(folder / f"{name}.mp4", [np.full((32, 32, 3), 90, np.uint8)] * 4, 25)
    (folder / "clips.csv").write_text("path,label,group,split,start_s,end_s\na.mp4,x,g,train,,\nb.mp4,y,h,val,0,0.1\n")
    return folder / "clips.csv"


def read_table(path: Path) -> object:
    from vidlet.datasets import inspect_table, read_table

    return inspect_table(read_table(path.parent))


def make_coco(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(folder / "a.jpg")
    about = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 32, "height": 32}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 12]}],
    }
    (folder / "instances.json").write_text(json.dumps(about))
    return folder / "instances.json"


def read_boxes(path: Path) -> object:
    from vidlet.datasets import read_boxes as read

    return read(path.parent)


def make_yolo(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(folder / "a.jpg")
    (folder / "data.yaml").write_text("train: .\nnc: 2\nnames: [cat, dog]\n")
    (folder / "a.txt").write_text("0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3\n")
    return folder / "a.txt"


def make_yaml(folder: Path) -> Path:
    return make_yolo(folder).with_name("data.yaml")


def make_voc(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(folder / "a.jpg")
    corners = "<xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>30</ymax>"
    (folder / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename><size><width>32</width><height>32</height></size>"
        f"<object><name>x</name><difficult>0</difficult><bndbox>{corners}</bndbox></object></annotation>"
    )
    return folder / "a.xml"


def make_boxes_csv(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(folder / "a.jpg")
    text = "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,32,32,x,1,2,20,30\na.jpg,32,32,y,2,2,8,9\n"
    (folder / "boxes.csv").write_text(text)
    return folder / "boxes.csv"


def make_export(name: str, said: object) -> Make:
    """What a labelling tool wrote of an image a.jpg."""

    def make(folder: Path) -> Path:
        from PIL import Image

        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(folder / "a.jpg")
        path.write_text(said if isinstance(said, str) else json.dumps(said))
        return path

    return make


_REGIONS = [
    {"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 9, "height": 8},
     "region_attributes": {"label": "x"}},
    {"shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 5], "all_points_y": [2, 3, 20]},
     "region_attributes": {"label": "y"}},
]  # fmt: skip
_RESULT = {
    "type": "rectanglelabels", "id": "r", "original_width": 32, "original_height": 32,
    "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 15, "rectanglelabels": ["x"]},
}  # fmt: skip
_MASK = "eJzrDPBz5+WS4mJgYOD19HAJAtIgNg8jkGAoFhDkBVICni6OIRVzkv/UT+hsZLRnYrALZrzhmx8cBVLj6ernss4poQkAyPIPWw=="
_CVAT = (
    '<annotations><version>1.1</version><image id="0" name="a.jpg" width="32" height="32">'
    '<box label="x" xtl="1" ytl="2" xbr="20" ybr="21" rotation="10"/><polygon label="y" points="1,2;9,3;4,20"/>'
    "</image></annotations>"
)
_SUPERVISELY = {
    "size": {"height": 32, "width": 32},
    "tags": [{"name": "train"}],
    "objects": [
        {"classTitle": "x", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [20, 21]], "interior": []}},
        {"classTitle": "y", "geometryType": "bitmap", "bitmap": {"data": _MASK, "origin": [3, 4]}},
    ],
}
EXPORTS = {
    "via": make_export("via.json", {"a.jpg-1": {"filename": "a.jpg", "size": -1, "regions": _REGIONS}}),
    "create_ml": make_export(
        "_annotations.createml.json",
        [{"image": "a.jpg", "annotations": [
            {"label": "x", "coordinates": {"x": 10, "y": 12, "width": 8, "height": 6}}]}],
    ),
    "label_studio": make_export(
        "project.json", [{"id": 1, "data": {"image": "/data/a.jpg"}, "annotations": [{"result": [_RESULT]}]}]
    ),
    "cvat": make_export("annotations.xml", _CVAT),
    "supervisely": make_export("ds/ann/a.jpg.json", _SUPERVISELY),
}  # fmt: skip


def read_export(path: Path) -> object:
    from vidlet.datasets import box_kind
    from vidlet.datasets import read_boxes as read

    root = path.parents[2] if path.parent.name == "ann" else path.parent
    return box_kind(path), read(root)


def make_npz(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    np.savez(folder / "features.npz", rgb=draw.integers(0, 255, (2, 3, 8), np.uint8), audio=np.ones((2, 3, 4), "u1"))
    (folder / "clips.csv").write_text("name,label\nr0,x\nr1,y\n")
    return folder / "features.npz"


def read_npz(path: Path) -> object:
    from vidlet.datasets import read_table

    table = read_table(path.parent)
    return [table.records.read(row) for row in range(2)]


def make_arrow(folder: Path) -> Path:
    """A part without its checksum in its name, as older versions wrote it: the checksum would find everything."""
    from vidlet.features.store import ClipFeatures, FeatureStore

    store = FeatureStore(folder, STORED)
    draw = np.random.default_rng(0)
    rows = [ClipFeatures(f"{i:064d}", draw.normal(size=(3, 4)).astype("f4"), np.arange(3.0)) for i in range(3)]
    store.write((row, "a.mp4") for row in rows)
    part = next(store.folder.glob("*.arrow"))
    return part.rename(part.with_name("part-00000-00000000.arrow"))


def read_arrow(path: Path) -> object:
    from vidlet.features.store import FeatureStore

    store = FeatureStore(path.parents[1], STORED)
    return [store.read(key).features.astype(float).sum() for key in store]


def make_video(folder: Path) -> Path:
    from vidlet.video import write_video

    draw = np.random.default_rng(0)
    write_video(folder / "v.mp4", [draw.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(12)], 25)
    return folder / "v.mp4"


def make_container(suffix: str, codec: str, pixels: str = "yuv420p") -> Make:
    """A short video in another container."""

    def make(folder: Path) -> Path:
        import av

        draw = np.random.default_rng(0)
        with av.open(str(folder / f"v.{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.thread_count = 64, 48, pixels, 1
            for _ in range(12):
                picture = np.repeat(draw.integers(0, 255, (48, 8, 3), np.uint8), 8, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture).reformat(format=pixels)))
            container.mux(stream.encode(None))
        return folder / f"v.{suffix}"

    return make


def read_video(path: Path) -> object:
    from vidlet.recipe import Sampling
    from vidlet.video import probe, read_clip

    probe(path)
    return read_clip(path, Sampling("rate", hz=8), (32, 32))


def make_records(folder: Path) -> Path:
    from vidlet.datasets import Record, write_records

    draw = np.random.default_rng(0)
    rows = [Record(f"v{i}", (i % 2,), {"rgb": draw.integers(0, 255, (5, 1024), np.uint8)}) for i in range(3)]
    write_records(folder / "train0.tfrecord", rows)
    return folder / "train0.tfrecord"


def read_records(path: Path) -> object:
    from vidlet.datasets import read_records as read

    return list(read(path))


KINDS: dict[str, tuple[Make, Read]] = {
    "model": (make_model, read_model),
    "detector": (make_detector, read_model),
    "network": (make_network, read_network),
    "recipe": (make_recipe, read_recipe),
    "checkpoint": (make_checkpoint, read_checkpoint),
    "trials": (make_trials, read_trials),
    "metrics": (make_metrics, read_metrics),
    "table": (make_table, read_table),
    "coco": (make_coco, read_boxes),
    "yolo": (make_yolo, read_boxes),
    "yaml": (make_yaml, read_boxes),
    "voc": (make_voc, read_boxes),
    "boxes_csv": (make_boxes_csv, read_boxes),
    **{name: (make, read_export) for name, make in EXPORTS.items()},
    "npz": (make_npz, read_npz),
    "arrow": (make_arrow, read_arrow),
    "video": (make_video, read_video),
    "gif": (make_container("gif", "gif", "rgb8"), read_video),
    "avi": (make_container("avi", "mjpeg", "yuvj420p"), read_video),
    "mkv": (make_container("mkv", "mpeg4"), read_video),
    "ts": (make_container("ts", "mpeg2video"), read_video),
    "mpg": (make_container("mpg", "mpeg1video"), read_video),
    "nut": (make_container("nut", "mpeg4"), read_video),
    "mxf": (make_container("mxf", "mpeg2video"), read_video),
    "records": (make_records, read_records),
}


ODD = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"nan",
    b"-1",
    b"1e999",
    b"9" * 5000,
    b"\x1b[2J",
    b"[" * 3000,
    b"null",
    b"true",
    b'"',
    b"=1+1",
]


def mutated(whole: bytes, draw: random.Random) -> bytes:
    """Flip, cut, repeat, swap or replace a few places; half of the time where digits or words are."""
    data = bytearray(whole)
    for _ in range(draw.choice([1, 1, 1, 2, 4, 16])):
        if not data:
            break
        place = draw.randrange(len(data))
        way = draw.randrange(7)
        size = draw.choice([1, 1, 2, 4, 8, 64, 1024])
        if way == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif way == 1:
            data[place] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        elif way == 2:
            del data[place : place + size]
        elif way == 3:
            data[place:place] = data[place : place + size] * draw.choice([1, 2, 50])
        elif way == 4:
            other = draw.randrange(len(data))
            data[place : place + size] = data[other : other + size]
        elif way == 5:
            digits = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39] or [place]
            at = draw.choice(digits)
            data[at : at + 1] = draw.choice(ODD)
        else:
            data[place : place + size] = draw.choice(ODD)
    return bytes(data)


def one_batch(kind: str, seed: int, first: int, pipe) -> None:
    """The child: rounds first .. first + BATCH; tells the number that begins, and how each ended."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY_BYTES, 4 * MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    from vidlet.errors import VidletError

    make, read = KINDS[kind]
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        path = make(folder)
        whole = path.read_bytes()
        read(path)  # the whole one is good
        for number in range(first, first + BATCH):
            path.write_bytes(mutated(whole, random.Random(f"{seed} {kind} {number}")))
            pipe.send((number, "begins", ""))
            try:
                read(path)
                pipe.send((number, "read", ""))
            except VidletError as error:
                told = "refused" if "\n" not in str(error) else "several lines"
                pipe.send((number, told, str(error)))
            except Exception:
                pipe.send((number, "traceback", traceback.format_exc()[-1500:]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    pipe.send((first, "end", ""))


def run_batch(kind: str, seed: int, first: int, counts: Counter[str], findings: list[dict[str, object]]) -> int:
    """Run rounds in a child; return the next round."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=one_batch, args=(kind, seed, first, theirs), daemon=True)
    child.start()
    theirs.close()
    current = first - 1
    while True:
        try:
            number, how, what = ours.recv() if ours.poll(LIMIT_S) else (current, "hang", "")
        except EOFError:
            child.join()
            number, how, what = current, "crash", f"exit code {child.exitcode}"
        if how == "end":
            child.join()
            return first + BATCH
        if how == "begins":
            current = number
            continue
        counts[how] += 1
        if how not in ("read", "refused"):
            findings.append({"kind": kind, "seed": seed, "round": number, "how": how, "what": what})
        if how in ("hang", "crash"):
            child.kill()
            child.join()
            return number + 1 if number >= first else first + BATCH


def keep(finding: dict[str, object]) -> None:
    """The input of a finding as a file, beside what it did."""
    FOUND.mkdir(exist_ok=True)
    kind, number = str(finding["kind"]), finding["round"]
    with tempfile.TemporaryDirectory() as folder:
        whole = KINDS[kind][0](Path(folder)).read_bytes()
    name = f"{kind}_{finding['seed']}_{number}_{finding['how']}"
    (FOUND / name).write_bytes(mutated(whole, random.Random(f"{finding['seed']} {kind} {number}")))
    (FOUND / f"{name}.json").write_text(json.dumps(finding, indent=1))


def main() -> int:
    """Fuzz for so many minutes; exit status 1 if something was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    args = parser.parse_args()
    import torch

    import vidlet.models  # noqa: F401  # once, before the children are made

    torch.set_num_threads(1)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in args.kinds}
    following = dict.fromkeys(args.kinds, 0)
    findings: list[dict[str, object]] = []
    ends = time.monotonic() + 60 * args.minutes
    while time.monotonic() < ends:
        for kind in args.kinds:
            following[kind] = run_batch(kind, args.seed, following[kind], counts[kind], findings)
            if time.monotonic() > ends:
                break
    for kind, found in counts.items():
        print(f"{kind:12s} {sum(found.values()):6d} inputs: {dict(found)}")
    total = sum((found for found in counts.values()), Counter())
    print(f"{sum(total.values())} inputs in {args.minutes:g} minutes, seed {args.seed}: {dict(total)}")
    for finding in findings:
        keep(finding)
        last = str(finding["what"]).strip().splitlines()[-1:] or [""]
        print(f"{finding['kind']} {finding['round']}: {finding['how']}: {last[0][:200]}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
