from __future__ import annotations

from dataclasses import asdict

import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.search.candidate_schemes import candidate_schemes
from onnx_lowrank.search.settings import SETTINGS


def conv(channels: int, filters: int, kernel: int, size: int | None, group: int = 1) -> ConvSpec:
    sizes = None if size is None else (size, size)
    return ConvSpec(
        in_channels=channels,
        out_channels=filters,
        kernel=(kernel, kernel),
        strides=(1, 1),
        dilations=(1, 1),
        pads=(kernel // 2,) * 4,
        group=group,
        input_size=sizes,
        output_size=sizes,
    )


@pytest.mark.parametrize("shape", [(3, 64, 3), (64, 64, 3), (512, 512, 3), (96, 256, 5)])
def test_every_candidate_has_fewer_operations(shape: tuple[int, int, int]) -> None:
    layer = conv(*shape, 28)
    found = candidate_schemes(layer)
    assert found
    assert layer.macs is not None
    for scheme in found:
        macs = scheme.macs(layer)
        assert macs is not None
        assert macs < layer.macs
    assert len({scheme.spec for scheme in found}) == len(found)


def test_ranks_reach_from_little_to_much_saved() -> None:
    layer = conv(256, 256, 3, 56)
    assert layer.macs is not None
    for name in ("tucker2", "cp", "spatial", "channel"):
        shares = [
            (s.macs(layer) or 0) / layer.macs for s in candidate_schemes(layer) if s.name == name
        ]
        # Rounding to whole blocks moves a rank by half a block, one part in six at the lowest.
        assert min(shares) < 1.2 * SETTINGS.shares[6]
        assert max(shares) > SETTINGS.shares[3] / 1.2


def test_ranks_of_wide_layers_fill_channel_blocks() -> None:
    small, large = SETTINGS.channel_blocks
    for scheme in candidate_schemes(conv(512, 512, 3, 14)):
        if scheme.name in ("tucker2", "cp", "spatial", "channel"):
            for rank in asdict(scheme).values():
                assert rank % (large if rank >= 2 * large else small) == 0


def test_colours_are_for_layers_with_few_inputs() -> None:
    assert "mono" in {scheme.name for scheme in candidate_schemes(conv(3, 64, 3, 28))}
    assert "mono" not in {scheme.name for scheme in candidate_schemes(conv(64, 64, 3, 28))}


def test_no_candidates_where_none_applies_or_the_size_is_unknown() -> None:
    assert candidate_schemes(conv(32, 32, 3, 28, group=32)) == ()  # depthwise
    assert candidate_schemes(conv(64, 64, 3, None)) == ()
