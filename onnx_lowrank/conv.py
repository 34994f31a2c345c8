"""What a Conv computes: its attributes, shapes and cost; no graph and no weights.

A fully connected layer (Gemm, MatMul with a constant) is the case without spatial axes:
``kernel = ()``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Window:
    """How the kernel of a Conv moves over its input.

    Attributes
    ----------
    strides, dilations : tuple of int
        One value per spatial axis.
    pads : tuple of int
        Begin of every axis, then end of every axis, as in ONNX; ignored unless ``auto_pad`` is
        NOTSET.
    auto_pad : str
        NOTSET, VALID, SAME_UPPER or SAME_LOWER.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"

    @classmethod
    def of_ones(cls, axes: int) -> Window:
        """Return strides and dilations of 1 without pads, over a number of spatial axes."""
        return cls(strides=(1,) * axes, dilations=(1,) * axes, pads=(0,) * 2 * axes)

    def along(self, chosen: Sequence[bool]) -> Window:
        """Return the same along the chosen axes, with strides and dilations of 1 along others."""
        axes = len(chosen)

        def only(values: Sequence[int], otherwise: int) -> tuple[int, ...]:
            pairs = zip(values, chosen, strict=True)
            return tuple(value if kept else otherwise for value, kept in pairs)

        return Window(
            strides=only(self.strides, 1),
            dilations=only(self.dilations, 1),
            pads=only(self.pads[:axes], 0) + only(self.pads[axes:], 0),
            auto_pad=self.auto_pad,
        )


@dataclass(frozen=True, kw_only=True)
class ConvSpec:
    """Attributes and shapes of one Conv, or of a fully connected layer.

    Attributes
    ----------
    in_channels, out_channels : int
        C and F of the weight ``W[F, C / group, *kernel]``.
    kernel, strides, dilations : tuple of int
        One value per spatial axis.
    pads : tuple of int
        Begin of every axis, then end of every axis, as in ONNX; ignored unless ``auto_pad`` is
        NOTSET.
    auto_pad : str
        NOTSET, VALID, SAME_UPPER or SAME_LOWER.
    group : int
        Number of groups.
    bias : bool
        Whether the layer adds a bias.
    input_size, output_size : tuple of int or None
        Spatial sizes of one image; None where the model does not fix them.
    """

    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"
    group: int = 1
    bias: bool = False
    input_size: tuple[int, ...] | None = None
    output_size: tuple[int, ...] | None = None

    @property
    def window(self) -> Window:
        """How the kernel moves over the input."""
        return Window(
            strides=self.strides,
            dilations=self.dilations,
            pads=self.pads,
            auto_pad=self.auto_pad,
        )

    @property
    def taps(self) -> int:
        """Number of kernel positions: the product of the kernel's sizes."""
        return math.prod(self.kernel)

    @property
    def input_positions(self) -> int | None:
        """Number of input positions of one image, or None where the size is unknown."""
        return None if self.input_size is None else math.prod(self.input_size)

    @property
    def output_positions(self) -> int | None:
        """Number of output positions of one image, or None where the size is unknown."""
        return None if self.output_size is None else math.prod(self.output_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, ``(F, C / group, *kernel)``."""
        return (self.out_channels, self.in_channels // self.group, *self.kernel)

    @property
    def params(self) -> int:
        """Number of weights, without the bias."""
        return math.prod(self.weight_shape)

    @property
    def macs(self) -> int | None:
        """Multiply-adds of one image, or None where the output size is unknown."""
        return None if self.output_positions is None else self.params * self.output_positions

    @property
    def depthwise(self) -> bool:
        """Whether there is one group for each of several input channels."""
        return (
            self.group == self.in_channels > 1
            and self.out_channels > 0
            and self.out_channels % self.group == 0
        )
