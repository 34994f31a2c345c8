"""Training gives back what a harsh approximation took, and changes nothing but values."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: extra finetune")

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "training")]

from builders import initializers, without
from digits import accuracy, splits, trained

from onnx_lowrank import compress
from onnx_lowrank.cli import main
from onnx_lowrank.errors import DataError, ModelError, OutputError, ProviderError
from onnx_lowrank.graph.io import save_model
from onnx_lowrank.pipelines.finetune import FinetuneResult, finetune

PLAN = ["conv1=spatial:R=1", "conv2=tucker2:R1=4,R2=5"]


@dataclass(frozen=True)
class Setting:
    """A trained model, its compressed form, and data."""

    original: onnx.ModelProto
    compressed: onnx.ModelProto
    data: dict[str, Path]

    def tune(self, data: str = "train", val: str = "val", **options: Any) -> FinetuneResult:
        settings = {"epochs": 3, "rate": 3e-3, "batch": 32} | options
        return finetune(
            self.original, self.compressed, data=self.data[data], val=self.data[val], **settings
        )


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    data = splits(tmp_path_factory.mktemp("digits"))
    model = trained(data)
    compressed = compress(model, plan=PLAN, verification=False).model
    return Setting(model, compressed, data)


def test_training_from_scratch_works_and_the_approximation_hurts(setting: Setting) -> None:
    assert accuracy(setting.original, setting.data["test"]) > 0.93
    assert accuracy(setting.compressed, setting.data["test"]) < 0.85


def test_labels_give_back_what_was_lost_and_distillation_at_least_half_of_that(
    setting: Setting,
) -> None:
    test = setting.data["test"]
    before = accuracy(setting.compressed, test)
    labels = setting.tune(loss="labels")
    distilled = setting.tune("train-unlabelled", "val-unlabelled")
    gained = accuracy(labels.model, test) - before
    assert gained > 0.5 * (accuracy(setting.original, test) - before)
    assert accuracy(distilled.model, test) - before > 0.5 * gained
    assert distilled.report.loss == "distill"
    assert distilled.report.best.accuracy is None
    assert labels.report.best.accuracy == max(s.accuracy for s in labels.report.history)  # type: ignore[type-var]
    # What is validated in torch is what onnxruntime computes.
    assert accuracy(labels.model, setting.data["val"]) == pytest.approx(
        labels.report.best.accuracy, abs=1 / 400
    )


@pytest.mark.parametrize("part", ["factors", "above", "both"])
def test_only_the_values_of_what_is_trained_change(setting: Setting, part: Any) -> None:
    before = setting.compressed.SerializeToString(deterministic=True)
    result = setting.tune(part=part, epochs=1)
    assert setting.compressed.SerializeToString(deterministic=True) == before
    assert without(result.model, "initializer") == without(setting.compressed, "initializer")
    old, new = initializers(setting.compressed), initializers(result.model)
    assert [(k, v.shape, v.dtype) for k, v in old.items()] == [
        (k, v.shape, v.dtype) for k, v in new.items()
    ]
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert changed == set(result.report.trained)
    known = set(initializers(setting.original))
    above = {"fc_w", "fc_b"}
    expected = {"factors": set(old) - known, "above": above, "both": set(old) - known | above}
    assert changed == expected[part]


class Killed(Exception):
    pass


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("killed_at", [20, 45])
def test_a_killed_run_goes_on_to_the_same_end(
    setting: Setting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    optimiser: Any,
    killed_at: int,
) -> None:
    from onnx_lowrank.training import train as module

    monkeypatch.setattr(module, "CHECKPOINT_EVERY", 7)
    options: dict[str, Any] = {"epochs": 2, "optimiser": optimiser}
    whole = setting.tune(**options)
    steps: list[int] = []

    def kill(step: str, done: int, total: int) -> None:
        if done == killed_at:
            raise Killed

    path = tmp_path / "run.npz"
    with pytest.raises(Killed):
        setting.tune(**options, checkpoint=path, progress=kill)
    resumed = setting.tune(
        **options, checkpoint=path, progress=lambda step, done, total: steps.append(done)
    )
    # The check of torch comes first; 32 steps an epoch.
    assert steps[1] == (14 if killed_at == 20 else 32 + 7)
    # One thread adds in one order: the same bits.
    assert resumed.model.SerializeToString() == whole.model.SerializeToString()
    assert resumed.report.history == whole.report.history
    again = setting.tune(**options, checkpoint=path)
    assert again.model.SerializeToString() == whole.model.SerializeToString()
    with pytest.raises(DataError, match="is of other models, data or settings; remove it"):
        setting.tune(**(options | {"rate": 1e-4}), checkpoint=path)
    with np.load(setting.data["train"]) as arrays:
        np.savez(tmp_path / "other.npz", **{name: values[::-1] for name, values in arrays.items()})
    other = replace(setting, data=setting.data | {"train": tmp_path / "other.npz"})
    with pytest.raises(DataError, match="is of other models, data or settings; remove it"):
        other.tune(**options, checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot read the checkpoint"):
        setting.tune(**options, checkpoint=path)


def test_batches_of_several_sizes_share_the_epochs(setting: Setting, tmp_path: Path) -> None:
    """1000 samples: 63 steps of 16 in the first epoch of two, 8 of 128 in the second."""
    steps: list[tuple[int, int]] = []

    def note(step: str, done: int, total: int) -> None:
        if step.startswith("epoch"):
            steps.append((int(step.split()[1]), total))

    options: dict[str, Any] = {"epochs": 2, "batch": (16, 128), "patience": 9}
    result = setting.tune(**options, progress=note)
    assert [epoch for epoch, _ in steps] == [1] * 63 + [2] * 8
    assert {total for _, total in steps} == {63 + 8}
    assert result.report.steps == 63 + 8
    assert result.model.SerializeToString() == setting.tune(**options).model.SerializeToString()
    path = tmp_path / "run.npz"
    whole = setting.tune(**options, checkpoint=path)
    assert whole.model.SerializeToString() == result.model.SerializeToString()
    with pytest.raises(DataError, match="3 batch sizes cannot share 2 epochs; give at most one"):
        setting.tune(epochs=2, batch=(16, 32, 64))
    with pytest.raises(DataError, match="the batch size is 0; give a number from 1"):
        setting.tune(batch=0)


def test_steps_with_few_activations_come_to_the_same_end(setting: Setting) -> None:
    models = [setting.tune(epochs=1, recompute=recompute).model for recompute in (False, True)]
    assert models[0].SerializeToString() == models[1].SerializeToString()


def test_a_model_that_fixes_its_batch_is_trained_as_one_that_does_not(setting: Setting) -> None:
    """Only the steps' own size counts, and no sample is left out."""
    fixed = []
    for model in (setting.original, setting.compressed):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for value in (*copy.graph.input, *copy.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 3
        del copy.graph.value_info[:]
        fixed.append(copy)
    sources = {"data": setting.data["train"], "val": setting.data["val"]}
    options: dict[str, Any] = {"epochs": 2, "rate": 3e-3, "batch": 32}
    found = finetune(*fixed, **sources, **options)
    expected = setting.tune(**options)
    assert found.report.steps == expected.report.steps == 2 * 32
    assert found.report.history == expected.report.history
    for ours, theirs in zip(
        found.model.graph.initializer, expected.model.graph.initializer, strict=True
    ):
        assert ours.SerializeToString() == theirs.SerializeToString()
    assert found.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_the_seed_decides(setting: Setting) -> None:
    first, again, other = (
        setting.tune(seed=seed, epochs=1).model.SerializeToString() for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_loss_that_is_not_finite_ends_with_the_best_weights(
    setting: Setting, tmp_path: Path
) -> None:
    path = tmp_path / "run.npz"
    result = setting.tune(rate=1e20, optimiser="sgd", checkpoint=path)
    assert "is not finite" in result.report.stopped
    # Nothing was better than the start, which is kept.
    expected = setting.compressed.SerializeToString()
    assert result.model.SerializeToString() == expected
    assert path.exists()
    json.loads(json.dumps(result.report.to_dict(), allow_nan=False))


def test_it_stops_early(setting: Setting) -> None:
    result = setting.tune(rate=1e-12, epochs=9, patience=1)
    assert result.report.stopped == "no better validation in 1 epochs"
    assert len(result.report.history) < 10


def test_bad_input_is_said(setting: Setting, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weight that the original lacks"):
        finetune(
            setting.original, setting.original, data=setting.data["train"], val=setting.data["val"]
        )
    with pytest.raises(DataError, match="the loss 'labels' needs labels"):
        setting.tune("train-unlabelled", "val-unlabelled", loss="labels")
    with pytest.raises(DataError, match="--train has no choice 'all'"):
        setting.tune(part="all")
    with pytest.raises(OutputError, match="choose another --checkpoint"):
        setting.tune(checkpoint=tmp_path / "missing" / "run.npz", epochs=1)
    if not torch.cuda.is_available():
        with pytest.raises(ProviderError, match="torch finds no CUDA device"):
            setting.tune(device="cuda")
    other = onnx.ModelProto()
    other.CopyFrom(setting.original)
    (tensor,) = (t for t in other.graph.initializer if t.name == "fc_b")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(10, np.nan, np.float32), "fc_b"))
    with pytest.raises(ModelError, match="off that of onnxruntime"):
        finetune(
            setting.original,
            compress(other, plan=PLAN, verification=False).model,
            data=setting.data["train"],
            val=setting.data["val"],
        )


def test_on_the_command_line(
    setting: Setting,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(setting.original, tmp_path / "net.onnx")
    save_model(setting.compressed, tmp_path / "small.onnx")
    files = [str(tmp_path / "net.onnx"), str(tmp_path / "small.onnx")]
    data = ["--data", str(setting.data["train"]), "--val", str(setting.data["val"])]
    tuned = tmp_path / "tuned.onnx"
    common = ["onnx-lowrank", "finetune", *files, *data, "--epochs", "1", "--batch", "32"]
    common.append("--recompute")  # the same gradients
    monkeypatch.setattr(sys, "argv", [*common, "-o", str(tuned), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["best"]["accuracy"] >= report["history"][0]["accuracy"]
    expected = setting.tune(epochs=1, rate=None).model.SerializeToString(deterministic=True)
    assert tuned.read_bytes() == expected
    for sizes, said in (
        ("32,x", "cannot read --batch '32,x'; write numbers"),
        ("8,16", "2 batch sizes cannot"),
    ):
        monkeypatch.setattr(sys, "argv", [*common, "--batch", sizes, "-o", str(tuned)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*common, "-o", files[1]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "small.onnx" in capsys.readouterr().err
