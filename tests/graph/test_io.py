from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import conv_model, initializers, run, text_model
from onnx import helper, numpy_helper

from onnx_lowrank.errors import ModelError, OutputError
from onnx_lowrank.files import write_text
from onnx_lowrank.graph import io
from onnx_lowrank.graph.io import (
    check_output,
    file_size,
    load_model,
    save_model,
    serialised_size,
)

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3, 3, 3))
X = RNG.standard_normal((2, 3, 9, 9)).astype(np.float32)


def rich_model() -> onnx.ModelProto:
    """A model with something in every field that tools like to lose."""
    model = conv_model(WEIGHT, np.ones(4), input_shape=("N", 3, "H", "W"), ir_version=10, opset=17)
    model.producer_name, model.producer_version = "exporter", "1.2"
    model.domain, model.model_version, model.doc_string = "org.example", 7, "a model"
    model.metadata_props.add(key="classes", value="cat,dog")
    model.opset_import.add(domain="local", version=1)
    body = [helper.make_node("Relu", ["a"], ["b"], name="inner")]
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "act", ["a"], ["b"], body, opset))
    graph = model.graph
    graph.doc_string = "a graph"
    graph.node[0].doc_string = "a node"
    graph.node[0].metadata_props.add(key="k", value="v")
    graph.initializer[0].doc_string = "a weight"
    graph.value_info.append(helper.make_tensor_value_info("z", 1, ["N", None]))
    note = graph.quantization_annotation.add(tensor_name="w")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    return model


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_everything_is_kept_from_every_source(tmp_path: Path) -> None:
    model = rich_model()
    data = model.SerializeToString(deterministic=True)
    path = tmp_path / "model.onnx"
    save_model(model, path)
    assert path.read_bytes() == data
    for source in (path, str(path), data, model):
        assert load_model(source).SerializeToString(deterministic=True) == data
    assert load_model(model) is not model
    assert files(tmp_path) == {"model.onnx"}


def test_the_light_models_come_back_byte_for_byte(light_folder: Path, tmp_path: Path) -> None:
    for path in sorted(light_folder.glob("*.onnx")):
        save_model(load_model(path), tmp_path / path.name)
        # Fields in the order of their numbers: what protobuf itself writes for the file.
        original = onnx.ModelProto.FromString(path.read_bytes())
        written = (tmp_path / path.name).read_bytes()
        assert written == original.SerializeToString(deterministic=True)


