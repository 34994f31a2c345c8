"""Streaming statistics of two arrays that should be equal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.measure.verification.scales import Part, SliceSums
from onnx_lowrank.measure.verification.sqnr import sqnr_of


class OutputStatistics:
    """Errors of one output, accumulated in float64.

    Parameters
    ----------
    name : str
        The output's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._float = True
        self._entries = 0
        self._equal = 0
        self._max_abs = 0.0
        self._error = self._signal = self._other = self._product = 0.0
        self._not_finite = [0, 0]
        self._shape: str | None = None
        self._slices = SliceSums()

    def add(
        self,
        original: NDArray[Any],
        compressed: NDArray[Any],
        *,
        samples: int | None = None,
    ) -> None:
        """Compare two arrays of any shape, for one batch of so many samples."""
        if original.shape != compressed.shape:
            self._shape = self._shape or (
                f"output '{self._name}' has shape {list(compressed.shape)} instead of "
                f"{list(original.shape)}"
            )
            return
        self._entries += original.size
        if original.dtype.kind != "f":
            self._float = False
            self._equal += int(np.count_nonzero(original == compressed))
            return
        values = original.astype(np.float64)
        a, b = values.ravel(), compressed.astype(np.float64).ravel()
        broken = [int(np.count_nonzero(~np.isfinite(v))) for v in (a, b)]
        if any(broken):
            self._not_finite = [n + k for n, k in zip(self._not_finite, broken, strict=True)]
            return
        with np.errstate(over="ignore", invalid="ignore"):  # sums that overflow are no figures
            error = b - a
            self._max_abs = max(self._max_abs, float(np.abs(error).max(initial=0.0)))
            self._error += float(error @ error)
            self._signal += float(a @ a)
            self._other += float(b @ b)
            self._product += float(a @ b)
            self._slices.add(values, error.reshape(values.shape), samples=samples)

    @property
    def finite(self) -> bool:
        """Whether all entries met so far are finite floats of the same shapes."""
        return (
            self._float and self._shape is None and not any(self._not_finite) and self._entries > 0
        )

    @property
    def entries(self) -> int:
        """Number of values compared."""
        return self._entries

    @property
    def compared(self) -> bool:
        """Whether any float of the output was compared."""
        return self._float and self._entries > 0

    @property
    def parts(self) -> tuple[tuple[Part, float], ...]:
        """The parts of different scales with the ratio of each; empty where there is one scale."""
        if not self.finite:
            return ()
        return tuple((part, sqnr_of(signal, error)) for part, signal, error in self._slices.parts())

    @property
    def sqnr_db(self) -> float | None:
        """``10 log10(sum a^2 / sum (b - a)^2)``, of the worst part; None if not finite.

        Parts are those of different scales, as of `onnx_lowrank.measure.verification.scales`.
        """
        if not self.finite:
            return None
        ratios = [sqnr_of(self._signal, self._error), *(ratio for _, ratio in self.parts)]
        return None if any(map(math.isnan, ratios)) else min(ratios)

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between all entries as vectors: 1 for two zero vectors, 0 for one."""
        if not self.finite:
            return None
        if self._error == 0:  # exactly, whatever the roots below would round to
            return 1.0
        if self._signal == 0 or self._other == 0:
            return 0.0
        cosine = self._product / math.sqrt(self._signal) / math.sqrt(self._other)
        return min(max(cosine, -1.0), 1.0) if math.isfinite(cosine) else None

    @property
    def equal(self) -> float | None:
        """Share of equal entries of an output that is not of floats."""
        if self._float or self._shape is not None:
            return None
        return self._equal / self._entries if self._entries else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain data, None where there are none."""
        rms = math.sqrt(self._error / max(self._entries, 1))
        figures: dict[str, Any] = {
            "name": self._name,
            "max_abs": self._max_abs if self.finite else None,
            "rms": rms if self.finite and math.isfinite(rms) else None,
            "sqnr_db": self.sqnr_db,
            "cosine": self.cosine,
        }
        if not self._float:
            figures["equal"] = self.equal
        if parts := self.parts:
            figures["parts"] = [
                {"part": part.name(self._name), "sqnr_db": ratio} for part, ratio in parts
            ]
        return figures

    def failures(self, min_sqnr_db: float | None, min_equal: float | None) -> list[str]:
        """Return a sentence for each way in which the output falls short."""
        failures = [] if self._shape is None else [self._shape]
        for model, count in zip(("original", "compressed"), self._not_finite, strict=True):
            if count:
                failures.append(
                    f"output '{self._name}': NaN or Inf in {count} values of the {model} model"
                )
        sqnr, equal = self.sqnr_db, self.equal
        if min_sqnr_db is not None and sqnr is not None and not sqnr >= min_sqnr_db:
            where = ""
            if (parts := self.parts) and (worst := min(parts, key=lambda each: each[1])):
                where = f" of {worst[0].name(self._name)}, which is of another scale than the rest,"
            failures.append(
                f"output '{self._name}': SQNR {sqnr:.2f} dB{where} is below {min_sqnr_db:g} dB"
            )
        if min_sqnr_db is not None and sqnr is None and self.compared and not failures:
            failures.append(
                f"output '{self._name}': its SQNR was not measured, as its squares are beyond "
                "all floats; scale the output"
            )
        if min_equal is not None and equal is not None and not equal >= min_equal:
            failures.append(
                f"output '{self._name}': {100 * equal:.2f} % of the values are equal, "
                f"fewer than {100 * min_equal:g} %"
            )
        return failures
