"""What is installed, what this machine can do, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from onnx_lowrank.errors import OnnxLowRankError, ProviderError
from onnx_lowrank.runtime.require import require_provider
from onnx_lowrank.runtime.session import (
    PROVIDERS,
    available_providers,
    custom_ops_library,
)

_PACKAGES = (
    "onnx_lowrank",
    "onnx",
    "onnx-graphsurgeon",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
    "typer",
    "rich",
    "pillow",
    "torch",
    "matplotlib",
)
# Linux's names of the instruction sets that kernels are chosen by -> ours.
_FLAGS = {
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "neon": "neon",
    "asimd": "neon",
}


@dataclass(frozen=True)
class Diagnosis:
    """The state of an installation.

    Attributes
    ----------
    python, platform, cpu : str
        Version of Python, operating system and architecture, name of the processor (empty if
        unknown).
    versions : dict of str to (str or None)
        Package -> installed version, None if absent.
    providers : tuple of str
        onnxruntime's execution providers; empty without onnxruntime.
    instruction_sets : tuple of str or None
        Those of avx2, fma, avx512f, avx512_vnni, avx_vnni, neon that the processor has; None where
        the system does not tell.
    cores : int
        Cores that this process may use.
    custom_ops : str or None
        Path of the package's kernel library.
    missing : tuple of dict
        ``what`` is missing or wrong, and the ``remedy``, one sentence each.
    """

    python: str
    platform: str
    cpu: str
    versions: dict[str, str | None]
    providers: tuple[str, ...]
    instruction_sets: tuple[str, ...] | None
    cores: int
    custom_ops: str | None
    missing: tuple[dict[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, valid as JSON."""
        return {"version": 1, **asdict(self)}


def diagnose() -> Diagnosis:
    """Look at the installation and the machine; raises nothing for what is missing."""
    versions = {name: _version(name) for name in _PACKAGES}
    missing: list[dict[str, str]] = []

    def lacks(what: str, remedy: str) -> None:
        missing.append({"what": what, "remedy": remedy})

    providers: tuple[str, ...] = ()
    try:
        providers = available_providers()
    except ProviderError as error:
        what, _, remedy = str(error).partition("; ")
        lacks(what, remedy)
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        lacks(
            "onnxruntime and onnxruntime-gpu are both installed, and share one folder",
            "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'onnx_lowrank[gpu]'",
        )
    elif providers and PROVIDERS["cuda"] not in providers:
        lacks(
            "the CUDA provider: models run on the CPU only",
            "with an NVIDIA GPU: pip uninstall onnxruntime, then pip install 'onnx_lowrank[gpu]'",
        )
    elif providers:
        try:
            require_provider("cuda")
        except OnnxLowRankError as error:
            what, _, remedy = str(error).partition("; ")
            lacks(f"a working CUDA provider: {what}", remedy)
    if versions["pillow"] is None:
        lacks("Pillow: no folders of images as data", "pip install 'onnx_lowrank[images]'")
    library, reason = custom_ops_library()
    if library is None:
        what, _, remedy = reason.partition("; ")
        lacks(f"the kernel library: {what}", remedy)
    flags, cpu = _cpu()
    return Diagnosis(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=cpu,
        versions=versions,
        providers=providers,
        instruction_sets=flags,
        cores=available_cores(),
        custom_ops=library,
        missing=tuple(missing),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Return what the processor calls itself."""
    return _cpu()[1]


def _cpu(path: Path = Path("/proc/cpuinfo")) -> tuple[tuple[str, ...] | None, str]:
    """Return the instruction sets and name of the first core, as Linux lists them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None, platform.processor()
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    flags = fields.get("flags", fields.get("features", "")).split()
    found = dict.fromkeys(ours for theirs, ours in _FLAGS.items() if theirs in flags)
    return tuple(found), fields.get("model name", "")
