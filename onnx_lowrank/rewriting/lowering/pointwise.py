"""The form of the 1x1 stages of a block scheme: grouped, or dense with zero blocks.

A grouped 1x1 Conv does only the multiply-adds the scheme counts, but needs its channels in the
order of the clusters, and onnxruntime has no fast path for few channels per group. A dense one does
more of them, takes and gives channels in any order, and is always on the fast path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnx_lowrank.conv import ConvSpec

Form = Literal["grouped", "dense"]

# Rough costs on CPUs, in multiply-adds of a fast Conv; what is gained is for a measurement to say.
GATHER = 64  # per element: read, written, and taken out of and back into the blocked layout
SLOW_GROUP = 4  # per multiply-add of a group whose channels do not fill the blocked layout
BLOCK = 16  # channels of the blocked layout with AVX-512


@dataclass(frozen=True)
class PointwiseForms:
    """Form of the first and of the last 1x1 stage of a block scheme."""

    first: Form
    last: Form

    @property
    def needs_middle_gather(self) -> bool:
        """Whether a Gather must bring the channels between the stages into (h, g) order."""
        return self.first == self.last == "grouped"


def choose_forms(
    conv: ConvSpec, *, input_blocks: int, output_blocks: int, first_rank: int, last_rank: int
) -> PointwiseForms:
    """Return the cheapest pair of forms by the rough costs above.

    Parameters
    ----------
    conv : ConvSpec
        The layer; where its sizes are unknown, input and output are taken to differ by the strides.
    input_blocks, output_blocks : int
        Number of clusters G of the input channels and H of the output channels.
    first_rank, last_rank : int
        Channels per block before and after the spatial stage (K1 and K2).
    """
    output = conv.output_positions or 1
    stride = 1
    for s in conv.strides:
        stride *= s
    inputs = conv.input_positions or output * stride
    blocks = input_blocks * output_blocks

    def stage(rows: int, columns: int, groups: int, form: Form) -> float:
        if form == "dense" or groups == 1:
            return rows * columns
        fills = rows % (BLOCK * groups) == 0 and columns % (BLOCK * groups) == 0
        return rows * columns / groups * (1 if fills else SLOW_GROUP)

    def cost(forms: PointwiseForms) -> float:
        total = inputs * stage(blocks * first_rank, conv.in_channels, input_blocks, forms.first)
        total += output * stage(conv.out_channels, blocks * last_rank, output_blocks, forms.last)
        if forms.first == "grouped" and input_blocks > 1:
            total += GATHER * inputs * conv.in_channels
        if forms.last == "grouped" and output_blocks > 1:
            total += GATHER * output * conv.out_channels
        if forms.needs_middle_gather and input_blocks > 1 and output_blocks > 1:
            total += GATHER * output * blocks * last_rank
        return total

    kinds: tuple[Form, Form] = ("dense", "grouped")
    return min((PointwiseForms(a, b) for a in kinds for b in kinds), key=cost)