BAD = {
    "empty": (b"", "is empty"),
    "text": (b"hello, world\nthis is no model\n", "text file"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "ort": (b"\x1c\x00\x00\x00ORTM" + bytes(64), "onnxruntime's own format"),
    "binary": (bytes(range(256)), "cut short, or no ONNX model"),
    "zip": (b"PK\x03\x04" + bytes(100), "cut short, or no ONNX model"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_model_is_told_apart(name: str, tmp_path: Path) -> None:
    data, says = BAD[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=says) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert ";" in str(caught.value)  # cause; remedy
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=says):
        load_model(data)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such file; check the path"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="directory"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="/dev/zero is no regular file; give"):
        load_model("/dev/zero")  # which has no end
    with pytest.raises(ModelError, match="null byte"):
        load_model("a\0b")


def test_a_model_cut_anywhere_is_refused_or_read(tmp_path: Path) -> None:
    """A cut between two fields leaves a valid message: that much cannot be seen."""
    data = rich_model().SerializeToString(deterministic=True)
    read = []
    for length in range(len(data)):
        try:
            load_model(data[:length])
        except ModelError:
            continue
        read.append(length)
    graph_ends = data.index(b"a node") + 1
    assert len(read) < 8
    assert min(read) > graph_ends


# Writing


def test_bad_outputs(tmp_path: Path) -> None:
    model = conv_model(WEIGHT)
    source = tmp_path / "in.onnx"
    save_model(model, source)
    before = source.read_bytes()
    for path, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "out.onnx", "there is no folder"),
        (source, "is the input itself"),
        (tmp_path / "." / "in.onnx", "is the input itself"),
    ):
        with pytest.raises(OutputError, match=says):
            save_model(model, path, source=source)
        with pytest.raises(OutputError, match=says):
            check_output(path, source=source)
    (tmp_path / "link.onnx").symlink_to(source)
    with pytest.raises(OutputError, match="is the input itself"):
        save_model(model, tmp_path / "link.onnx", source=source)
    assert source.read_bytes() == before
    save_model(conv_model(2 * WEIGHT), source, source=source, force=True)
    np.testing.assert_array_equal(
        initializers(load_model(source))["w"], (2 * WEIGHT).astype(np.float32)
    )


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot (write|be written to)"):
        save_model(conv_model(WEIGHT), Path("/proc/self/out.onnx"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="no regular file"):
        save_model(conv_model(WEIGHT), tmp_path / "pipe")


def test_the_weights_of_the_input_are_never_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(
        conv_model(WEIGHT), source, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    before = (tmp_path / "w.bin").read_bytes()
    for force in (False, True):
        with pytest.raises(OutputError, match="holds the weights of"):
            save_model(conv_model(WEIGHT), tmp_path / "w.bin", source=source, force=force)
    assert (tmp_path / "w.bin").read_bytes() == before


def test_a_link_is_written_through_and_rights_are_kept(tmp_path: Path) -> None:
    real = tmp_path / "model.onnx"
    save_model(conv_model(WEIGHT), real)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(real.stat().st_mode) == 0o666 & ~umask
    real.chmod(0o640)
    save_model(conv_model(WEIGHT), real)
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    link = tmp_path / "link.onnx"
    link.symlink_to("model.onnx")
    save_model(conv_model(2 * WEIGHT), link)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    np.testing.assert_array_equal(
        initializers(load_model(link))["w"], (2 * WEIGHT).astype(np.float32)
    )


class _Crash(BaseException):
    """Nothing that a handler of errors would catch."""


def _fail_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int, error: BaseException) -> None:
    """Let the given call of an os function raise."""
    real: Callable[..., object] = getattr(os, name)
    calls = []

    def fake(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == call:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, fake)


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("error", [FULL, _Crash()], ids=["full", "crash"])
def test_a_crash_leaves_the_old_file(
    name: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    save_model(conv_model(WEIGHT), path)
    before = path.read_bytes()
    _fail_at(monkeypatch, name, 1, error)
    expected = OutputError if isinstance(error, OSError) else _Crash
    with pytest.raises(expected) as caught:
        save_model(conv_model(2 * WEIGHT), path)
    if expected is OutputError:
        assert "No space left on device; free space" in str(caught.value)
    assert path.read_bytes() == before
    assert files(tmp_path) == {"model.onnx"}


def test_a_text_file_is_written_like_a_model(tmp_path: Path) -> None:
    write_text(tmp_path / "plan.json", "{é}\n")
    assert (tmp_path / "plan.json").read_text("utf-8") == "{é}\n"
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "no" / "plan.json", "")
    assert files(tmp_path) == {"plan.json"}


# Beyond the limit of one file


@pytest.fixture
def _small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io, "SINGLE_FILE_LIMIT", 100)
    monkeypatch.setattr(io, "EXTERNAL_FROM", 32)


def two_convs(scale: float = 1.0) -> onnx.ModelProto:
    text = """net (float[N,3,9,9] x) => (y) {
        a = Conv<pads=[1,1,1,1]>(x, w, b)
        y = Conv(a, v)
    }"""
    weights = {"w": scale * WEIGHT, "b": np.ones(4), "v": RNG.standard_normal((2, 4, 3, 3))}
    model = text_model(text, {k: v.astype(np.float32) for k, v in weights.items()})
    # One weight in the typed field rather than as raw bytes.
    tensor = model.graph.initializer[0]
    values = numpy_helper.to_array(tensor).ravel().tolist()
    tensor.CopyFrom(helper.make_tensor("w", tensor.data_type, tensor.dims, values))
    assert not tensor.HasField("raw_data")
    return model


