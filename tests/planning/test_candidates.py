from __future__ import annotations

from dataclasses import asdict

import pytest

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.planning.candidates import BLOCK, SHARES, SMALL_BLOCK, candidates


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
    found = candidates(layer)
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
        shares = [(s.macs(layer) or 0) / layer.macs for s in candidates(layer) if s.name == name]
        # Rounding to whole blocks moves a rank by half a block, one part in six at the lowest.
        assert min(shares) < 1.2 * SHARES[6]
        assert max(shares) > SHARES[3] / 1.2


def test_ranks_of_wide_layers_fill_channel_blocks() -> None:
    for scheme in candidates(conv(512, 512, 3, 14)):
        if scheme.name in ("tucker2", "cp", "spatial", "channel"):
            for rank in asdict(scheme).values():
                assert rank % (BLOCK if rank >= 2 * BLOCK else SMALL_BLOCK) == 0


def test_colours_are_for_layers_with_few_inputs() -> None:
    assert "mono" in {scheme.name for scheme in candidates(conv(3, 64, 3, 28))}
    assert "mono" not in {scheme.name for scheme in candidates(conv(64, 64, 3, 28))}


def test_no_candidates_where_none_applies_or_the_size_is_unknown() -> None:
    assert candidates(conv(32, 32, 3, 28, group=32)) == ()  # depthwise
    assert candidates(conv(64, 64, 3, None)) == ()
