"""Where samples come from and how they become inputs: what is given to open data, as one object."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_lowrank.data.dataset import Dataset
from onnx_lowrank.data.open import open_dataset
from onnx_lowrank.data.preprocess import Preprocess
from onnx_lowrank.data.random import RANDOM_SAMPLES, random_dataset
from onnx_lowrank.runtime import TensorInfo, fix_shapes


@dataclass(frozen=True, kw_only=True, eq=False)
class DataOptions:
    """A source of samples, and how it is opened for a model.

    Attributes
    ----------
    data : path, str, iterable, callable or calibration reader, optional
        The source, as of `open_dataset`.
    preprocess : Preprocess or str, optional
        How images become inputs.
    labels_from : path or str, optional
        Where labels come from, if not from the source itself.
    strict : bool
        Whether an unreadable image is an error instead of being skipped.
    limit : int, optional
        Number of samples to use; all if not given.
    batch : int, optional
        Samples at once, where the model does not fix them.
    input_shapes : mapping of str to sequence of int, optional
        Input name -> full shape, for sizes that the model leaves open.
    seed : int
        Seed of the choice of samples, and of random ones.
    """

    data: Any = None
    preprocess: Preprocess | str | None = None
    labels_from: str | os.PathLike[str] | None = None
    strict: bool = False
    limit: int | None = None
    batch: int | None = None
    input_shapes: Mapping[str, Sequence[int]] | None = None
    seed: int = 0

    def open(self, inputs: Sequence[TensorInfo], *, random: bool = False) -> Dataset:
        """Open the data for the inputs of a model.

        Parameters
        ----------
        inputs : sequence of TensorInfo
            The model's inputs, as of `model_inputs`.
        random : bool
            Whether random samples are made where there is no source: `limit`, or
            `RANDOM_SAMPLES`.

        Raises
        ------
        DataError
            The source cannot be read or does not fit the model, or a shape contradicts what the
            model fixes.
        """
        known = fix_shapes(inputs, self.input_shapes or {})
        if random and self.data is None:
            count = self.limit or RANDOM_SAMPLES
            return random_dataset(known, count=count, seed=self.seed, batch=self.batch)
        return open_dataset(
            self.data,
            known,
            preprocess=self.preprocess,
            limit=self.limit,
            batch=self.batch,
            labels_from=self.labels_from,
            strict=self.strict,
            seed=self.seed,
        )
