from __future__ import annotations

import json
import sys
from pathlib import Path

import colouring
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import registry
import train

from onnx_lowrank.data.open import open_dataset
from onnx_lowrank.runtime import TensorInfo


def entries(cache: Path) -> list[Path]:
    """What the cache holds of networks, but for the lock files, which stay."""
    return [path for path in (cache / "networks").iterdir() if path.suffix != ".lock"]


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", train.RECIPES)
def test_a_short_training_on_few_images_is_far_above_chance(name: str) -> None:
    torch = pytest.importorskip("torch")
    import networks

    # A tenth of the training images, and as good for this.
    images, labels = colouring.load("calibration", side=train.RECIPES[name].side)
    held_out = colouring.load("validation", side=train.RECIPES[name].side)
    torch.set_num_threads(train.THREADS)
    torch.manual_seed(0)
    network = networks.NETWORKS[name]()
    calls: list[bool] = []
    train.fit(
        network,
        images[:2000],
        labels[:2000],
        epochs=2,
        rate=train.RECIPES[name].rate,
        rng=np.random.default_rng(0),
        after_epoch=lambda: calls.append(network.training),
    )
    with torch.inference_mode():
        scores = train.score(lambda x: network(torch.from_numpy(x)).numpy(), held_out[0][:1000])
    # Chance is 0.1 with a standard error of 0.0095 on 1000 images: 0.2 is ten of them above.
    assert train.accuracy(scores, held_out[1][:1000]) > 0.2
    assert calls == [False, False]


def test_training_is_decided_by_the_seed() -> None:
    torch = pytest.importorskip("torch")
    import networks

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 3, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, 300)

    def weights(seed: int) -> list[object]:
        torch.manual_seed(0)
        network = networks.NETWORKS["vgg"]()
        order = np.random.default_rng(seed)
        train.fit(network, images, labels, epochs=1, rate=1e-3, rng=order)
        return [value.clone() for value in network.state_dict().values()]

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        first, again, other = weights(0), weights(0), weights(1)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_accuracy_counts_the_highest_scores() -> None:
    scores = np.array([[0, 1, 0], [2, 0, 1], [0, 0, 3], [5, 6, 0]], np.float32)
    assert train.accuracy(scores, np.array([1, 0, 1, 1])) == 0.75


def test_scores_of_parts_are_joined() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1001, 3, 2, 2), dtype=np.uint8)
    sizes: list[int] = []

    def network(batch: train.Array) -> train.Array:
        sizes.append(len(batch))
        return batch[:, :, 0, 0]

    found = train.score(network, images)
    assert sizes == [500, 500, 1]
    np.testing.assert_array_equal(found, colouring.normalise(images)[:, :, 0, 0])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits of 300 random images instead of the real ones."""

    def load(split: str, *, side: int) -> tuple[colouring.Images, train.Labels]:
        rng = np.random.default_rng(colouring.SPLITS.index(split))
        labels = rng.integers(0, 10, 300)
        grey = rng.integers(0, 256, (300, side, side), dtype=np.uint8)
        return colouring.colour(grey, rng), labels

    monkeypatch.setattr(colouring, "load", load)


def test_data_is_read_as_the_input_of_the_network(few: None, tmp_path: Path) -> None:
    path = tmp_path / "new" / "test.npz"
    assert train.main(["data", "zf", "--split", "test", "-o", str(path)]) == 0
    images, labels = colouring.load("test", side=56)
    with np.load(path) as arrays:
        assert sorted(arrays) == ["image", "labels"]
        assert arrays["image"].dtype == np.float32
        np.testing.assert_array_equal(arrays["image"], colouring.normalise(images))
        np.testing.assert_array_equal(arrays["labels"], labels)
    assert list(path.parent.iterdir()) == [path]


def test_a_trained_network_is_cached_with_its_record(
    few: None, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    output = tmp_path / "net.onnx"
    command = ["vgg", "--epochs", "1", "--seed", "3", "-o", str(output)]
    assert train.main(command) == 0
    (folder,) = entries(cache)
    first = output.read_bytes()
    assert (folder / "vgg.onnx").read_bytes() == first

    record = json.loads(output.with_suffix(".json").read_text())
    assert record == json.loads((folder / "vgg.json").read_text())
    assert record["sha256"] == registry.digest(output)
    assert (record["epochs"], record["seed"]) == (1, 3)
    session = ort.InferenceSession(first, providers=["CPUExecutionProvider"])
    images, labels = colouring.load("test", side=28)
    (scores,) = session.run(None, {"image": colouring.normalise(images)})
    # Scores of random images nearly tie, and batches of another size sum in another order.
    assert record["accuracy"]["test"] == pytest.approx(train.accuracy(scores, labels), abs=2 / 300)
    assert 0 <= record["difference_from_torch"] < train.TOLERANCE

    capsys.readouterr()
    assert train.main(command) == 0  # from the cache: nothing is trained
    assert capsys.readouterr().err == ""


def test_the_key_follows_the_seed_and_the_code_but_no_comment() -> None:
    keys = {
        train._key(name, epochs, seed)
        for name in train.RECIPES
        for epochs in (1, 2)
        for seed in (0, 1)
    }
    assert len(keys) == 8
    plain = train._code("def f(x):\n    return x + 1\n")
    assert train._code('"""What."""\ndef f(x):  # why\n    """How."""\n    return x + 1\n') == plain
    assert train._code("def f(x):\n    return x + 2\n") != plain


def test_without_torch_it_says_what_to_install(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert train.main(["zf"]) == 2
    assert capsys.readouterr().err == "error: zf: torch is not installed; `pip install torch`\n"
    assert entries(cache) == []


def test_a_graph_that_differs_from_torch_is_not_kept(
    few: None, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    import networks
    from torch.nn import Sequential

    export = networks.export

    def wrong(network: Sequential, name: str, *, side: int) -> onnx.ModelProto:
        model = export(network, name, side=side)
        (bn1,) = (node for node in model.graph.node if node.name == "bn1")
        (epsilon,) = bn1.attribute
        epsilon.f = 0.5
        return model

    monkeypatch.setattr(networks, "export", wrong)
    with pytest.raises(train.TrainingError, match="off torch's"):
        train.trained("vgg", epochs=1)
    assert entries(cache) == []


@pytest.mark.parametrize(
    "arguments",
    [["resnet"], ["zf", "--epochs", "0"], ["vgg", "--seed", "-1"], ["data", "zf", "-o", "x"]],
)
def test_bad_arguments_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert stopped.value.code == 2


def test_data_feed_a_model_by_its_input(few: None, tmp_path: Path) -> None:
    path = train.write_data("vgg", "calibration", tmp_path / "calibration.npz")
    info = TensorInfo("image", "tensor(float)", ("N", 3, 28, 28))
    images, labels = colouring.load("calibration", side=28)
    batches = list(open_dataset(path, [info], batch=100))
    fed = np.concatenate([batch.feeds["image"] for batch in batches])
    np.testing.assert_array_equal(fed, colouring.normalise(images))
    told = [batch.labels for batch in batches if batch.labels is not None]
    np.testing.assert_array_equal(np.concatenate(told), labels)
