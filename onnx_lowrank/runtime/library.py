"""The library of custom-op kernels: where it is, why it is missing, and how a session gets it."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from onnx_lowrank.errors import ProviderError

if TYPE_CHECKING:
    import onnxruntime

PATH_VARIABLE = "ONNX_LOWRANK_LIBRARY"
_NAME = "libonnx_lowrank_ops" + (".dll" if sys.platform == "win32" else ".so")


def library_path() -> Path | None:
    """Return the kernel library, or None where it was not built; `missing_reason` then says why.

    The environment variable ``ONNX_LOWRANK_LIBRARY`` names another one, e.g. of a build under test.
    """
    if named := os.environ.get(PATH_VARIABLE):
        return Path(named) if Path(named).is_file() else None
    # The package's path has several entries in an editable install: sources in one, the built library in another.
    found = files("onnx_lowrank").joinpath("_lib", _NAME)
    return Path(str(found)) if found.is_file() else None


def missing_reason() -> str | None:
    """Return why there is no kernel library, in one sentence, or None if there is one."""
    if library_path() is not None:
        return None
    if named := os.environ.get(PATH_VARIABLE):
        return f"{PATH_VARIABLE} names '{named}', which is not a file"
    return (
        "the kernels were not built (no C++17 compiler when the package was installed); portable nodes run through "
        "their standard ops; install a compiler and reinstall onnx_lowrank to have them"
    )


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
