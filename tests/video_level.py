"""A drawn set of records of one vector a video, in the form of YouTube-8M's video level: several labels, two inputs."""

from pathlib import Path

import numpy as np

from vidlet.datasets.frame_record import quantize

RGB, AUDIO = 12, 4


def draw_video_level(folder: Path, counts: dict[str, int], classes: int = 6, names: bool = True, seed: int = 0) -> Path:
    """Write clips.csv (ids, class numbers, groups, splits), features.npz and, where asked for, the names of classes.

    A class is the product of two numbers of a vector, which no linear classifier sees, or the sign of another.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    total = sum(counts.values())
    x = 0.4 * rng.standard_normal((total, RGB + AUDIO))
    scores = np.stack([x[:, i] * x[:, i + 1] if i % 2 else 0.3 * x[:, i] for i in range(classes)], 1)
    shown = scores > 0.02
    shown[np.arange(total), scores.argmax(1)] = True
    codes = quantize(x)
    np.savez(folder / "features.npz", rgb=codes[:, :RGB], audio=codes[:, RGB:])
    splits = [split for split, count in counts.items() for _ in range(count)]
    lines = ["row,id,labels,group,split"]
    for i in range(total):
        lines.append(f"{i},id{i},{' '.join(map(str, np.flatnonzero(shown[i])))},g{i % 20}{splits[i]},{splits[i]}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    if names:
        table = ["label_id,label_name", *(f"{i},thing {i}" for i in reversed(range(classes + 1)))]
        (folder / "label_names_2018.csv").write_text("\n".join(table) + "\n")
    return folder
