"""onnxruntime on the CPU and on CUDA."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import Self

from onnx_lowrank.runtime.engines.base import latency_settings
from onnx_lowrank.runtime.library import library_path, loads
from onnx_lowrank.runtime.require import require_provider
from onnx_lowrank.runtime.runner import OrtRunner
from onnx_lowrank.runtime.session import (
    NO_SPINNING,
    Provider,
    Session,
    onnxruntime_version,
    open_session,
)
from onnx_lowrank.types import Feeds

if TYPE_CHECKING:
    from onnx_lowrank.runtime.engines.base import Model


@dataclass(frozen=True)
class OrtEngine:
    """One of onnxruntime's providers, called by its device; on CUDA without TF32.

    Parameters
    ----------
    device : {"cpu", "cuda"}
        The provider.
    threads : int, optional
        Intra-op threads; onnxruntime's own choice by default.
    """

    device: Provider = "cpu"
    threads: int | None = None
    functions: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """As of `Engine`."""
        return self.device

    @property
    def notes(self) -> tuple[str, ...]:
        """As of `Engine`."""
        if self.device == "cpu":
            return ()
        return ("on CUDA: TF32 off, cuDNN's algorithms by exhaustive search, one stream",)

    def with_threads(self, threads: int | None) -> Self:
        """As of `Engine`."""
        return replace(self, threads=threads)

    @property
    def version(self) -> str:
        """Onnxruntime's."""
        return onnxruntime_version()

    @property
    def kernels(self) -> bool:
        """As of `Engine`; that those for the CPU load is tried."""
        return loads() if self.device == "cpu" else library_path(self.device) is not None

    @property
    def reorders(self) -> bool:
        """As of `Engine`."""
        return self.device == "cpu"

    @property
    def settings(self) -> str:
        """As of `Engine`."""
        library = library_path(self.device)
        digests = [] if library is None else [hashlib.sha256(library.read_bytes()).hexdigest()]
        return latency_settings(self, "onnxruntime", *digests)

    def require(self) -> None:
        """As of `Engine`."""
        require_provider(self.device)

    def load(self, model: Model) -> Session:
        """As of `Engine`."""
        # A comparison runs two models in turns.
        return open_session(model, provider=self.device, threads=self.threads, options=NO_SPINNING)

    def runner(self, model: Model, feeds: Feeds) -> OrtRunner:
        """As of `Engine`."""
        return OrtRunner(model, feeds, provider=self.device, threads=self.threads)
