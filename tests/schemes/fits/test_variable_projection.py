"""Input stages and what follows them, against dense least squares and dense derivatives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.schemes.fits import variable_projection
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem, View, quadratic_form
from onnx_lowrank.schemes.fits.input_stage import InputStage
from onnx_lowrank.schemes.fits.output_stage import Free, LowRank, Outer
from onnx_lowrank.schemes.fits.variable_projection import (
    Compressed,
    OutputStage,
    Part,
    fit_part,
    gradient,
)

Array = NDArray[np.float64]
F, C, KERNEL, J = 7, 6, (2, 3), 4
P = 6
VIEWS = ("channels", "columns", "rows")
KINDS = ("free", "low rank", "outer")


def problem() -> LayerProblem:
    rng = np.random.default_rng(0)
    n = C * P
    rows = rng.standard_normal((150, n)) @ (np.eye(n) + 0.3 * rng.standard_normal((n, n)))
    return LayerProblem(
        rng.standard_normal((F, C, *KERNEL)), Covariance((rows.T @ rows / 150)[None])
    )


def part(view: View, kind: str, clusters: int, outputs: Array | None = None) -> Part:
    rng = np.random.default_rng(1)
    lines = rng.permutation(view.lines).reshape(clusters, -1)
    if clusters == 1:
        lines = np.arange(view.lines)[None]
    stage = InputStage(lines, rng.standard_normal((clusters, J // clusters, lines.shape[1])))
    chosen = np.arange(F) if outputs is None else outputs
    output_stage: OutputStage
    if kind == "free":
        output_stage = Free(rng.standard_normal((len(chosen), J, view.taps)))
    elif kind == "outer":
        output_stage = Outer(
            rng.standard_normal((len(chosen), J)), rng.standard_normal((J, view.taps))
        )
    else:
        output_stage = LowRank.empty(clusters, len(chosen), J // clusters, 2, view.taps)
    return Part(chosen, stage, output_stage)


def dense_stage(stage: InputStage, lines: int) -> Array:
    groups, rank, _ = stage.weights.shape
    dense = np.zeros((groups, rank, lines))
    for block, chosen, rows in zip(dense, stage.clusters, stage.weights, strict=True):
        block[:, chosen] = rows
    return dense.reshape(-1, lines)


def values(output_stage: OutputStage, taps: int) -> Array:
    """X written out, (F, J, P')."""
    if isinstance(output_stage, Free):
        return output_stage.values
    if isinstance(output_stage, Outer):
        return output_stage.outputs[:, :, None] * output_stage.kernels
    assert isinstance(output_stage, LowRank)
    x = np.stack(
        [o @ c for o, c in zip(output_stage.outputs, output_stage.cores, strict=True)], axis=1
    )
    return x.reshape(len(x), -1, taps)


def squared_error(view: View, fitted: Part) -> float:
    dense = np.einsum(
        "fjp,jc->fcp", values(fitted.output_stage, view.taps), dense_stage(fitted.stage, view.lines)
    )
    rest = np.zeros((len(fitted.outputs), view.order.size))
    rest[:, view.order] = view.target[fitted.outputs] - dense
    return float(np.vdot(rest, rest @ view.problem.sigma))


def improved(view: View, start: Part) -> tuple[Part, float]:
    products = view.contract(start.stage)
    output_stage, error = start.output_stage.improve(
        Compressed(view, start.outputs, start.stage, products)
    )
    return Part(start.outputs, start.stage, output_stage), error


@pytest.mark.parametrize("clusters", [1, 2])
@pytest.mark.parametrize("name", VIEWS)
def test_a_free_output_stage_is_the_least_squares_solution(name: str, clusters: int) -> None:
    view = getattr(problem(), name)
    solved, error = improved(view, part(view, "free", clusters))
    root = np.linalg.cholesky(view.problem.sigma)
    a = dense_stage(solved.stage, view.lines)
    design = np.zeros((J, view.taps, view.order.size))
    for p in range(view.taps):
        design[:, p, view.order[:, p]] = a
    left = (design.reshape(J * view.taps, -1) @ root).T
    best, *_ = np.linalg.lstsq(left, (view.problem.target @ root).T, rcond=None)
    # Normal equations under a ridge of 1e-10, of a moment whose condition is below 1e4.
    np.testing.assert_allclose(
        values(solved.output_stage, view.taps).reshape(F, -1), best.T, rtol=0, atol=1e-5
    )
    assert error == pytest.approx(squared_error(view, solved), rel=1e-9)


def test_a_low_rank_output_stage_of_one_cluster_is_the_optimum() -> None:
    view = problem().channels
    solved, error = improved(view, part(view, "low rank", 1))
    free, least = improved(view, part(view, "free", 1))
    moment = Compressed(view, free.outputs, free.stage, view.contract(free.stage)).flat_moment
    image = values(free.output_stage, P).reshape(F, -1) @ np.linalg.cholesky(moment)
    beyond = np.sum(np.linalg.svd(image, compute_uv=False)[2:] ** 2)
    # The ridge of the regression is 1e-10 of the mean eigenvalue, the condition below 1e3.
    assert error == pytest.approx(least + beyond, rel=1e-7)
    assert error == pytest.approx(squared_error(view, solved), rel=1e-9)


@pytest.mark.parametrize("side", ["outputs", "kernels"])
def test_each_side_of_an_outer_output_stage_is_solved(side: str) -> None:
    """Outputs are the dense least-squares solution; kernels nearly, after enough steps."""
    view = problem().channels
    start = part(view, "outer", 1)
    solved = start
    for _ in range(1 if side == "outputs" else 300):
        solved, error = improved(view, solved)
    output_stage = solved.output_stage
    assert isinstance(output_stage, Outer)
    root = np.linalg.cholesky(view.problem.sigma)
    a = dense_stage(solved.stage, view.lines)

    def flat(outputs: Array, kernels: Array) -> Array:
        dense = np.einsum("fj,jp,jc->fcp", outputs, kernels, a).reshape(F, -1)
        return np.asarray((dense @ root).ravel())

    if side == "outputs":
        shape = output_stage.outputs.shape
        columns = [flat(u.reshape(shape), output_stage.kernels) for u in np.eye(np.prod(shape))]
    else:
        shape = output_stage.kernels.shape
        columns = [flat(output_stage.outputs, u.reshape(shape)) for u in np.eye(np.prod(shape))]
    wanted = (view.problem.target @ root).ravel()
    left = np.stack(columns, axis=1)
    best, *_ = np.linalg.lstsq(left, wanted, rcond=None)
    rest = wanted - left @ best
    # Outputs are the last that `improve` solves for, kernels are solved to one part in a hundred,
    # again and again.
    assert error == pytest.approx(float(rest @ rest), rel=1e-9 if side == "outputs" else 1e-4)


@pytest.mark.parametrize("clusters", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VIEWS)
def test_the_gradient_is_that_of_the_dense_error(name: str, kind: str, clusters: int) -> None:
    view = getattr(problem(), name)
    solved, _ = improved(view, part(view, kind, clusters))
    products = view.contract(solved.stage)
    slope = gradient(view, solved.outputs, solved.stage, products, solved.output_stage)
    assert slope.shape == solved.stage.weights.shape
    rng = np.random.default_rng(2)
    for _ in range(3):
        direction = rng.standard_normal(slope.shape)
        ends = [
            squared_error(
                view, Part(solved.outputs, solved.stage.moved(direction, h), solved.output_stage)
            )
            for h in (-1.0, 1.0)
        ]
        # The error is a parabola along any line, so that a central difference is exact.
        assert np.vdot(slope, direction) == pytest.approx((ends[0] - ends[1]) / 4, rel=1e-8)


@pytest.mark.parametrize("clusters", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VIEWS)
def test_no_step_raises_the_error(name: str, kind: str, clusters: int) -> None:
    view = getattr(problem(), name)
    start = part(view, kind, clusters)
    errors = []
    for steps in range(6):
        fitted, error = fit_part(view, start, steps=steps)
        errors.append(error)
        # A difference of squared norms: rounding of |W|^2.
        assert error == pytest.approx(squared_error(view, fitted), abs=1e-11 * view.problem.norm)
    assert all(b <= a + 1e-11 * view.problem.norm for a, b in pairwise(errors))
    assert errors[-1] < errors[0]


def test_a_long_search_ends_where_the_gradient_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variable_projection, "CLOSE_TOLERANCE", 0.0)
    for name in VIEWS:
        view = getattr(problem(), name)
        start = part(view, "free", 1)
        fitted, _ = fit_part(view, start, steps=400)
        slopes = []
        for each in (improved(view, start)[0], fitted):
            products = view.contract(each.stage)
            slopes.append(gradient(view, each.outputs, each.stage, products, each.output_stage))
        # Errors have settled to rounding, about 1e-14 of |W|^2: gradients to its square root.
        assert np.linalg.norm(slopes[1]) <= 1e-5 * np.linalg.norm(slopes[0])


