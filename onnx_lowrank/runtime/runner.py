"""Something that can be run again and again on one input, and timed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.errors import ModelError, ProviderError
from onnx_lowrank.runtime.session import Provider, open_session
from onnx_lowrank.types import Feeds

if TYPE_CHECKING:
    import onnx


class Runner(Protocol):
    """A loaded model bound to one input."""

    def run(self) -> None:
        """Run the model once and return when the outputs are complete."""
        ...

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Return copies of the outputs of the last run, by name."""
        ...


class OrtRunner:
    """A model in onnxruntime, with inputs and outputs bound where they are used.

    Inputs are copied to the provider's device once and outputs stay there, so that a run is timed
    without copies between host and device; it ends when the device has finished.

    Parameters
    ----------
    model : onnx.ModelProto or path
        The model.
    feeds : mapping of str to ndarray
        One array for each input.
    provider : {"cpu", "cuda"}
        Where to run; anything else that onnxruntime used instead is an error.
    threads : int, optional
        Intra-op threads; onnxruntime's own choice by default.
    tf32, stream, custom_ops
        As of `open_session`.
    configure : callable, optional
        Changes onnxruntime's session options, as of `open_session`.

    Attributes
    ----------
    settings : dict of str to str
        Settings of the CUDA provider, as of `Session`.

    Raises
    ------
    ProviderError, ModelError
        As of `open_session`; ModelError also where a run fails or an output is no tensor.
    """

    def __init__(
        self,
        model: onnx.ModelProto | str | os.PathLike[str],
        feeds: Feeds,
        *,
        provider: Provider = "cpu",
        threads: int | None = None,
        tf32: bool = False,
        stream: int | None = None,
        custom_ops: bool = True,
        configure: Callable[[Any], None] | None = None,
    ) -> None:
        self._session = open_session(
            model,
            provider=provider,
            threads=threads,
            tf32=tf32,
            stream=stream,
            custom_ops=custom_ops,
            # Idle threads of one session must not spin on the cores that another one is timed on.
            options={"session.force_spinning_stop": "1"},
            configure=configure,
        )
        self.settings = self._session.settings
        for output in self._session.outputs:
            if not output.type.startswith("tensor("):
                raise ModelError(
                    f"output '{output.name}' is a {output.type} and cannot be bound; "
                    "remove it from the model's outputs to measure the rest"
                )
        ort = importlib.import_module("onnxruntime")
        self._binding = self._session.raw.io_binding()
        for name, value in feeds.items():
            bound = ort.OrtValue.ortvalue_from_numpy(value, provider, 0)
            self._binding.bind_ortvalue_input(name, bound)
        for output in self._session.outputs:
            self._binding.bind_output(output.name, provider)
        self._binding.synchronize_inputs()

    def run(self) -> None:
        """Run the model once and wait for the device."""
        self._run(None)
        self._binding.synchronize_outputs()

    def queue(self) -> None:
        """Run the model once; on CUDA return when all of it is queued on the stream, not done."""
        options = importlib.import_module("onnxruntime").RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._run(options)

    def _run(self, options: Any) -> None:
        try:
            self._session.raw.run_with_iobinding(self._binding, options)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ModelError(
                f"onnxruntime cannot run the model: {' '.join(str(error).split())}; "
                "check that the inputs fit the model"
            ) from error

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Return copies of the outputs of the last run, by name."""
        names = (output.name for output in self._session.outputs)
        values = self._binding.copy_outputs_to_cpu()
        return {name: np.array(value) for name, value in zip(names, values, strict=True)}

    def end_profiling(self) -> str:
        """Stop onnxruntime's profiler and return the path of what it wrote."""
        return str(self._session.raw.end_profiling())


class OpenVinoRunner:
    """A model in OpenVINO's CPU plugin, tuned for latency.

    Parameters
    ----------
    path : path
        The ONNX file.
    feeds : mapping of str to ndarray
        One array for each input.
    threads : int, optional
        Threads; OpenVINO's own choice by default.

    Raises
    ------
    ProviderError
        OpenVINO is not installed.
    ModelError
        OpenVINO cannot load or run the model.
    """

    def __init__(
        self, path: str | os.PathLike[str], feeds: Feeds, *, threads: int | None = None
    ) -> None:
        openvino = _openvino()
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            model = core.read_model(os.fspath(path))
            model.reshape({name: list(value.shape) for name, value in feeds.items()})
            compiled = core.compile_model(model, "CPU", settings)
            self._request = compiled.create_infer_request()
            for name, value in feeds.items():
                self._request.set_tensor(name, openvino.Tensor(np.ascontiguousarray(value)))
            self._names = [(port.any_name, index) for index, port in enumerate(compiled.outputs)]
        except Exception as error:  # plain RuntimeErrors of several lines
            raise ModelError(
                f"OpenVINO cannot load the model: {' '.join(str(error).split())[:200]}; "
                "leave it out of the comparison"
            ) from error

    def run(self) -> None:
        """Run the model once."""
        self._request.infer()

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Return copies of the outputs of the last run, by name."""
        return {
            name: np.array(self._request.get_output_tensor(index).data)
            for name, index in self._names
        }


def openvino_version() -> str | None:
    """Return OpenVINO's version, or None where it is not installed."""
    try:
        return str(_openvino().__version__)
    except ProviderError:
        return None


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ProviderError("OpenVINO is not installed; pip install openvino") from error
