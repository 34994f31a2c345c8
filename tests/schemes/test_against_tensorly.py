"""The fits in the plain norm against tensorly's, at equal ranks, on a trained VGG-16.

Its third and fourth blocks' second Convs have the shapes that the literature calls conv3_3 and
conv4_3 (256 and 512 channels in and out).
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.graph.edit import GraphEditor
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.graph.layers import find_layers, layer_weight
from onnx_lowrank.metrics.frobenius import Frobenius
from onnx_lowrank.schemes.fits import cp_als, cp_start
from onnx_lowrank.schemes.one_block import CP, Tucker2

Array = NDArray[np.float64]
MODELS = Path(__file__).parents[2] / "models"
CASES = [("block3_conv2", 102, 272, 100), ("block4_conv2", 205, 560, 15)]
pytestmark = [pytest.mark.slow, pytest.mark.network]


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    done = subprocess.run(
        [sys.executable, MODELS / "fetch.py", "vgg16"], capture_output=True, text=True, check=True
    )
    model = load_model(done.stdout.strip())
    editor = GraphEditor(model)
    found = {}
    for layer in find_layers(model):
        for name, *_ in CASES:
            if name in layer.name:
                found[name] = layer_weight(editor, layer)
    return found


def timed(call: Callable[[], Array], weight: Array) -> tuple[float, float]:
    """Return the relative error of an approximation, and the seconds that it took."""
    start = time.perf_counter()
    dense = call()
    seconds = time.perf_counter() - start
    rest = np.linalg.norm(dense.reshape(weight.shape) - weight)
    return float(rest / np.linalg.norm(weight)), seconds


@pytest.mark.parametrize(("name", "rank"), [case[:2] for case in CASES])
def test_tucker2_is_no_worse(weights: dict[str, Array], name: str, rank: int) -> None:
    tensorly = pytest.importorskip("tensorly", reason="install the extra 'test'")
    from tensorly.decomposition import partial_tucker

    weight = weights[name]
    flat = weight.reshape(*weight.shape[:2], -1)

    def theirs() -> Array:
        (core, factors), _ = partial_tucker(flat, rank=[rank, rank], modes=[0, 1])
        return np.asarray(tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1]))

    def ours() -> Array:
        fit = Tucker2(rank, rank).fit(weight, metric=Frobenius(), rng=np.random.default_rng(0))
        return np.asarray(fit.factors.reconstruct())

    (mine, seconds), (other, others) = timed(ours, weight), timed(theirs, weight)
    print(f"\n{name} Tucker-2 {rank}, {rank}: {mine:.5f} in {seconds:.2f} s, ", end="")
    print(f"tensorly {other:.5f} in {others:.2f} s: {others / seconds:.1f} times the time")
    # Both stop at a relative fall of 1e-4 of the error, tensorly a sweep earlier or later.
    assert mine <= other * (1 + 1e-4)


@pytest.mark.parametrize(("name", "rank", "sweeps"), [(c[0], c[2], c[3]) for c in CASES])
def test_cp_is_no_worse(weights: dict[str, Array], name: str, rank: int, sweeps: int) -> None:
    tensorly = pytest.importorskip("tensorly", reason="install the extra 'test'")
    from tensorly.decomposition import parafac

    weight = weights[name]
    flat = weight.reshape(*weight.shape[:2], -1)

    def theirs() -> Array:
        with warnings.catch_warnings():
            # It says that there are fewer singular vectors than terms, and draws the rest.
            warnings.simplefilter("ignore", UserWarning)
            terms = parafac(flat, rank, init="svd", n_iter_max=sweeps, random_state=0)
        return np.asarray(tensorly.cp_to_tensor(terms))

    def ours(most: int) -> Array:
        start = cp_start.spatial_svd(flat[None], rank)
        return cp_als.als(flat[None], start, sweeps=most).dense()

    other, others = timed(theirs, weight)
    fit = CP(rank).fit(weight, metric=Frobenius(), rng=np.random.default_rng(0))
    most = 1
    while (run := timed(partial(ours, most), weight))[0] > other and most < cp_als.MAX_SWEEPS:
        most *= 2
    print(
        f"\n{name} CP {rank}: {fit.error:.5f}, tensorly {other:.5f} in {others:.2f} s and ", end=""
    )
    print(f"{sweeps} sweeps; that error in {run[1]:.2f} s and {most} sweeps: ", end="")
    print(f"{others / run[1]:.1f} times faster")
    assert fit.error <= other
    assert run[0] <= other
