"""`inspect`, `cost` and `compress`: every layer is listed, totals say what they count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

Cli = Callable[..., Any]
RNG = np.random.default_rng(0)
W = RNG.standard_normal((16, 16, 3, 3)).astype(np.float32)
REPLACE = ("--layer", "one=tucker2:R1=2,R2=2")
FACTORS = 2 * 16 + 2 * 2 * 9 + 2 * 16


def save(folder: Path, nodes: str, **weights: np.ndarray) -> Path:
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> '
        f"net (float[N,16,8,8] x) => (float[N,c,h,w] y) {{ {nodes} }}"
    )
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return save(
        tmp_path,
        "[one] a = Conv<pads=[1,1,1,1]>(x, w) b = Relu(a) [two] y = Conv<pads=[1,1,1,1]>(b, w)",
        w=W,
    )


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    return save(tmp_path, "[up] a = ConvTranspose(x, w) [up2] y = ConvTranspose(a, w)", w=W)


def test_inspect_sums_what_is_stored(cli: Cli, shared: Path) -> None:
    found = json.loads(cli("inspect", shared, "--json").out)
    assert [layer["params"] for layer in found["layers"]] == [W.size] * 2
    assert [layer["bytes"] for layer in found["layers"]] == [W.nbytes] * 2
    assert found["total"] == {"macs": 2 * 64 * W.size, "params": W.size, "bytes": W.nbytes}
    assert found["uncounted"] == {"macs": [], "params": []}
    text = cli("inspect", shared).out
    assert "all layers" in text
    assert "weights: 9.22 kB, each stored tensor counted once" in text


def test_cost_counts_a_shared_weight_once(cli: Cli, shared: Path) -> None:
    total = json.loads(cli("cost", shared, *REPLACE, "--json").out)["total"]
    assert (total["params"], total["params_new"]) == (W.size, W.size + FACTORS)
    assert (total["bytes"], total["bytes_new"]) == (W.nbytes, W.nbytes + 4 * FACTORS)
    assert total["param_reduction"] == W.size / (W.size + FACTORS)
    text = cli("cost", shared, *REPLACE).out
    assert "weights: 9.22 kB -> 9.62 kB" in text


@pytest.mark.parametrize("external", [False, True])
def test_compress_says_the_sizes_of_both_files(
    cli: Cli, shared: Path, tmp_path: Path, external: bool
) -> None:
    if external:
        onnx.save(onnx.load(shared), shared, save_as_external_data=True, location="weights")
    before = sum(path.stat().st_size for path in tmp_path.iterdir())
    out = tmp_path / "out.onnx"
    outcome = cli("compress", shared, "-o", out, *REPLACE, "--min-sqnr", 0, "--json")
    found = json.loads(outcome.out)
    assert found["file_bytes"] == before
    assert found["file_bytes_new"] == out.stat().st_size
    outcome = cli("compress", shared, "-o", out, *REPLACE, "--min-sqnr", 0)
    assert "parameters 2.3 k -> 2.4 k, file 9." in outcome.out


def test_a_file_that_grows_is_seen_to_grow(cli: Cli, tmp_path: Path) -> None:
    path = save(
        tmp_path,
        "k = DequantizeLinear(q, s) [one] y = Conv(x, k)",
        q=RNG.integers(-9, 9, W.shape, np.int8),
        s=np.array(0.1, np.float32),
    )
    plan = ("--layer", "one=tucker2:R1=12,R2=12")
    total = json.loads(cli("cost", path, *plan, "--json").out)["total"]
    factors = 12 * 16 + 9 * 12 * 12 + 12 * 16
    assert (total["params"], total["params_new"]) == (W.size, factors)
    assert (total["bytes"], total["bytes_new"]) == (W.size + 4, 4 * factors)
    out = tmp_path / "out.onnx"
    options = ("--min-sqnr", 0, "--json")
    found = json.loads(cli("compress", path, "-o", out, *plan, *options).out)
    assert found["file_bytes_new"] > 2 * found["file_bytes"]


def test_where_all_layers_are_refused_they_are_listed(
    cli: Cli, refused: Path, tmp_path: Path
) -> None:
    for command in ("inspect", "cost"):
        outcome = cli(command, refused)
        assert outcome.code == 0
        assert "up, up2: " in outcome.out
        assert "no scheme approximates the op ConvTranspose" in outcome.out
    total = json.loads(cli("cost", refused, "--json").out)["total"]
    assert (total["macs"], total["params"]) == (64 * W.size + 100 * W.size, W.size)
    outcome = cli("compress", refused, "-o", tmp_path / "out.onnx")
    assert outcome.code == 2
    assert "no scheme approximates the op ConvTranspose" in outcome.err
    assert not (tmp_path / "out.onnx").exists()


def test_a_model_without_any_layer_is_an_error(cli: Cli, tmp_path: Path) -> None:
    outcome = cli("inspect", save(tmp_path, "y = Relu(x)"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "no Conv and no fully connected layer" in outcome.err


def test_a_total_that_leaves_layers_out_says_so(cli: Cli, tmp_path: Path) -> None:
    path = save(
        tmp_path,
        "[one] a = Conv<pads=[1,1,1,1]>(x, w) y = local.block(a)",
        w=W,
    )
    model = onnx.load(path)
    body = [
        helper.make_node("Shape", ["a"], ["s"]),
        helper.make_node("RandomNormal", [], ["k"], shape=[16, 16, 3, 3]),
        helper.make_node("Conv", ["a", "k"], ["b"], name="inner"),
    ]
    model.functions.append(
        helper.make_function("local", "block", ["a"], ["b"], body, model.opset_import)
    )
    model.opset_import.append(helper.make_opsetid("local", 1))
    onnx.save(model, path)
    found = json.loads(cli("cost", path, *REPLACE, "--json").out)
    assert found["uncounted"] == {"macs": ["inner"], "params": ["inner"]}
    assert (found["total"]["macs"], found["total"]["params"]) == (None, W.size)
    text = cli("cost", path, *REPLACE).out
    assert "at least 147 k" in text
    assert "not in the total of multiply-adds, as theirs are unknown: inner" in text


def test_a_layer_with_nan_is_kept_under_a_glob_with_the_reason(cli: Cli, tmp_path: Path) -> None:
    bad = W.copy()
    bad[0, 0, 0, 0] = np.nan
    path = save(
        tmp_path,
        "[good] a = Conv(x, w) [bad] b = Conv(x, v) y = Concat<axis=1>(a, b)",
        w=W,
        v=bad,
    )
    assert "bad: its weight has NaN or Inf" in cli("inspect", path).out
    outcome = cli("cost", path, "--layer", "*=tucker2:R1=2,R2=2", "--json")
    schemes = {layer["name"]: layer["scheme"] for layer in json.loads(outcome.out)["layers"]}
    assert schemes == {"good": "tucker2:R1=2,R2=2", "bad": None}
    outcome = cli("cost", path, "--layer", "bad=tucker2:R1=2,R2=2")
    assert outcome.code == 2
    assert "layer 'bad' cannot take tucker2:R1=2,R2=2: its weight has NaN or Inf" in outcome.err


def test_one_output_channel_is_not_called_depthwise(cli: Cli, tmp_path: Path) -> None:
    path = save(tmp_path, "[one] y = Conv(x, w)", w=W[:1, :, :1, :1].copy())
    outcome = cli("inspect", path)
    assert "the layer has one output channel: there is no rank to lower" in outcome.out
    assert "depthwise" not in outcome.out
