"""Boxes as people have them -> one box table (PASCAL VOC, COCO, labelme, YOLO, tables, tools), and their splits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from .box_table import Box, BoxImage, BoxTable
from .boxes_coco import coco_files, looks_like_coco, read_coco
from .boxes_csv import box_tables, read_box_tables
from .boxes_labelme import labelme_files, read_labelme
from .boxes_tools import read_tools, tool_files
from .boxes_voc import is_voc, read_voc
from .boxes_yolo import is_yolo, read_yolo
from .exports import is_export
from .read import table_in
from .texts import PARQUET

__all__ = ["Box", "BoxImage", "BoxTable", "box_kind", "read_boxes", "with_box_splits"]

_READERS = {
    "voc": read_voc, "coco": read_coco, "labelme": read_labelme, "csv": read_box_tables, "yolo": read_yolo,
    "tools": read_tools,
}  # fmt: skip


def box_kind(path: str | os.PathLike[str]) -> str | None:
    """How boxes are written: "voc", "coco", "labelme", "csv", "yolo", "tools"; None where there are none."""
    where = Path(path)
    if where.is_file() and where.suffix.lower() == PARQUET:  # of boxes, or else of clips
        return "csv" if box_tables(where) else None
    if where.exists() and (where.is_file() or table_in(where) is None) and tool_files(where):
        return "tools"
    if where.exists() and is_export(where):
        return None
    if where.is_file():
        if where.suffix.lower() == ".json":
            return "labelme" if labelme_files(where) else "coco" if looks_like_coco(where) else None
        return "csv" if box_tables(where) else None
    if not where.is_dir() or table_in(where) is not None:
        return None
    if is_voc(where):
        return "voc"
    if coco_files(where):
        return "coco"
    if labelme_files(where):
        return "labelme"
    if box_tables(where):
        return "csv"
    return "yolo" if is_yolo(where) else None


def read_boxes(path: str | os.PathLike[str], strict: bool = False) -> BoxTable:
    """Read which objects stand where. Images are opened for their size, not decoded.

    Boxes and images that make no sense are left out, cut or skipped by the rule of ``box_table``, and named in
    ``dropped``, ``skipped`` and ``notes``; with ``strict`` the first of them is an error.

    Raises:
        DataError: nothing is there, or it contradicts itself; names the file.
    """
    where = Path(path)
    if not where.exists():
        raise DataError(f"{where}: no such folder or file")
    kind = box_kind(where)
    if kind is None:
        raise DataError(
            f"{where}: no boxes in it; expected PASCAL VOC (Annotations/*.xml, or .xml beside the images), COCO (a "
            ".json with images, categories and annotations), labelme (.json beside the images), YOLO (.txt beside the "
            "images or in labels/), an export of VIA, Create ML, Label Studio, CVAT or Supervisely, or a table "
            "(filename, class, xmin, ymin, xmax, ymax)"
        )
    table = _READERS[kind](where)
    if strict and (wrong := (*table.skipped, *table.dropped)):
        raise DataError(f"{where}: {len(wrong)} images or boxes cannot be used (first: {wrong[0][0]}: {wrong[0][1]})")
    return table


def with_box_splits(table: BoxTable, seed: int = 0, val: float = 0.1, test: float = 0.2) -> BoxTable:
    """Fill in the splits that a table does not give, by image.

    Without any: train, val and test in these shares. With train and no val: val is split off train. A given test is
    never touched. Single images without a split join train. Depends on table and seed only.

    Raises:
        DataError: fewer images than parts to make.
    """
    given = {image.split for image in table}
    if given == {""}:
        return _dealt(table, {"": (("test", test), ("val", val), ("train", 1.0))}, seed)
    if "" in given:
        loose = [image for image in table if not image.split]
        note = f"{len(loose)} images are in no split and join train (first: {loose[0].path.name})."
        table = table.with_images(replace(image, split=image.split or "train") for image in table)
        table = replace(table, notes=(*table.notes, note))
    if "val" not in given and any(image.split == "train" for image in table):
        return _dealt(table, {"train": (("val", val), ("train", 1.0))}, seed)
    return table


def _dealt(table: BoxTable, parts: dict[str, tuple[tuple[str, float], ...]], seed: int) -> BoxTable:
    """Images of a split dealt out at random to others, each of at least one image."""
    names = [image.split for image in table]
    for source, shares in parts.items():
        rows = [i for i, image in enumerate(table) if image.split == source]
        if len(rows) < len(shares):
            what = " and ".join(name for name, _ in shares)
            raise DataError(f"{table.root}: {len(rows)} images cannot be split into {what}")
        order = np.random.default_rng(seed).permutation(rows).tolist()
        at = 0
        for name, share in shares:
            count = len(order) - at if name == shares[-1][0] else max(1, round(share * len(rows)))
            for row in order[at : at + count]:
                names[row] = name
            at += count
    return table.with_images(replace(image, split=name) for image, name in zip(table, names, strict=True))
