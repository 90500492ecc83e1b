"""What the tests of detectors share: images with squares in two colors, and a recipe that trains on them in seconds."""

import numpy as np
from PIL import Image

OVERRIDES = {
    "extractor.width": 0.1,
    "extractor.input_size": [64, 64],
    "head.options": {"anchors": 2, "by_machine": True},
    "training.epochs": 2,
    "training.batch": 8,
    "training.augment": {"jitter": 0.1, "flip": 0.5},
}


def write_squares(root, count=24):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        (root / split).mkdir(parents=True)
    for i in range(count):
        folder = root / ("test" if i % 4 == 3 else "val" if i % 8 == 0 else "train")
        picture = rng.integers(40, 90, (48, 64, 3), dtype=np.uint8)
        x, y, side = rng.integers(4, 36), rng.integers(4, 24), rng.integers(14, 20)
        picture[y : y + side, x : x + side] = ((230, 30, 30), (30, 230, 30))[i // 2 % 2]
        Image.fromarray(picture).save(folder / f"{i:02}.png")
        center = [(x + side / 2) / 64, (y + side / 2) / 48, side / 64, side / 48]
        (folder / f"{i:02}.txt").write_text(f"{i // 2 % 2} {' '.join(map(str, center))}\n0 .5 .5 0 0\n" if i == 1 else
                                            f"{i // 2 % 2} {' '.join(map(str, center))}\n")  # fmt: skip
    (root / "classes.txt").write_text("red\ngreen\n")
    return root
