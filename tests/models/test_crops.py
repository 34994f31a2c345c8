from __future__ import annotations

from pathlib import Path

import crops
import numpy as np
import pytest
from PIL import Image


def test_crops_are_square_seeded_and_parts_of_their_photograph(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    (folder / "sub").mkdir(parents=True)
    for name, shade in (("a.png", 40), ("sub/b.png", 200)):
        Image.new("RGB", (90, 60), (shade, shade, shade)).save(folder / name)
    for output in ("one", "two"):
        arguments = [str(folder), "-o", str(tmp_path / output), "--per-image", "3", "--size", "32"]
        assert crops.main(arguments) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [f"{stem}_{k:02}.png" for stem in "ab" for k in range(3)]
    for name in names:
        first, second = (tmp_path / output / name for output in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()
        values = np.asarray(Image.open(first))
        assert values.shape == (32, 32, 3)
        assert np.unique(values).tolist() == [40 if name[0] == "a" else 200]


def test_a_folder_without_images_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crops.main([str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "check the path" in capsys.readouterr().err
