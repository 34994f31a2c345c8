"""Samples from a folder of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnx_lowrank.data.dataset import Sample
from onnx_lowrank.data.preprocess import ImageEncoder
from onnx_lowrank.errors import DataError, suggest

_SUFFIXES = {".jpg", ".jpeg", ".png"}


class ImageFolder:
    """JPEG and PNG files, read one at a time.

    They lie in subfolders, one for each class, or all in the folder itself.
    The label of an image is the place of its subfolder among those sorted by name or, with a class
    list, its line there.

    Parameters
    ----------
    folder : Path
        The folder.
    encoder : ImageEncoder
        Makes the array of an image.
    name : str
        The input that takes the images.
    labels_from : Path, str or None
        None: the subfolders. ``"none"``: no labels. Otherwise a text file with one class name a
        line, in the model's order.
    strict : bool
        Whether an unreadable image is an error; otherwise it is skipped and named in `skipped`.
    limit : int or None
        With fewer images wanted than there are, they come in an order shuffled by `seed`, so that
        they are a fair sample.
    seed : int
        Seed of that order.

    Raises
    ------
    DataError
        No images, images both in the folder and in its subfolders, or classes whose labels are not
        clear.
    """

    def __init__(
        self,
        folder: Path,
        encoder: ImageEncoder,
        name: str,
        *,
        labels_from: Path | str | None,
        strict: bool,
        limit: int | None,
        seed: int,
    ) -> None:
        self._folder = folder
        self._encoder = encoder
        self._name = name
        self._strict = strict
        self._bad: dict[Path, str] = {}
        self._files = _find(folder, labels_from)
        if limit is not None and limit < len(self._files):
            order = np.random.default_rng(seed).permutation(len(self._files))
            self._files = [self._files[i] for i in order]

    @property
    def skipped(self) -> list[str]:
        """One sentence for each unreadable image met so far."""
        return list(self._bad.values())

    @property
    def samples(self) -> int:
        """Number of images, without those known to be unreadable."""
        return len(self._files) - len(self._bad)

    def __iter__(self) -> Iterator[Sample]:
        """Yield the images in order; raise DataError at an unreadable one where that is fatal."""
        from PIL import Image

        for path, label in self._files:
            if path in self._bad:
                continue
            try:
                with Image.open(path) as image:
                    values = self._encoder(image)
            # Pillow reports broken files in these ways, SyntaxError for some PNG chunks among them.
            except (
                OSError,
                SyntaxError,
                ValueError,
                EOFError,
                Image.DecompressionBombError,
            ) as error:
                place = path.relative_to(self._folder)
                message = f"{place}: {' '.join(str(error).split()) or type(error).__name__}"
                if self._strict:
                    raise DataError(f"cannot read image {message}; repair or remove it") from error
                self._bad[path] = message
                continue
            yield Sample({self._name: values}, label, str(path.relative_to(self._folder)))


def _find(folder: Path, labels_from: Path | str | None) -> list[tuple[Path, int | None]]:
    """Return the image files, sorted by class and path, with their labels."""
    loose = _images(folder.iterdir())
    classes = {
        sub.name: found
        for sub in sorted(folder.iterdir())
        if sub.is_dir() and not sub.name.startswith(".") and (found := _images(sub.rglob("*")))
    }
    if not loose and not classes:
        raise DataError(f"no JPEG or PNG images in {folder}; check the path")
    if loose and classes:
        raise DataError(
            f"{folder} holds images itself and in subfolders ('{next(iter(classes))}'); "
            "move them all to one subfolder per class, or all to one folder"
        )
    if loose:
        if labels_from not in (None, "none"):
            raise DataError(f"{folder} has no class subfolders; leave the class list out")
        return [(path, None) for path in loose]
    labels: dict[str, int | None] = dict.fromkeys(classes)
    if labels_from is None:
        labels.update(_sorted_labels(folder, list(classes)))
    elif labels_from != "none":
        labels.update(_listed_labels(Path(labels_from), list(classes)))
    return [(path, labels[name]) for name, paths in classes.items() for path in paths]


def _images(paths: Iterator[Path]) -> list[Path]:
    return sorted(
        p
        for p in paths
        if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def _sorted_labels(folder: Path, names: list[str]) -> dict[str, int]:
    labels = {name: place for place, name in enumerate(names)}
    # "10" sorts before "2", and a missing class shifts all after it: numbers must not be
    # re-numbered unseen.
    if all(name.isdecimal() for name in names):
        for name, place in labels.items():
            if int(name) not in (place, place + 1):
                raise DataError(
                    f"class folder '{name}' in {folder} comes at place {place} of the sorted "
                    f"names, so its "
                    "label is not clear; give a class list (a text file, one name a line, in the "
                    "model's order)"
                )
    return labels


def _listed_labels(path: Path, names: list[str]) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the class list {path}: {error}; give a text file, one class name a line"
        ) from error
    known = {line.strip(): place for place, line in enumerate(lines) if line.strip()}
    for name in names:
        if name not in known:
            raise DataError(f"class folder '{name}' is not in {path}{suggest(name, known)}")
    return {name: known[name] for name in names}
