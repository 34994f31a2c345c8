"""The samples of a sweep: those that are held out, and those that the metrics see."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from onnx_lowrank.data import Dataset, Preprocess, open_dataset
from onnx_lowrank.errors import DataError
from onnx_lowrank.fitting.statistics import Survey
from onnx_lowrank.runtime import fix_shapes, model_inputs


@dataclass(frozen=True, kw_only=True)
class SweepData:
    """Where the samples of a sweep come from.

    Attributes
    ----------
    held_out : source
        What every point is measured on: anything that `onnx_lowrank.data.open_dataset` takes.
    calibration : source, optional
        What the metrics of data see; none of the held-out samples may be among them.
    preprocess : Preprocess or str, optional
        How images become inputs.
    labels_from : path or str, optional
        Where labels of the held-out samples come from, if not from the source itself.
    limit, calibration_limit : int, optional
        Number of samples of each.
    input_shapes : mapping, optional
        Shapes of inputs that the model leaves open.
    strict : bool
        Whether an unreadable image is an error instead of being skipped.
    """

    held_out: Any
    calibration: Any = None
    preprocess: Preprocess | str | None = None
    labels_from: str | os.PathLike[str] | None = None
    limit: int | None = None
    calibration_limit: int | None = None
    input_shapes: Mapping[str, Sequence[int]] | None = None
    strict: bool = False

    def open(self, model: onnx.ModelProto, seed: int, *, gradients: bool) -> tuple[Dataset, ...]:
        """Open the held-out data, and those for calibration if there are any.

        Labels of the latter are of use to `gradients` alone.
        """
        inputs = fix_shapes(model_inputs(model), dict(self.input_shapes or {}))

        def opened(source: Any, limit: int | None, labels: Any) -> Dataset:
            return open_dataset(
                source,
                inputs,
                preprocess=self.preprocess,
                limit=limit,
                labels_from=labels,
                strict=self.strict,
                seed=seed,
            )

        held_out = opened(self.held_out, self.limit, self.labels_from)
        if self.calibration is None:
            return (held_out,)
        return held_out, opened(
            self.calibration, self.calibration_limit, None if gradients else "none"
        )


def look(datasets: Sequence[Dataset]) -> list[Survey]:
    """Read all data once.

    Raises
    ------
    DataError
        Held-out samples are among those for calibration, or what the data sets raise.
    """
    surveys = [Survey.of(dataset) for dataset in datasets]
    held_out = surveys[0]
    for other in surveys[1:]:
        if shared := len(held_out.samples & other.samples):
            raise DataError(
                f"{shared} of the {held_out.images} held-out samples are among the calibration "
                "samples, so errors on them would mean little; give other samples"
            )
    return surveys
