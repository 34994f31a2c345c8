"""OpenVINO's CPU plugin."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from onnx_lowrank.errors import ModelError, ProviderError
from onnx_lowrank.runtime.engines.base import latency_settings
from onnx_lowrank.runtime.require import smallest_model
from onnx_lowrank.runtime.session import Provider
from onnx_lowrank.runtime.source import model_name, one_line, readable
from onnx_lowrank.runtime.tensor import TensorInfo, model_inputs, model_outputs
from onnx_lowrank.types import Feeds

if TYPE_CHECKING:
    from onnx_lowrank.runtime.engines.base import Model

_INSTALL = "pip install 'onnx_lowrank[openvino]'"
# What OpenVINO says of where in its own sources it stopped, and whom to ask.
_NO_CAUSE = ("Exception from ", "Check '", "FrontEnd API failed", "Summary:", "To facilitate ")
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class OpenVinoEngine:
    """OpenVINO on the CPU, in float32, tuned for the latency of one run.

    Parameters
    ----------
    threads : int, optional
        Threads of one run; OpenVINO's own choice by default.
    """

    threads: int | None = None
    name: ClassVar[str] = "openvino"
    device: ClassVar[Provider] = "cpu"
    functions: ClassVar[bool] = False  # its reader of ONNX knows no model-local function
    reorders: ClassVar[bool] = False  # what it costs is part of its latencies
    notes: ClassVar[tuple[str, ...]] = ("OpenVINO computed in float32, tuned for latency",)

    def with_threads(self, threads: int | None) -> Self:
        """As of `Engine`."""
        return replace(self, threads=threads)

    @property
    def version(self) -> str:
        """OpenVINO's."""
        return str(_openvino().__version__).partition("-")[0]

    @property
    def kernels(self) -> bool:
        """As of `Engine`: the kernels are onnxruntime's custom ops."""
        return False

    @property
    def settings(self) -> str:
        """As of `Engine`."""
        return latency_settings(self, "openvino")

    def require(self) -> None:
        """As of `Engine`."""
        try:
            _compile(smallest_model(), self.threads)
        except ModelError as error:
            raise ProviderError(f"OpenVINO does not work here: {error}; {_INSTALL}") from error

    def load(self, model: Model) -> OpenVinoModel:
        """As of `Engine`."""
        return OpenVinoModel(model, threads=self.threads)

    def runner(self, model: Model, feeds: Feeds) -> OpenVinoRunner:
        """As of `Engine`."""
        return OpenVinoRunner(model, feeds, threads=self.threads)


class OpenVinoModel:
    """A model that OpenVINO runs on inputs of any size that it allows.

    Parameters
    ----------
    model : onnx.ModelProto or path
        The model.
    threads : int, optional
        As of `OpenVinoEngine`.

    Raises
    ------
    ProviderError
        OpenVINO is not installed.
    ModelError
        It cannot load the model.
    """

    def __init__(self, model: Model, *, threads: int | None = None) -> None:
        import onnx

        compiled = _compile(model, threads)
        proto = model
        if not isinstance(proto, onnx.ModelProto):
            proto = onnx.load(proto, load_external_data=False)
        self.inputs = model_inputs(proto)
        self.outputs = model_outputs(proto)
        self.optional_inputs: tuple[TensorInfo, ...] = ()  # it reads them as constants
        self.settings: Mapping[str, str] = {}
        self._name = model_name(model)
        self._ports = compiled.inputs
        self._places = _places(compiled.outputs)
        self._request = compiled.create_infer_request()

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Run the model once and return the outputs named, or all, by name.

        Raises
        ------
        ModelError
            OpenVINO cannot run the model on these inputs.
        """
        names = [o.name for o in self.outputs] if outputs is None else list(outputs)
        try:
            found = self._request.infer(_checked(self._ports, feeds, self._name))
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot run {self._name}: {_cause(error)}; "
                "check that the inputs fit the model"
            ) from error
        return {name: found[self._places[name]] for name in names}


class OpenVinoRunner:
    """A model that OpenVINO has compiled for the shapes of one input.

    Parameters
    ----------
    model : onnx.ModelProto or path
        The model.
    feeds : mapping of str to ndarray
        One array for each input.
    threads : int, optional
        As of `OpenVinoEngine`.

    Raises
    ------
    ProviderError
        OpenVINO is not installed.
    ModelError
        It cannot load the model, or the inputs do not fit.
    """

    def __init__(self, model: Model, feeds: Feeds, *, threads: int | None = None) -> None:
        compiled = _compile(model, threads, feeds)
        self.settings: Mapping[str, str] = {}
        self._name = model_name(model)
        self._places = _places(compiled.outputs)
        self._request = compiled.create_infer_request()
        tensor = _openvino().Tensor
        for name, value in _checked(compiled.inputs, feeds, self._name).items():
            self._request.set_tensor(name, tensor(value))

    def run(self) -> None:
        """Run the model once."""
        try:
            self._request.infer(share_outputs=True)  # copies are no part of a run
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot run {self._name}: {_cause(error)}; "
                "check that the inputs fit the model"
            ) from error

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Return copies of the outputs of the last run, by name."""
        return {
            name: np.array(self._request.get_output_tensor(place).data)
            for name, place in self._places.items()
        }


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ProviderError(f"OpenVINO is not installed; {_INSTALL}") from error


def _compile(model: Model, threads: int | None, feeds: Feeds | None = None) -> Any:
    """Return a compiled model, for the shapes of `feeds` where these are given."""
    openvino = _openvino()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        with readable(model) as source:
            read = core.read_model(source)
        if feeds is not None:
            given = _checked(read.inputs, feeds, model_name(model))
            read.reshape({name: list(value.shape) for name, value in given.items()})
        return core.compile_model(read, "CPU", settings)
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO cannot load {model_name(model)}: {_cause(error)}; "
            "give it a model of standard ops, or take the engine cpu"
        ) from error


def _checked(ports: Iterable[Any], feeds: Feeds, name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays that a model reads, one for each of its inputs.

    OpenVINO itself would compute something from arrays of other types and sizes, from those of the
    run before where one is missing, and from the lower halves of large integers.

    Raises
    ------
    ModelError
        One is missing, or is not what the model takes.
    """
    shape_of = _openvino().PartialShape
    found = {}
    for port in ports:
        known = next((each for each in port.names if each in feeds), None)
        if known is None:
            raise ModelError(f"{name} has no input {port.any_name}; check that the inputs fit")
        value = np.asarray(feeds[known], order="C")
        wanted = port.element_type.to_dtype()
        shape = port.partial_shape
        if value.dtype != wanted or not shape_of(list(value.shape)).compatible(shape):
            raise ModelError(
                f"{name} takes {wanted} {shape} as input '{known}', not {value.dtype} "
                f"{list(value.shape)}; check that the inputs fit the model"
            )
        whole = value.dtype.kind in "iu" and value.size > 0
        if whole and (value.min() < _INT32.min or value.max() > _INT32.max):
            raise ModelError(
                f"input '{known}' of {name} holds integers beyond 32 bits, which OpenVINO does not "
                "compute with; take the engine cpu"
            )
        found[known] = value
    return found


def _places(ports: Iterable[Any]) -> dict[str, int]:
    return {name: place for place, port in enumerate(ports) for name in port.names}


def _cause(error: RuntimeError) -> str:
    """Return what of a message of several lines says why."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(_NO_CAUSE)]
    return one_line(" ".join(said) or str(error))
