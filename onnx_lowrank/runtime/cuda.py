"""What NVIDIA's driver is asked for itself, by ctypes: streams, events, memory.

Sources: CUDA Driver API reference; the functions are those of every driver since CUDA 4.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from onnx_lowrank.errors import ProviderError

LIBRARY = "libcuda.so.1"


class Device:
    """A GPU's primary context, which is the one that onnxruntime works in too.

    Parameters
    ----------
    index : int
        Which GPU, as CUDA numbers them.

    Raises
    ------
    ProviderError
        There is no driver or no such GPU.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            self._driver = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise ProviderError(
                f"no NVIDIA driver ({LIBRARY}); run on a machine with an NVIDIA GPU and its driver"
            ) from error
        self._call("cuInit", 0)
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), index)
        self._device = device
        self._context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)

    def close(self) -> None:
        """Let go of the context; streams and events of it must be gone."""
        if self._context:
            self._call("cuDevicePrimaryCtxRelease_v2", self._device)
            self._context = ctypes.c_void_p()

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The GPU's name, as the driver gives it."""
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, 256, self._device)
        return text.value.decode()

    @property
    def compute_capability(self) -> tuple[int, int]:
        """Major and minor number, e.g. (9, 0)."""
        return self._attribute(75), self._attribute(76)

    @property
    def multiprocessors(self) -> int:
        """How many multiprocessors it has."""
        return self._attribute(16)

    def used_memory(self) -> int:
        """Return the bytes in use on the GPU, by all processes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with self._current():
            self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return total.value - free.value

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""
        with self._current():
            self._call("cuCtxSynchronize")

    def stream(self) -> int:
        """Return a new stream's handle, that lives as long as the process."""
        handle = ctypes.c_void_p()
        with self._current():
            self._call("cuStreamCreate", ctypes.byref(handle), 1)  # does not wait for stream 0
        assert handle.value is not None
        return handle.value

    def event(self) -> Event:
        """Return a new event that can be timed."""
        handle = ctypes.c_void_p()
        with self._current():
            self._call("cuEventCreate", ctypes.byref(handle), 0)
        return Event(self, handle)

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), number, self._device)
        return value.value

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Make the context current, and leave the thread as it was."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(text))
            why = text.value.decode() if text.value else f"error {code}"
            raise ProviderError(f"{function}: {why}; check the GPU and its driver")


class Event:
    """A moment on a stream; made by `Device.event`."""

    def __init__(self, device: Device, handle: ctypes.c_void_p) -> None:
        self._device = device
        self._handle = handle

    def record(self, stream: int) -> None:
        """Queue the event on a stream."""
        with self._device._current():
            self._device._call("cuEventRecord", self._handle, ctypes.c_void_p(stream))

    def milliseconds_since(self, earlier: Event) -> float:
        """Wait for this event and return the time from an earlier one, at about 0.5 us."""
        value = ctypes.c_float()
        with self._device._current():
            self._device._call("cuEventSynchronize", self._handle)
            self._device._call(
                "cuEventElapsedTime", ctypes.byref(value), earlier._handle, self._handle
            )
        return value.value

    def close(self) -> None:
        """Free the event."""
        with self._device._current():
            self._device._call("cuEventDestroy_v2", self._handle)
