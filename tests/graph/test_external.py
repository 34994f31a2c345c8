from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import conv_model, initializers
from onnx import TensorProto, helper, numpy_helper

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.external import data_files
from onnx_lowrank.graph.io import load_model

WEIGHT = np.arange(4 * 3 * 3 * 3, dtype=np.float32).reshape(4, 3, 3, 3)


def save(path: Path, *, location: str = "w.bin") -> onnx.ModelProto:
    """Write a model with its weights in one other file; return it as it is in memory."""
    model = conv_model(WEIGHT, np.ones(4))
    copy = load_model(model)
    onnx.save(copy, path, save_as_external_data=True, location=location, size_threshold=0)
    return model


def edit(path: Path, **entries: str) -> None:
    """Change the description of the first weight's data."""
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())


def test_data_are_read_relative_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    model = save(path)
    assert data_files(path) == (tmp_path / "w.bin",)
    read = load_model(path)
    for name, value in initializers(model).items():
        np.testing.assert_array_equal(initializers(read)[name], value)
    assert not any(t.HasField("data_location") and t.data_location for t in read.graph.initializer)
    monkeypatch.chdir(tmp_path)
    assert load_model("model.onnx") == read


def test_data_in_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    model = save(tmp_path / "model.onnx", location="weights/w.bin")
    read = load_model(tmp_path / "model.onnx")
    np.testing.assert_array_equal(initializers(read)["w"], initializers(model)["w"])


def test_a_store_of_links(tmp_path: Path) -> None:
    """Model caches keep files under their hash, and links by name to them elsewhere."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    model = save(tmp_path / "blobs" / "model.onnx", location="w.bin")
    for name, blob in (("model.onnx", "aaaa"), ("w.bin", "bbbb")):
        (tmp_path / "blobs" / name).rename(tmp_path / "blobs" / blob)
        (tmp_path / "snapshot" / name).symlink_to(f"../blobs/{blob}")
    read = load_model(tmp_path / "snapshot" / "model.onnx")
    np.testing.assert_array_equal(initializers(read)["w"], initializers(model)["w"])


def test_data_of_attributes_bodies_and_functions(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(values.tobytes())

    def external(name: str, offset: int, length: str | None) -> onnx.TensorProto:
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": "w.bin", "offset": str(offset), "length": length}
        for key, value in entries.items():
            if value is not None:
                tensor.external_data.add(key=key, value=value)
        return tensor

    inside = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["i"])],
        "body",
        [],
        [helper.make_tensor_value_info("i", 1, [2])],
        [external("k", 0, "8")],
    )
    function = helper.make_function(
        "local",
        "f",
        [],
        ["c"],
        [helper.make_node("Constant", [], ["c"], value=external("", 8, None))],
        [helper.make_opsetid("", 13)],
    )
    nodes = [
        helper.make_node("If", ["cond"], ["a"], then_branch=inside, else_branch=inside),
        helper.make_node("f", [], ["b"], domain="local"),
        helper.make_node("Constant", [], ["c"], value=external("", 16, "8")),
        helper.make_node("Sum", ["a", "b", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("cond", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", 1, [2])],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opsets, functions=[function])
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    read = load_model(path)
    found = [
        *(read.graph.node[0].attribute[i].g.initializer[0] for i in (0, 1)),
        read.functions[0].node[0].attribute[0].t,
        read.graph.node[2].attribute[0].t,
    ]
    assert [numpy_helper.to_array(t).tolist() for t in found] == [[0, 1], [0, 1], [2, 3], [4, 5]]


def test_data_that_are_missing_or_short(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(path)
    data = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(data[:-1])
    with pytest.raises(
        ModelError, match=r"w\.bin is cut short: 'b' needs 16 bytes from 432 on, 15"
    ):
        load_model(path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"'w' in 'w\.bin', which is not there; copy that file"):
        load_model(path)
    (tmp_path / "w.bin").mkdir()
    with pytest.raises(ModelError, match="which is not there"):
        load_model(path)


@pytest.mark.parametrize(
    "entries", [{"offset": "-4"}, {"length": "431"}, {"length": "433"}, {"offset": "x"}]
)
def test_data_described_wrongly(entries: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(path)
    edit(path, **entries)
    with pytest.raises(ModelError, match="describes the external data of 'w' wrongly"):
        load_model(path)


def test_data_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "model.onnx"
    save(path)
    secret = tmp_path / "secret"
    secret.write_bytes((folder / "w.bin").read_bytes())
    (folder / "way_out").symlink_to("../secret")
    # There or not: the answer must not tell.
    for location in ("../secret", str(secret), "way_out", "../none", "/none"):
        edit(path, location=location)
        with pytest.raises(ModelError, match="outside its own folder"):
            load_model(path)


def test_without_a_folder_external_data_cannot_be_found(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(path)
    for source in (path.read_bytes(), onnx.load(path, load_external_data=False)):
        with pytest.raises(
            ModelError, match=r"values of 'w' in the file 'w\.bin'; give the model's"
        ):
            load_model(source)
