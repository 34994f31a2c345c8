"""The command line as a user meets it: exit codes, one line on stderr, results on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

RUN = [sys.executable, "-c", "from onnx_lowrank.cli import main; main()"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )


def small_net() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((16, 3, 5, 5)),
        "w2": rng.standard_normal((32, 16, 3, 3)),
        "w3": rng.standard_normal((32, 1, 3, 3)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "w3"], ["y"], name="depthwise", group=32),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 32, "h", "w"])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
    model.metadata_props.add(key="author", value="somebody")
    return model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(small_net(), path)
    return path


PLAN = ("--layer", "first=mono:C=4", "--layer", "second=bicluster-svd:G=2,H=2,K1=50%,K2=50%")
LENIENT = ("--min-sqnr", "0")


def test_compress_writes_a_model_and_says_what_was_gained(model: Path, tmp_path: Path) -> None:
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    result = run("compress", model, "-o", out, *PLAN, *LENIENT, "--save-plan", plan, "--json")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    report = json.loads(result.stdout)
    costs = json.loads(run("cost", model, *PLAN, "--json").stdout)
    assert {"kind": "cost", **report["cost"]} == costs
    assert [fit["name"] for fit in report["fits"]] == ["first", "second"]
    assert all(fit["error"] <= fit["start_error"] for fit in report["fits"])
    assert [kept["name"] for kept in report["kept"]] == ["depthwise"]

    written = onnx.load(out)
    onnx.checker.check_model(written, full_check=True)
    original = onnx.load(model)
    assert list(written.graph.input) == list(original.graph.input)
    assert list(written.graph.output) == list(original.graph.output)
    assert written.metadata_props == original.metadata_props
    assert written.ir_version == original.ir_version
    assert list(written.opset_import) == list(original.opset_import)

    again = tmp_path / "again.onnx"
    assert run("compress", model, "-o", again, "--plan", plan, *LENIENT).returncode == 0
    assert again.read_bytes() == out.read_bytes()


def test_another_seed_may_give_another_file_but_one_seed_gives_one(
    model: Path, tmp_path: Path
) -> None:
    files = []
    for name, seed in (("a", 1), ("b", 1)):
        out = tmp_path / f"{name}.onnx"
        assert run("compress", model, "-o", out, *PLAN, *LENIENT, "--seed", seed).returncode == 0
        files.append(out.read_bytes())
    assert files[0] == files[1]


def test_a_comparison_out_of_tolerance_exits_with_1(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    result = run("compress", model, "-o", out, *PLAN, "--min-sqnr", 200)
    assert result.returncode == 1
    assert "FAILED" in result.stdout
    assert result.stdout.endswith("nothing was written; --keep-anyway writes it\n")
    assert not out.exists()
    plan = tmp_path / "plan.json"
    tried = ("compress", model, "-o", out, *PLAN, "--min-sqnr", 200, "--save-plan", plan, "--json")
    result = run(*tried)
    assert result.returncode == 1
    assert json.loads(result.stdout)["output"] is None
    assert not out.exists()
    assert json.loads(plan.read_text())["layers"]  # to be edited and tried again
    result = run(*tried, "--keep-anyway")
    assert result.returncode == 1
    assert json.loads(result.stdout)["output"] == str(out)
    result = run("verify", model, out, "--min-sqnr", 200, "--json")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["passed"] is False
    assert set(report) >= {"passed", "outputs", "agreement", "accuracy", "providers"}
    assert set(report["outputs"][0]) >= {"name", "max_abs", "rms", "sqnr_db", "cosine"}
    assert run("verify", model, model).returncode == 0


def test_inspect_lists_the_layers_in_graph_order(model: Path) -> None:
    layers = json.loads(run("inspect", model, "--json").stdout)["layers"]
    assert [layer["name"] for layer in layers] == ["first", "second", "depthwise"]
    first, _, depthwise = layers
    assert first["macs"] == 14 * 14 * 16 * 3 * 25
    assert (first["kernel_shape"], first["strides"], first["group"]) == ([5, 5], [2, 2], 1)
    assert "mono" in first["schemes"]
    assert first["reason"] is None
    assert depthwise["schemes"] == []
    assert "group" in depthwise["reason"]
    assert "first" in run("inspect", model).stdout


def test_operations_are_counted_where_the_size_is_given(tmp_path: Path) -> None:
    net = small_net()
    for axis in (2, 3):
        net.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"d{axis}"
    path = tmp_path / "open.onnx"
    onnx.save(net, path)
    layers = json.loads(run("inspect", path, "--json").stdout)["layers"]
    assert [layer["macs"] for layer in layers] == [None] * 3
    shape = ("--input-shape", "x=1,3,32,32")
    layers = json.loads(run("inspect", path, *shape, "--json").stdout)["layers"]
    assert layers[0]["macs"] == 14 * 14 * 16 * 3 * 25
    assert run("compress", path, "-o", tmp_path / "o.onnx", *PLAN, *LENIENT).returncode == 2
    done = run("compress", path, "-o", tmp_path / "o.onnx", *PLAN, *LENIENT, *shape)
    assert done.returncode == 0, done.stderr
    dims = onnx.load(tmp_path / "o.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param for d in dims][2:] == ["d2", "d3"]


def test_without_a_plan_the_default_is_used(model: Path, tmp_path: Path) -> None:
    result = run("compress", model, "-o", tmp_path / "o.onnx", "--keep-anyway", "--json")
    assert result.returncode in (0, 1), result.stderr  # 1: beyond the default tolerance
    schemes = {fit["name"]: fit["scheme"] for fit in json.loads(result.stdout)["fits"]}
    assert schemes["first"].startswith("mono:")
    assert "second" in schemes


def test_doctor_names_versions_and_what_is_missing() -> None:
    result = run("doctor", "--json")
    assert result.returncode == 0
    diagnosis = json.loads(result.stdout)
    assert diagnosis["versions"]["onnx"] == onnx.__version__
    assert all(item["what"] and item["remedy"] for item in diagnosis["missing"])
    assert "onnxruntime" in run("doctor").stdout


BAD = [
    pytest.param(("inspect", "{tmp}/none.onnx"), "cannot read", id="missing file"),
    pytest.param(("inspect", "{tmp}"), "directory", id="folder"),
    pytest.param(("inspect", "{tmp}/cut.onnx"), "cut", id="truncated"),
    pytest.param(("inspect", "{tmp}/text.onnx"), "ONNX", id="text file"),
    pytest.param(("inspect", "{tmp}/empty.onnx"), "ONNX", id="empty file"),
    pytest.param(("inspect", "{tmp}/relu.onnx"), "no Conv", id="no Conv"),
    pytest.param(
        ("compress", "{net}", "-o", "{tmp}/o.onnx", "--layer", "secnd=mono:C=4"),
        "did you mean 'second'",
        id="unknown layer",
    ),
    pytest.param(
        ("compress", "{net}", "-o", "{tmp}/o.onnx", "--layer", "first=momo:C=4"),
        "did you mean 'mono'",
        id="unknown scheme",
    ),
    pytest.param(
        ("compress", "{net}", "-o", "{tmp}/o.onnx", "--layer", "first=mono:C=17"),
        "out of range",
        id="rank out of range",
    ),
    pytest.param(
        ("compress", "{net}", "-o", "{tmp}/o.onnx", "--layer", "first=mono:C=0"),
        "not a rank",
        id="rank zero",
    ),
    pytest.param(
        ("compress", "{net}", "-o", "{tmp}/o.onnx", "--layer", "first"), "NAME=SCHEME", id="no ="
    ),
    pytest.param(
        ("compress", "{tmp}/invalid.onnx", "-o", "{tmp}/o.onnx"), "not valid ONNX", id="invalid"
    ),
    pytest.param(("compress", "{net}", "-o", "{tmp}/no/o.onnx"), "folder", id="no such folder"),
    # Nobody, not even root, can make a file there.
    pytest.param(
        ("compress", "{net}", "-o", "/proc/o.onnx", *PLAN, *LENIENT),
        "/proc",
        id="unwritable",
        marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here"),
    ),
    pytest.param(("compress", "{net}", "-o", "{tmp}"), "folder", id="output is a folder"),
    pytest.param(("compress", "{net}", "-o", "{net}"), "--force", id="output is the input"),
    pytest.param(("compress", "{net}"), "--output", id="no output"),
    pytest.param(
        ("compress", "{net}", "-o", "{tmp}/o.onnx", "--plan", "{tmp}/p.json"), "plan", id="no plan"
    ),
    pytest.param(
        ("compress", "{net}", "-o", "{tmp}/o.onnx", "--plan", "{tmp}/text.onnx"),
        "plan",
        id="bad plan",
    ),
    pytest.param(("inspect", "{net}", "--input-shape", "x=1,a"), "NAME=SIZES", id="bad shape"),
    pytest.param(("inspect", "{net}", "--input-shape", "z=1,3,8,8"), "no input 'z'", id="no input"),
    pytest.param(("verify", "{net}", "{net}", "--data", "{tmp}/nowhere"), "nowhere", id="no data"),
    pytest.param(("frobnicate",), "frobnicate", id="unknown command"),
    pytest.param(("inspect", "{net}", "--frob"), "--frob", id="unknown option"),
    pytest.param((), "--help", id="no command"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD)
def test_bad_input_is_one_line_on_stderr_and_exit_2(
    arguments: tuple[str, ...], says: str, model: Path, tmp_path: Path
) -> None:
    data = model.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.onnx").write_text("this is no model\n")
    (tmp_path / "empty.onnx").write_bytes(b"")
    relu = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(relu, ir_version=8, opset_imports=opset), tmp_path / "relu.onnx")
    invalid = small_net()
    invalid.graph.node[1].op_type = "NoSuchOp"
    onnx.save(invalid, tmp_path / "invalid.onnx")
    before = {p.name for p in tmp_path.iterdir()}

    result = run(*(a.format(tmp=tmp_path, net=model) for a in arguments))

    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert says in result.stderr
    assert {p.name for p in tmp_path.iterdir()} == before
    assert model.read_bytes() == data


def test_force_overwrites_the_input(model: Path) -> None:
    before = model.read_bytes()
    assert run("compress", model, "-o", model, "--force", *PLAN, *LENIENT).returncode == 0
    assert model.read_bytes() != before