def test_the_outputs_of_a_part_are_its_own() -> None:
    view = problem().channels
    chosen = np.array([5, 0, 3])
    fitted, error = fit_part(view, part(view, "low rank", 2, chosen), steps=3)
    assert error == pytest.approx(squared_error(view, fitted), rel=1e-9)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_splits_what_the_kernel_has(name: str) -> None:
    layer = problem()
    view = getattr(layer, name)
    weight = layer.target.reshape(F, C, *KERNEL)
    expected = {
        "channels": weight.reshape(F, C, P),
        "columns": weight.reshape(F, C * 2, 3),
        "rows": weight.swapaxes(2, 3).reshape(F, C * 3, 2),
    }[name]
    np.testing.assert_array_equal(view.target, expected)
    sigma = layer.sigma.reshape(C, 2, 3, C, 2, 3)
    over = {
        "channels": np.einsum("cxydxy->cd", sigma) / 6,
        "columns": np.einsum("cxydzy->cxdz", sigma).reshape(C * 2, -1) / 3,
        "rows": np.einsum("cxydxz->cydz", sigma).reshape(C * 3, -1) / 2,
    }[name]
    # The ridge is 1e-8 of the mean of the diagonal.
    np.testing.assert_allclose(view.over_lines, over, rtol=0, atol=2e-8 * np.trace(over))


@pytest.mark.parametrize("length", [1, 7, 40])
def test_a_quadratic_form_needs_only_one_half_of_a_moment(length: int) -> None:
    rng = np.random.default_rng(3)
    half = rng.standard_normal((length, length))
    moment, rows = half @ half.T, rng.standard_normal((5, length))
    # Sums of at most 5 * 40 * 40 terms.
    assert quadratic_form(rows, moment) == pytest.approx(np.vdot(rows, rows @ moment), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_part_is_that_of_the_dense_weight(kind: str) -> None:
    for name in VIEWS:
        view = getattr(problem(), name)
        fitted, _ = improved(view, part(view, kind, 2))
        found = variable_projection.squared_error(view, fitted)
        assert found == pytest.approx(squared_error(view, fitted), rel=1e-12)
