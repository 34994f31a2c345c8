"""Where the kernel library is, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_lowrank.errors import ProviderError
from onnx_lowrank.runtime import library


@pytest.fixture
def empty_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package as it is installed without a compiler."""
    monkeypatch.delenv("ONNX_LOWRANK_LIBRARY", raising=False)
    monkeypatch.setattr(library, "files", lambda _: tmp_path)


@pytest.mark.usefixtures("empty_package")
def test_no_library_is_no_error_and_has_a_reason() -> None:
    assert library.library_path() is None
    assert "no C++17 compiler" in str(library.missing_reason())
    assert not library.loads()


@pytest.mark.usefixtures("empty_package")
def test_options_with_kernels_need_the_library() -> None:
    with pytest.raises(ProviderError, match="reinstall onnx_lowrank with a compiler"):
        library.session_options()


def test_the_environment_names_another_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "other.so"
    monkeypatch.setenv("ONNX_LOWRANK_LIBRARY", str(path))
    assert library.library_path() is None
    assert str(path) in str(library.missing_reason())
    path.write_bytes(b"not a shared object")
    assert library.library_path() == path
    assert library.missing_reason() is None
    assert not library.loads()
    with pytest.raises(ProviderError, match=r"cannot load other\.so"):
        library.session_options()


def test_each_provider_has_its_own_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ONNX_LOWRANK_CUDA_LIBRARY", raising=False)
    monkeypatch.setattr(library, "files", lambda _: tmp_path)
    monkeypatch.setenv("ONNX_LOWRANK_LIBRARY", __file__)
    assert library.library_path("cuda") is None
    assert "with ONNX_LOWRANK_CUDA=ON in the environment" in str(library.missing_reason("cuda"))
    monkeypatch.setenv("ONNX_LOWRANK_CUDA_LIBRARY", str(tmp_path / "none.so"))
    assert "ONNX_LOWRANK_CUDA_LIBRARY names" in str(library.missing_reason("cuda"))
    (tmp_path / "_lib").mkdir()
    built = tmp_path / "_lib" / "libonnx_lowrank_cuda_ops.so"
    built.write_bytes(b"")
    monkeypatch.delenv("ONNX_LOWRANK_CUDA_LIBRARY")
    assert library.library_path("cuda") == built
    assert library.missing_reason("cuda") is None
