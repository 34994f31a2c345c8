"""The one place that opens onnxruntime sessions."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from onnx_lowrank.errors import ModelError, OnnxLowRankError, ProviderError
from onnx_lowrank.runtime import library as kernels
from onnx_lowrank.runtime.source import model_name, one_line, readable
from onnx_lowrank.runtime.tensor import TensorInfo

if TYPE_CHECKING:
    import onnx

Provider = Literal["cpu", "cuda"]
PROVIDERS: dict[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Provider options that a figure from CUDA is worth nothing without.
_STATED = (
    *("device_id", "use_tf32", "cudnn_conv_algo_search", "cudnn_conv_use_max_workspace"),
    *("has_user_compute_stream", "gpu_mem_limit"),
)
NO_SPINNING: Mapping[str, str] = MappingProxyType({"session.intra_op.allow_spinning": "0"})
"""For sessions that take turns with others: threads that wait for work do so without a core."""
# onnxruntime's log levels; what goes wrong reaches the caller as exceptions, not as stray lines.
_FATAL = 4


class Session:
    """A model loaded by onnxruntime, with plain descriptions and one-line errors.

    Attributes
    ----------
    inputs, outputs : tuple of TensorInfo
        In the model's order; inputs that have an initializer are left out.
    optional_inputs : tuple of TensorInfo
        Inputs that have an initializer, which a caller may override.
    provider : {"cpu", "cuda"}
        The provider asked for, checked to be the one in use.
    custom_ops : str or None
        Path of the registered kernel library; None where there is none.
    settings : dict of str to str
        What bears on speed and accuracy on CUDA, as onnxruntime itself reports it: device_id,
        use_tf32, cudnn_conv_algo_search, cudnn_conv_use_max_workspace, has_user_compute_stream,
        gpu_mem_limit (bytes that its arena may take); empty on the CPU.
    raw : onnxruntime.InferenceSession
        The session itself.
    """

    def __init__(self, raw: Any, *, provider: Provider, name: str, custom_ops: str | None) -> None:
        found = raw.get_provider_options().get(PROVIDERS[provider], {})
        self.settings = {key: str(found[key]) for key in _STATED if key in found}
        self.raw = raw
        self.provider: Provider = provider
        self.custom_ops = custom_ops
        self._name = name
        self.inputs = tuple(_info(value) for value in raw.get_inputs())
        self.outputs = tuple(_info(value) for value in raw.get_outputs())
        self.optional_inputs = tuple(_info(v) for v in raw.get_overridable_initializers())

    def run(
        self, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Run the model once.

        Parameters
        ----------
        feeds : mapping of str to ndarray
            One array for each input.
        outputs : sequence of str, optional
            Names of the outputs to compute; all by default.

        Returns
        -------
        dict
            Output name -> array (a list or dict where the output is no tensor).

        Raises
        ------
        ModelError
            onnxruntime could not run the model on these inputs.
        """
        names = [o.name for o in self.outputs] if outputs is None else list(outputs)
        try:
            return dict(zip(names, self.raw.run(names, dict(feeds)), strict=True))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ModelError(
                f"onnxruntime cannot run {self._name}: {one_line(error)}; "
                "check that the inputs fit the model"
            ) from error


def available_providers() -> tuple[str, ...]:
    """Return onnxruntime's own names of the providers that the installed package was built with.

    Raises
    ------
    ProviderError
        onnxruntime is not installed.
    """
    return tuple(_onnxruntime().get_available_providers())


def onnxruntime_version() -> str:
    """Return onnxruntime's version; raise ProviderError where it is not installed."""
    return str(_onnxruntime().__version__)


def check_provider(provider: str) -> None:
    """Raise ProviderError unless the installed onnxruntime has `provider`."""
    if provider not in PROVIDERS:
        raise ProviderError(f"unknown provider '{provider}'; choose one of {', '.join(PROVIDERS)}")
    found = available_providers()
    if PROVIDERS[provider] not in found:
        raise ProviderError(
            f"no {provider.upper()} provider; found {', '.join(found)}; "
            f"install onnx_lowrank[{'gpu' if provider == 'cuda' else 'cpu'}]"
        )


