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
