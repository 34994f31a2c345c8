"""The samples of a sweep: those that are held out, and those that the metrics see."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from onnx_lowrank.data import DataOptions, Dataset, Preprocess
from onnx_lowrank.errors import DataError
from onnx_lowrank.fitting.statistics import Survey
from onnx_lowrank.runtime import model_inputs


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
        inputs = model_inputs(model)
        held_out = DataOptions(
            data=self.held_out,
            preprocess=self.preprocess,
            labels_from=self.labels_from,
            strict=self.strict,
            limit=self.limit,
            input_shapes=self.input_shapes,
            seed=seed,
        )
        if self.calibration is None:
            return (held_out.open(inputs),)
        calibration = replace(
            held_out,
            data=self.calibration,
            labels_from=None if gradients else "none",
            limit=self.calibration_limit,
        )
        return held_out.open(inputs), calibration.open(inputs)


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
