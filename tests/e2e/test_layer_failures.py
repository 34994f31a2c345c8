"""One layer that cannot be fitted: an error where it is named, kept with the reason where not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from small_networks import NETWORKS, Network

from onnx_lowrank import compress
from onnx_lowrank.errors import DataError, PlanError, SchemeError
from onnx_lowrank.schemes.channel import Channel

SCHEME = "channel:R=50%"


@pytest.fixture(scope="module")
def odd() -> Network:
    return NETWORKS["dead, NaN and constant inputs"]()


def run(network: Network, plan: list[str], *, nan: str | None = None, **options: Any) -> Any:
    model = network.model()
    for tensor in (t for t in model.graph.initializer if t.name == nan):
        value = numpy_helper.to_array(tensor).copy()
        value.flat[0] = np.nan
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return compress(model, plan=plan, verification=False, **options)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_under_a_glob_a_layer_that_the_data_do_not_suit_is_kept(
    odd: Network, asymmetric: bool
) -> None:
    plan = [f"c[1245]={SCHEME}", "c3=keep"]
    result = run(odd, plan, calibration=odd.data(12), asymmetric=asymmetric)
    assert result.plan.chosen.keys() == result.report.fits.keys() == {"c1", "c2", "c5"}
    assert result.report.kept["c4"].startswith("its input 'fixed'")
    weights = {tensor.name: tensor for tensor in result.model.graph.initializer}
    assert "w4" in weights
    assert "w5" not in weights


@pytest.mark.parametrize("asymmetric", [False, True])
def test_a_layer_that_is_named_is_an_error_with_its_name(odd: Network, asymmetric: bool) -> None:
    plan = [f"c[125]={SCHEME}", f"c4={SCHEME}"]
    with pytest.raises(DataError, match=r"^layer 'c4': its input 'fixed' "):
        run(odd, plan, calibration=odd.data(12), asymmetric=asymmetric)


def test_where_every_layer_fails_the_reason_is_said(odd: Network) -> None:
    with pytest.raises(PlanError, match=r"no layer is replaced .*has no axis of"):
        run(odd, [f"c[4]={SCHEME}"], calibration=odd.data(12))


def test_weights_that_are_not_finite_keep_their_layer(odd: Network) -> None:
    result = run(odd, [f"c[1245]={SCHEME}"], nan="w2")
    assert result.plan.chosen.keys() == {"c1", "c4", "c5"}
    assert result.report.kept["c2"].startswith("its weight has NaN or Inf")
    with pytest.raises(PlanError, match=r"layer 'c2' cannot take .*: its weight has NaN or Inf"):
        run(odd, [f"c2={SCHEME}"], nan="w2")


@pytest.mark.parametrize("error", [MemoryError(), np.linalg.LinAlgError("singular matrix")])
def test_a_fit_that_ends_in_an_error_keeps_its_layer(
    odd: Network, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fit = Channel.fit

    def failing(self: Channel, weight: Any, **options: Any) -> Any:
        if weight.shape[1] == 8:
            raise error
        return fit(self, weight, **options)

    monkeypatch.setattr(Channel, "fit", failing)
    result = run(odd, [f"c[1245]={SCHEME}"])
    assert result.plan.chosen.keys() == {"c1", "c2", "c5"}
    assert ("memory" if isinstance(error, MemoryError) else "singular") in result.report.kept["c4"]
    with pytest.raises(SchemeError, match="layer 'c4': its "):
        run(odd, [f"c4={SCHEME}"])