@pytest.mark.usefixtures("_small_limit")
def test_a_large_model_goes_into_two_files(tmp_path: Path) -> None:
    model = two_convs()
    model.doc_string = "kept"
    before = model.SerializeToString(deterministic=True)
    path = tmp_path / "model.onnx"
    save_model(model, path)
    assert model.SerializeToString(deterministic=True) == before
    (data,) = files(tmp_path) - {"model.onnx"}
    written = onnx.load(path, load_external_data=False)
    assert [t.data_location for t in written.graph.initializer] == [1, 0, 1]  # b is small
    offsets = [
        int(e.value)
        for t in written.graph.initializer
        for e in t.external_data
        if e.key == "offset"
    ]
    assert [offset % 4096 for offset in offsets] == [0, 0]
    assert path.stat().st_size < 1000

    read = load_model(path)
    assert read.doc_string == "kept"
    for name, value in initializers(model).items():
        np.testing.assert_array_equal(initializers(read)[name], value)
    np.testing.assert_array_equal(run(str(path), {"x": X})[0], run(model, {"x": X})[0])

    # The same bytes once more; other weights, another data file, and the old one is gone.
    stamp = path.read_bytes()
    save_model(model, path)
    assert path.read_bytes() == stamp
    assert files(tmp_path) == {"model.onnx", data}
    save_model(two_convs(2.0), path)
    (other,) = files(tmp_path) - {"model.onnx"}
    assert other != data
    save_model(conv_model(WEIGHT[:1, :1]), path)  # small again
    assert files(tmp_path) == {"model.onnx"}


def test_the_size_of_a_model_is_that_of_its_file(tmp_path: Path) -> None:
    save_model(two_convs(), tmp_path / "model.onnx")
    size = (tmp_path / "model.onnx").stat().st_size
    assert serialised_size(two_convs()) == file_size(tmp_path / "model.onnx") == size


@pytest.mark.usefixtures("_small_limit")
def test_the_size_of_a_model_in_two_files(tmp_path: Path) -> None:
    save_model(two_convs(), tmp_path / "model.onnx")
    assert len(files(tmp_path)) == 2
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    # In the structure there is the name of the other file, which is as long as it is here.
    assert serialised_size(two_convs()) == file_size(tmp_path / "model.onnx") == size


@pytest.mark.usefixtures("_small_limit")
@pytest.mark.parametrize(
    ("name", "call"), [("fsync", 1), ("replace", 1), ("fsync", 2), ("replace", 2)]
)
@pytest.mark.parametrize("error", [FULL, _Crash()], ids=["full", "crash"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_crash_between_the_two_files(
    name: str,
    call: int,
    error: BaseException,
    exists: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "model.onnx"
    if exists:
        save_model(two_convs(), path)
    before = files(tmp_path)
    expected = run(str(path), {"x": X})[0] if exists else None
    with monkeypatch.context() as patch:
        _fail_at(patch, name, call, error)
        with pytest.raises((OutputError, _Crash)):
            save_model(two_convs(2.0), path)
    assert files(tmp_path) == before
    if exists:
        np.testing.assert_array_equal(run(str(path), {"x": X})[0], expected)


@pytest.mark.usefixtures("_small_limit")
def test_only_data_files_of_its_own_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(two_convs(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    save_model(two_convs(), path)
    assert "w.bin" in files(tmp_path)
    # A data file by the right name that the old model does not refer to is somebody else's.
    stranger = tmp_path / f"model.onnx.{'0' * 16}.data"
    stranger.write_bytes(b"")
    save_model(two_convs(2.0), path)
    assert stranger.exists()


@pytest.mark.usefixtures("_small_limit")
def test_a_large_model_goes_through_a_link_where_its_weights_are_found(tmp_path: Path) -> None:
    """The runtime does not look for data beside what a link points to."""
    (tmp_path / "real").mkdir()
    save_model(two_convs(), tmp_path / "real" / "model.onnx")
    kept = files(tmp_path / "real")
    link = tmp_path / "link.onnx"
    link.symlink_to("real/model.onnx")
    model = two_convs(2.0)
    with pytest.raises(
        OutputError, match=r"is a link to another folder.*; give .*real/model\.onnx"
    ):
        save_model(model, link)
    assert link.is_symlink()
    assert files(tmp_path / "real") == kept
    beside = tmp_path / "real" / "beside.onnx"
    beside.symlink_to("model.onnx")
    save_model(model, beside)
    assert beside.is_symlink()
    np.testing.assert_array_equal(run(str(beside), {"x": X})[0], run(model, {"x": X})[0])
