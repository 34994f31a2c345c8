"""Something that can be run again and again on one input, and timed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime.session import Provider, open_session
from onnx_lowrank.types import Feeds

if TYPE_CHECKING:
    import onnx


class Runner(Protocol):
    """A loaded model bound to one input."""

    @property
    def settings(self) -> Mapping[str, str]:
        """What reports say of the engine's settings, by its own names."""
        ...

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
