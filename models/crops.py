"""Cuts random square crops out of a folder of photographs.

``python models/crops.py FOLDER -o OUT --per-image 4 --size 240`` writes PNG files; the crops of one
photograph are neighbours by name.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png")
LEAST = 0.6  # of the shorter side: a smaller crop shows too little of the scene


def crop(image: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """Return a random square of an image, `LEAST` of its shorter side or more, scaled to `size`."""
    side = round(min(image.size) * rng.uniform(LEAST, 1))
    left = int(rng.integers(image.width - side + 1))
    top = int(rng.integers(image.height - side + 1))
    square = image.crop((left, top, left + side, top + side))
    if rng.random() < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return square.resize((size, size), Image.Resampling.BICUBIC)


def write_crops(folder: Path, output: Path, *, per_image: int, size: int, seed: int) -> int:
    """Write the crops of all images of a folder and return their number."""
    output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    count = 0
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        with Image.open(path) as image:
            colour = image.convert("RGB")
        for number in range(per_image):
            crop(colour, size, rng).save(output / f"{path.stem}_{number:02}.png")
            count += 1
    return count


def main(arguments: list[str] | None = None) -> int:
    """Run the script; exit status 2 where there is no image."""
    parser = argparse.ArgumentParser(description="Cut random square crops out of photographs.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--per-image", type=int, default=4)
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    count = write_crops(
        chosen.folder,
        chosen.output,
        per_image=chosen.per_image,
        size=chosen.size,
        seed=chosen.seed,
    )
    if count == 0:
        print(f"error: no images in {chosen.folder}; check the path", file=sys.stderr)
        return 2
    print(chosen.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
