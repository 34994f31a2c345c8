from __future__ import annotations

import io
import sys
import zipfile

import convert
import datasets
import fetch
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from registry import FetchError


def scores(name: str, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(fetch.network(name), providers=["CPUExecutionProvider"])
    (output,) = session.run([convert.OUTPUT], {convert.INPUT: images})
    return np.asarray(output)


@pytest.mark.network
def test_mnist_knows_the_digits() -> None:
    with np.load(datasets.dataset("mnist5k") / "test.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    inputs = ((images[:, None] / 255 - 0.1307) / 0.3081).astype(np.float32)
    right = np.count_nonzero(scores("mnist", inputs).argmax(axis=1) == labels)
    assert right == pytest.approx(4985, abs=2)  # two near ties may fall either way by rounding


@pytest.mark.network
def test_cifar10_knows_the_samples() -> None:
    pytest.importorskip("h5py")
    image = pytest.importorskip("PIL.Image")
    paths = sorted(datasets.dataset("cifar10-samples").iterdir())
    labels = [int(path.stem.split("_")[-1]) for path in paths]
    pixels = np.stack([np.asarray(image.open(path)) for path in paths]).astype(np.float32)
    found = scores("cifar10", pixels.transpose(0, 3, 1, 2)).argmax(axis=1)
    assert len(paths) == 20
    assert found.tolist() == labels


def weights_file(sizes: list[int]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for index, size in enumerate(sizes):
            archive.writestr(f"handwriting_model/data/{index}", np.zeros(size, "<f4").tobytes())
    return file.getvalue()


def test_mnist_is_opset_13_and_takes_any_batch() -> None:
    sizes = [int(np.prod(shape)) for _, shape in convert.MNIST]
    model = convert.mnist(weights_file(sizes))
    assert (model.ir_version, model.opset_import[0].version) == (8, 13)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        (output,) = session.run(None, {"image": np.ones((batch, 1, 28, 28), np.float32)})
        assert output.shape == (batch, 10)


def test_tensors_of_another_size_are_refused() -> None:
    sizes = [int(np.prod(shape)) for _, shape in convert.MNIST]
    sizes[2] -= 1
    with pytest.raises(FetchError, match=r"conv2\.weight: has 18431 values"):
        convert.mnist(weights_file(sizes))


def test_a_missing_h5py_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(FetchError, match="pip install h5py"):
        convert.cifar10(b"")
