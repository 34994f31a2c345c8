"""Principal directions: of Gram matrices, and of those too large to be formed."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.metrics.covariance import Covariance
from onnx_lowrank.schemes.fits.covariance_problem import LayerProblem
from onnx_lowrank.schemes.fits.reduced_rank import leading, principal, principal_of_tall
from onnx_lowrank.schemes.two_stage import two_stage_in_covariance


def moment(size: int, rank: int) -> np.ndarray:
    samples = np.random.default_rng(size).standard_normal((rank, size))
    return samples.T @ samples / rank


@pytest.mark.parametrize("rank", [40, 5])  # of the moment of the inputs: full, and not
def test_the_directions_of_a_tall_map_are_those_of_its_responses(rank: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((30, 8))
    inputs = moment(8, rank)
    responses = matrix @ inputs @ matrix.T
    wanted, vectors = principal(responses)
    values, found = principal_of_tall(matrix, inputs)
    scale = wanted[0]
    np.testing.assert_allclose(values, wanted[:8], atol=1e-12 * scale)
    assert found.shape == (30, 8)
    np.testing.assert_allclose(found.T @ found, np.eye(8), atol=1e-12)
    kept = min(rank, 8)  # those without energy may be any
    for place in range(kept):
        assert abs(found[:, place] @ vectors[:, place]) == pytest.approx(1, abs=1e-7)
    np.testing.assert_allclose((found * values) @ found.T, responses, atol=1e-12 * scale)


def test_values_fall_and_belong_to_their_vectors() -> None:
    gram = moment(12, 7)
    values, vectors = principal(gram)
    assert np.all(np.diff(values) <= 1e-12 * values[0])
    np.testing.assert_allclose(gram @ vectors, vectors * values, atol=1e-12 * values[0])
    np.testing.assert_allclose(np.abs(vectors[:, :3].T @ leading(gram, 3)), np.eye(3), atol=1e-7)


@pytest.mark.parametrize("outputs", [5, 24])  # per group: fewer than inputs, and more
@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_two_stages_are_those_of_their_weights(outputs: int, weighted: bool) -> None:
    groups, inputs = 2, 9
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((groups * outputs, inputs, 1, 1))
    weights = rng.uniform(0.1, 2, groups * outputs) if weighted else None
    metric = Covariance(np.stack([moment(inputs, 30), moment(inputs, 11)]), weights)
    problem = LayerProblem(weight, metric, groups)
    for rank in (1, 3, 5):
        fit = two_stage_in_covariance(problem, rank)
        rest = metric.squared_norm(weight - fit.factors.reconstruct())
        assert fit.error == pytest.approx(np.sqrt(rest / metric.squared_norm(weight)), abs=1e-7)
        assert fit.error <= fit.start_error + 1e-12
