"""The diagnosis tells what is here, and how to get what is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_lowrank.runtime import available_providers, doctor

X86 = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx avx2 fma avx512f avx512_vnni\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm\nCPU part\t: 0xd0c\n"


def test_the_versions_and_providers_are_those_that_are_imported() -> None:
    found = doctor.diagnose()
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.versions["numpy"] == np.__version__
    assert found.versions["onnx"] == onnx.__version__
    assert found.versions["onnxruntime"] or found.versions["onnxruntime-gpu"]
    assert found.providers == available_providers()
    assert found.cores >= 1
    assert json.loads(json.dumps(found.to_dict()))["version"] == 1


def test_without_onnxruntime_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = doctor.diagnose()
    assert found.providers == ()
    assert {"what": "onnxruntime is not installed"}.items() <= found.missing[0].items()
    assert "pip install 'onnx_lowrank[cpu]'" in found.missing[0]["remedy"]


def test_both_onnxruntimes_at_once_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0")
    (fault,) = (m for m in doctor.diagnose().missing if "both installed" in m["what"])
    assert "pip uninstall onnxruntime onnxruntime-gpu" in fault["remedy"]


@pytest.mark.skipif(
    "CUDAExecutionProvider" in available_providers(), reason="this onnxruntime has CUDA"
)
def test_a_cuda_provider_that_does_not_work_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_providers", lambda: ("CUDAExecutionProvider",))
    (fault,) = (m for m in doctor.diagnose().missing if "CUDA" in m["what"])
    assert fault["what"].startswith("a working CUDA provider: no CUDA provider")
    assert "install onnx_lowrank[gpu]" in fault["remedy"]


def test_every_missing_thing_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    missing = doctor.diagnose().missing
    assert any("Pillow" in m["what"] for m in missing)
    assert all(m["what"] and m["remedy"] for m in missing)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, (("avx2", "fma", "avx512f", "avx512_vnni"), "A CPU")),
        (ARM, (("neon",), "")),
        ("flags : fpu\n", ((), "")),
    ],
)
def test_instruction_sets_are_read_from_cpuinfo(
    tmp_path: Path, text: str, expected: tuple[tuple[str, ...], str]
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert doctor._cpu(path) == expected


def test_a_system_without_cpuinfo_has_unknown_instruction_sets(tmp_path: Path) -> None:
    assert doctor._cpu(tmp_path / "none")[0] is None
