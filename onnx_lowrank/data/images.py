"""Samples from a folder of images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.data.dataset import Sample
from onnx_lowrank.data.preprocess import ImageEncoder
from onnx_lowrank.errors import DataError, suggest

if TYPE_CHECKING:
    from PIL.Image import Image

_SUFFIXES = {".jpg", ".jpeg", ".png"}
# What a file holds, not its name, chooses the reader; some of the others run programs (EPS).
_FORMATS = ("JPEG", "PNG")
_ORIENTATION = 0x0112  # the tag of EXIF
# The transposition that brings an image upright, as a member of PIL.Image.Transpose.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_LONGEST_LIST = 2**24  # bytes of a list of classes


class ImageFolder:
    """JPEG and PNG files, read one at a time and turned as their EXIF says.

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
        for path, label in self._files:
            if path in self._bad:
                continue
            try:
                values = self._read(path)
            except Exception as error:  # hostile files make Pillow raise anything
                place = path.relative_to(self._folder)
                reason = "not a JPEG or PNG image" if _is_unknown(error) else str(error)
                message = f"{place}: {' '.join(reason.split()) or type(error).__name__}"
                if self._strict:
                    raise DataError(f"cannot read image {message}; repair or remove it") from error
                self._bad[path] = message
                continue
            yield Sample({self._name: values}, label, str(path.relative_to(self._folder)))

    def _read(self, path: Path) -> NDArray[Any]:
        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # damaged metadata, of which only the orientation is read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                image.load()
                return self._encoder(_upright(image))


def _upright(image: Image) -> Image:
    """Return an image as its EXIF says that it is to be shown."""
    from PIL.Image import Transpose

    try:
        method = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata, without which the image is whole
        method = None
    return image if method is None else image.transpose(Transpose[method])


def _is_unknown(error: Exception) -> bool:
    from PIL import UnidentifiedImageError

    return isinstance(error, UnidentifiedImageError)


def _find(folder: Path, labels_from: Path | str | None) -> list[tuple[Path, int | None]]:
    """Return the image files, sorted by class and path, with their labels."""
    try:
        loose = _images(folder.iterdir())
        classes = {
            sub.name: found
            for sub in sorted(folder.iterdir())
            if sub.is_dir() and not sub.name.startswith(".") and (found := _images(sub.rglob("*")))
        }
        loop = next((name for name in classes if _holds(folder / name, folder)), None)
    except (OSError, RuntimeError) as error:  # the latter for links that lead to themselves
        raise DataError(f"cannot list the images in {folder}: {error}; check the folder") from error
    if loop is not None:
        raise DataError(
            f"the subfolder '{loop}' of {folder} is a link to a folder around it, not a class; "
            "remove it"
        )
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


def _holds(outer: Path, inner: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())


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
        with path.open("rb") as file:
            data = file.read(_LONGEST_LIST + 1)  # a device may have no end
        if len(data) > _LONGEST_LIST:
            raise ValueError(f"it has more than {_LONGEST_LIST} bytes")
        lines = data.decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read the class list {path}: {error}; give a text file, one class name a line"
        ) from error
    known: dict[str, int] = {}
    twice = set()  # harmless where no folder has that name: ImageNet's list has such
    for place, line in enumerate(lines):
        if name := line.strip():
            if name in known:
                twice.add(name)
            known[name] = place
    for name in names:
        if name not in known:
            raise DataError(f"class folder '{name}' is not in {path}{suggest(name, known)}")
        if name in twice:
            raise DataError(
                f"class '{name}' is twice in {path}, so the label of that folder is not clear; "
                "give each class a name of its own"
            )
    return {name: known[name] for name in names}