def open_session(
    model: onnx.ModelProto | str | os.PathLike[str],
    *,
    provider: Provider = "cpu",
    threads: int | None = None,
    tf32: bool = False,
    stream: int | None = None,
    custom_ops: bool = True,
    options: Mapping[str, str] | None = None,
    configure: Callable[[Any], None] | None = None,
) -> Session:
    """Load a model into onnxruntime on exactly the provider asked for.

    Parameters
    ----------
    model : onnx.ModelProto or path
        The model; one beyond protobuf's 2 GB goes through a temporary folder with external data.
    provider : {"cpu", "cuda"}
        Where to run; falling back to another one is an error, never silent.
    threads : int, optional
        Intra-op threads; onnxruntime's own choice by default.
    tf32 : bool
        Whether CUDA may round float32 products to 10 bits of mantissa: off, for comparisons.
    stream : int, optional
        Handle of the CUDA stream to run on, which must outlive the session; its own by default.
    custom_ops : bool
        Whether to register the package's own kernels for the provider, where they are present.
    options : mapping of str to str, optional
        Session configuration entries, as onnxruntime names them.
    configure : callable, optional
        Called with onnxruntime's own ``SessionOptions`` before the model is loaded.

    Raises
    ------
    ProviderError
        onnxruntime is missing or broken, the provider is missing, or onnxruntime did not use it or
        its settings.
    ModelError
        onnxruntime does not accept the model.
    """
    ort = _onnxruntime()
    check_provider(provider)
    if threads is not None and threads < 1:
        raise OnnxLowRankError(f"threads is {threads}; give 1 or more")
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL
    if threads is not None:
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
    for key, value in (options or {}).items():
        settings.add_session_config_entry(key, value)
    if configure is not None:
        configure(settings)
    # Each provider has its own library: a CPU kernel amid a model on the GPU would copy to and fro.
    library = custom_ops_library(provider)[0] if custom_ops else None
    if library is not None:
        try:
            settings.register_custom_ops_library(library)
        except Exception as error:
            raise ProviderError(
                f"onnxruntime cannot load the kernel library {library}: {one_line(error)}; "
                "reinstall onnx_lowrank"
            ) from error
    said = io.StringIO()
    with contextlib.redirect_stdout(said) if provider == "cuda" else contextlib.nullcontext():
        asked = _provider_options(provider, tf32, stream)
        raw = _load(ort, model, settings, _provider_list(ort, provider, asked))
    used = raw.get_providers()[0]
    if used != PROVIDERS[provider]:
        why = next((f" ({one_line(line)})" for line in said.getvalue().splitlines() if line), "")
        raise ProviderError(
            f"onnxruntime has the {provider.upper()} provider but used {used}{why}; "
            "check the GPU, its driver and the CUDA and cuDNN libraries "
            "(pip install 'onnx_lowrank[gpu]' brings the libraries)"
        )
    opened = Session(raw, provider=provider, name=model_name(model), custom_ops=library)
    for key, value in opened.settings.items():
        if value != asked.get(key, value):
            raise ProviderError(
                f"onnxruntime was asked for {key} {asked[key]} and uses {value}; "
                "install another version of onnxruntime-gpu"
            )
    return opened


def custom_ops_library(provider: Provider = "cpu") -> tuple[str | None, str]:
    """Return the path of a provider's kernel library, or None and a sentence that says why."""
    path = kernels.library_path(provider)
    return (str(path), "") if path else (None, kernels.missing_reason(provider) or "")


def _onnxruntime() -> Any:
    """Import onnxruntime late: it is slow, and neither of its packages is a dependency."""
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(
            "onnxruntime is not installed; run pip install 'onnx_lowrank[cpu]', "
            "or pip install 'onnx_lowrank[gpu]' for CUDA"
        ) from error
    # The two packages share one folder: removing one of them leaves an empty module behind.
    if not hasattr(ort, "InferenceSession"):
        raise ProviderError(
            "onnxruntime is broken, as after installing both its packages; "
            "run pip uninstall onnxruntime onnxruntime-gpu, then pip install 'onnx_lowrank[cpu]' "
            "or "
            "'onnx_lowrank[gpu]'"
        )
    # Errors reach the caller as exceptions; what is logged beside them, such as that there is no
    # home folder to count its users in, is no result and no error of a command.
    ort.set_default_logger_severity(_FATAL)
    return ort


def _provider_options(provider: Provider, tf32: bool, stream: int | None) -> dict[str, str]:
    if provider == "cpu":
        return {}
    asked = {
        "device_id": "0",
        "use_tf32": "1" if tf32 else "0",
        # Timing all algorithms for a Conv makes comparisons of speed fair; it costs time when a
        # shape first runs.
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
    }
    if stream is not None:
        asked["user_compute_stream"] = str(stream)
    return asked


def _provider_list(ort: Any, provider: Provider, options: dict[str, str]) -> list[Any]:
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    # onnxruntime-gpu finds the CUDA libraries that pip installed only when told to look.
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
    return [(PROVIDERS["cuda"], options), PROVIDERS["cpu"]]


def _load(
    ort: Any, model: onnx.ModelProto | str | os.PathLike[str], settings: Any, providers: list[Any]
) -> Any:
    with readable(model) as source:
        try:
            return ort.InferenceSession(source, settings, providers=providers)
        except Exception as error:
            raise ModelError(
                f"onnxruntime cannot load {model_name(model)}: {one_line(error)}; "
                "check the model with onnx.checker, and its IR version and opset against "
                "onnxruntime's"
            ) from error


def _info(value: Any) -> TensorInfo:
    # onnxruntime reports a scalar and an unknown rank alike, as an empty shape: unknown is the
    # safe reading.
    shape = tuple(d if isinstance(d, int | str) else None for d in value.shape)
    return TensorInfo(value.name, value.type, shape or None)
