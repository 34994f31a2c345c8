"""The library of custom-op kernels: where it is, why it is missing, and how a session gets it."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onnx_lowrank.errors import ProviderError

if TYPE_CHECKING:
    import onnxruntime

Lowering = Literal["standard", "portable", "auto"]
PATH_VARIABLE = "ONNX_LOWRANK_LIBRARY"
CUDA_PATH_VARIABLE = "ONNX_LOWRANK_CUDA_LIBRARY"
_SUFFIX = ".dll" if sys.platform == "win32" else ".so"
# Per provider: the variable that names another library, and the library's own name.
_LIBRARIES = {
    "cpu": (PATH_VARIABLE, f"libonnx_lowrank_ops{_SUFFIX}"),
    "cuda": (CUDA_PATH_VARIABLE, f"libonnx_lowrank_cuda_ops{_SUFFIX}"),
}


def library_path(provider: str = "cpu") -> Path | None:
    """Return the kernel library, or None where it was not built; `missing_reason` then says why.

    The environment variables ``ONNX_LOWRANK_LIBRARY`` and, for the provider "cuda",
    ``ONNX_LOWRANK_CUDA_LIBRARY`` name another one, e.g. of a build under test.
    """
    variable, name = _LIBRARIES[provider]
    if named := os.environ.get(variable):
        return Path(named) if Path(named).is_file() else None
    # In an editable install the package has several paths: sources in one, the library in another.
    found = files("onnx_lowrank").joinpath("_lib", name)
    return Path(str(found)) if found.is_file() else None


def missing_reason(provider: str = "cpu") -> str | None:
    """Return why there is no kernel library, in one sentence, or None if there is one."""
    if library_path(provider) is not None:
        return None
    variable = _LIBRARIES[provider][0]
    if named := os.environ.get(variable):
        return f"{variable} names '{named}', which is not a file"
    if provider == "cuda":
        return (
            "the CUDA kernels were not built (portable nodes run through their standard ops); "
            "reinstall onnx_lowrank with ONNX_LOWRANK_CUDA=ON in the environment and nvcc installed"
        )
    return (
        "the kernels were not built, as there was no C++17 compiler when the package was installed "
        "(portable nodes run through their standard ops); reinstall onnx_lowrank with a compiler"
    )


def loads() -> bool:
    """Whether the kernel library is there and onnxruntime can load it."""
    try:
        session_options()
    except ProviderError:
        return False
    return True


def session_options() -> onnxruntime.SessionOptions:
    """Return onnxruntime's session options with the kernels registered.

    Raises
    ------
    ProviderError
        If onnxruntime or the library is missing, or onnxruntime cannot load it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(
            "onnxruntime is not installed; run pip install 'onnx_lowrank[cpu]'"
        ) from error
    options = onnxruntime.SessionOptions()
    register(options)
    return options


def register(session_options: onnxruntime.SessionOptions) -> None:
    """Register the kernels with session options.

    Parameters
    ----------
    session_options : onnxruntime.SessionOptions
        Options of sessions that shall use the kernels.

    Raises
    ------
    ProviderError
        If the library is missing, or onnxruntime cannot load it.
    """
    path = library_path()
    if path is None:
        raise ProviderError(str(missing_reason()))
    try:
        session_options.register_custom_ops_library(str(path))
    except Exception as error:
        raise ProviderError(
            f"onnxruntime cannot load {path.name}: {error}; reinstall onnx_lowrank for this machine"
        ) from error
