from __future__ import annotations

import numpy as np
import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.estimation.work import work_of
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.rewriting.forms import FORMS, STANDARD
from onnx_lowrank.schemes import Scheme, SchemeSpec
from onnx_lowrank.schemes.dense import DenseFactors
from onnx_lowrank.search.candidate_schemes import candidate_schemes
from onnx_lowrank.search.settings import SearchSettings

# Whole blocks of channels at every end and at every rank.
CONV = ConvSpec(
    in_channels=64,
    out_channels=128,
    kernel=(3, 3),
    strides=(1, 1),
    dilations=(1, 1),
    pads=(1, 1, 1, 1),
    input_size=(14, 10),
    output_size=(14, 10),
)
FLAT = ConvSpec(
    in_channels=256,
    out_channels=64,
    kernel=(),
    strides=(),
    dilations=(),
    pads=(),
    input_size=(),
    output_size=(),
)
SETTINGS = SearchSettings(channel_blocks=(16, 16))


def schemes(conv: ConvSpec) -> list[Scheme]:
    """Return one of each name whose ranks are whole blocks."""
    whole = [s for s in candidate_schemes(conv, SETTINGS) if not any(r % 16 for r in ranks(s))]
    return list({scheme.name: scheme for scheme in whole}.values())


def ranks(scheme: Scheme) -> list[int]:
    return [getattr(scheme, name) for name in scheme.rank_names()]


@pytest.mark.parametrize("conv", [CONV, FLAT], ids=["conv", "flat"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_all_multiply_adds_of_a_structure_are_counted(conv: ConvSpec, form: Form) -> None:
    tried = 0
    for scheme in schemes(conv):
        factors = scheme.instances(conv, None)[0]
        if form.refusal(type(factors), conv, np.dtype(np.float32)) is not None:
            continue
        tried += 1
        work = work_of(factors, conv, form, scheme.macs(conv) or 0)
        assert sum(each.macs for each in work) == scheme.macs(conv), scheme.spec
        assert all(each.moved > 0 for each in work)
    assert tried or form is not STANDARD


def test_what_fills_no_block_takes_as_long_as_a_block() -> None:
    whole, part = (
        SchemeSpec.parse(f"channel:R={rank}").resolve(CONV).instances(CONV, None)[0]
        for rank in (16, 9)
    )
    first, second = (work_of(x, CONV, STANDARD, 0)[0] for x in (whole, part))
    assert first.macs == second.macs == 16 * 64 * 9 * 140
    assert first.weights == 4 * 16 * 64 * 9
    assert second.weights == 4 * 9 * 64 * 9


def test_bytes_are_those_of_both_ends_and_of_the_weights() -> None:
    dense = DenseFactors(np.zeros(CONV.weight_shape))
    (work,) = work_of(dense, CONV, STANDARD, CONV.macs or 0)
    assert work.kind == "Conv"
    assert work.moved == 4 * 140 * (64 + 128)
    assert work.weights == 4 * 64 * 128 * 9


def test_kernels_of_one_position_and_groups_are_kinds_of_their_own() -> None:
    kinds = {}
    for scheme in schemes(CONV):
        work = work_of(scheme.instances(CONV, None)[0], CONV, STANDARD, scheme.macs(CONV) or 0)
        kinds[scheme.name] = [each.kind for each in work]
    assert kinds["channel"] == ["Conv", "Conv 1x1"]
    assert kinds["spatial"] == ["Conv", "Conv"]
    assert kinds["tucker2"] == ["Conv 1x1", "Conv", "Conv 1x1"]
    assert kinds["cp"] == ["Conv 1x1", "Conv by groups", "Conv 1x1"]
