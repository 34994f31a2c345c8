"""What a model says of its inputs and outputs: name, element type, shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_lowrank.errors import DataError, suggest
from onnx_lowrank.runtime.capacity import check_size

if TYPE_CHECKING:
    import onnx

_DTYPES: dict[str, type[np.generic]] = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "bool": np.bool_,
    "string": np.str_,
    **{f"{s}int{b}": getattr(np, f"{s}int{b}") for s in ("", "u") for b in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model.

    Attributes
    ----------
    name : str
        Its name in the model.
    type : str
        Its type as onnxruntime writes it, such as ``"tensor(float)"``.
    shape : tuple of int, str or None, or None
        Fixed sizes as int, symbolic ones as str, unknown ones as None; None where even the rank is
        unknown.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...] | None

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The numpy type of its elements (``str_`` for strings); None where there is none."""
        if not self.type.startswith("tensor("):
            return None
        found = _DTYPES.get(self.type[len("tensor(") : -1])
        return None if found is None else np.dtype(found)

    @property
    def rank(self) -> int | None:
        """Number of dimensions, or None where unknown."""
        return None if self.shape is None else len(self.shape)

    def check_size(self, batch: int | None = None) -> None:
        """Raise DataError where its array is larger than this machine can work on.

        Parameters
        ----------
        batch : int, optional
            Its size along axis 0; sizes that are not known count as 1.
        """
        shape = [d if isinstance(d, int) else 1 for d in self.shape or ()]
        if batch is not None:
            shape[:1] = [batch]
        check_size(
            shape,
            1 if self.dtype is None else max(self.dtype.itemsize, 1),
            f"input '{self.name}' {_describe(shape)}",
            remedy="give a smaller shape or batch size, or a model that leaves them open",
        )

    def describe_shape(self) -> str:
        """Return the shape as text, ``?`` for what is unknown, such as ``[N, 3, 224, 224]``."""
        if self.shape is None:
            return "[...]"
        return _describe(self.shape)


def model_inputs(model: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """Return what a model must be fed with: its inputs without those that have an initializer.

    Parameters
    ----------
    model : onnx.ModelProto
        Any valid model.

    Returns
    -------
    tuple of TensorInfo
        In the model's own order, equal to what a session of the model reports.
    """
    given = {t.name for t in model.graph.initializer}
    given.update(t.values.name for t in model.graph.sparse_initializer)
    return _infos(value for value in model.graph.input if value.name not in given)


def model_outputs(model: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """Return what a model gives, in its own order."""
    return _infos(model.graph.output)


def _infos(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorInfo, ...]:
    from onnx import TensorProto

    infos = []
    for value in values:
        kind = value.type.WhichOneof("value") or "unknown"
        if kind != "tensor_type":
            infos.append(TensorInfo(value.name, kind.removesuffix("_type"), None))
            continue
        tensor = value.type.tensor_type
        element = TensorProto.DataType.Name(tensor.elem_type).lower()
        shape: tuple[int | str | None, ...] | None = None
        if tensor.HasField("shape"):
            shape = tuple(
                # A negative size means an open one, for onnxruntime too.
                (d.dim_value if d.dim_value >= 0 else None)
                if d.HasField("dim_value")
                else (d.dim_param or None)
                for d in tensor.shape.dim
            )
        infos.append(TensorInfo(value.name, f"tensor({element})", shape))
    return tuple(infos)


def fix_shapes(
    inputs: Iterable[TensorInfo], shapes: Mapping[str, Sequence[int]]
) -> tuple[TensorInfo, ...]:
    """Replace unknown sizes of inputs by given ones.

    Parameters
    ----------
    inputs : iterable of TensorInfo
        A model's inputs.
    shapes : mapping of str to sequence of int
        Input name -> its full shape; inputs that are not named stay as they are.

    Raises
    ------
    DataError
        A name is not an input, a size is below 1, a shape contradicts what the model fixes, or its
        array is larger than this machine can work on.
    """
    infos = {info.name: info for info in inputs}
    for name, shape in shapes.items():
        if name not in infos:
            raise DataError(f"the model has no input '{name}'{suggest(name, infos)}")
        known = infos[name].shape
        fits = known is None or (
            len(known) == len(shape)
            and all(not isinstance(k, int) or k == s for k, s in zip(known, shape, strict=True))
        )
        if not fits or any(size < 1 for size in shape):
            raise DataError(
                f"shape {_describe(shape)} does not fit input '{name}' "
                f"{infos[name].describe_shape()}; "
                "give one positive size for each dimension, equal to those the model fixes"
            )
        infos[name] = replace(infos[name], shape=tuple(shape))
        infos[name].check_size()
    return tuple(infos.values())


def _describe(shape: Sequence[int | str | None]) -> str:
    """Return a shape as text, ``?`` for what is unknown; sizes beyond 64 bits as ``...``."""
    return "[" + ", ".join("?" if d is None else _size(d) for d in shape) + "]"


def _size(size: int | str) -> str:
    # Python refuses to write numbers of thousands of digits.
    return "..." if isinstance(size, int) and abs(size) >= 2**63 else str(size)
