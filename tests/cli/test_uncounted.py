"""A bound on multiply-adds that nobody can count is refused with a remedy that helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

Cli = Callable[..., Any]
# What the body of the If sees has been resized by an input's value.
TEXT = """
<ir_version: 8, opset_import: ["" : 13]>
net (float[{sizes}] x, bool c, int64[4] at) => (float[N,C,H,W] y) {{
    a = Conv(x, w)
    r = Reshape(a, at)
    y = If (c) <then_branch = g1 () => (float[n,k,h,l] t) {{ [inner] t = Conv(r, w) }},
                else_branch = g2 () => (float[n,k,h,l] e) {{ e = Identity(r) }}>
}}
"""


@pytest.mark.parametrize(("sizes", "open_sizes"), [("1,4,8,8", False), ("1,4,H,W", True)])
def test_a_remedy_helps(cli: Cli, tmp_path: Path, sizes: str, open_sizes: bool) -> None:
    model = parser.parse_model(TEXT.format(sizes=sizes))
    weight = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=np.zeros((1, 4, 8, 8), np.float32))
    result = cli(
        *("compress", tmp_path / "net.onnx", "-o", tmp_path / "new.onnx"),
        *("--data", tmp_path / "data.npz", "--macs", "0.8"),
    )
    assert result.code == 2
    assert result.err.startswith("error: a bound on macs cannot be checked: ")
    assert ("'inner'" in result.err) or open_sizes
    assert ("give --input-shape" in result.err) == open_sizes
    assert "bound something else, such as --params or --min-speedup" in result.err
    assert not (tmp_path / "new.onnx").exists()
