"""onnxruntime's own 8-bit quantisation of a model, as a contender in measurements."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.edit import opset_version
from onnx_lowrank.runtime.doctor import diagnose
from onnx_lowrank.runtime.session import check_provider
from onnx_lowrank.types import Feeds

if TYPE_CHECKING:
    import onnx

# DequantizeLinear has had an axis, which scales per channel need, since this opset.
MIN_OPSET = 13
# onnxruntime's log levels; it starts at the second and has no way to ask for the current one.
_FATAL, _WARNING = 4, 2


def quantise(
    model: onnx.ModelProto, output: str | os.PathLike[str], feeds: Sequence[Feeds]
) -> None:
    """Write a statically quantised copy of a model for this machine: QDQ, weights per channel.

    Weights have 7 bits where the processor has no VNNI instructions.

    Parameters
    ----------
    model : onnx.ModelProto
        A float model; not changed. Its opset is raised to `MIN_OPSET` in the copy if it is lower.
    output : path
        Where to write the copy.
    feeds : sequence of mapping
        Inputs from which the ranges of the activations are taken.

    Raises
    ------
    ModelError
        The opset cannot be raised, or onnxruntime cannot quantise the model.
    ProviderError
        onnxruntime is missing.
    """
    import onnx
    from onnx import version_converter

    check_provider("cpu")
    import onnxruntime.quantization as quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    opset = opset_version(model)
    sets = diagnose().instruction_sets or ()
    reader = iter(feeds)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """The interface that onnxruntime asks for."""

        def get_next(self) -> dict[str, Any] | None:
            feed = next(reader, None)
            return None if feed is None else dict(feed)

    try:
        with tempfile.TemporaryDirectory(prefix="onnx_lowrank-") as folder, _quiet():
            source, prepared = Path(folder, "source.onnx"), Path(folder, "prepared.onnx")
            if opset < MIN_OPSET:
                model = version_converter.convert_version(model, MIN_OPSET)
            onnx.save(model, source)
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                output,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                # Without VNNI, x86 adds pairs of 8-bit products in 16 bits, which saturate.
                reduce_range="avx2" in sets and not any("vnni" in each for each in sets),
            )
    except Exception as error:  # both packages raise plain RuntimeErrors and ValueErrors
        raise ModelError(
            f"onnxruntime cannot quantise the model: {' '.join(str(error).split())[:200]}; "
            "leave int8 out of the comparison"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the advice of the quantiser, and of the sessions it opens, off the screen."""
    import onnxruntime

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        onnxruntime.set_default_logger_severity(_WARNING)
