"""The C++ unit tests, plain and under the sanitizers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from building import PLAIN, build

FUZZED = {"fuzz_nodes": 20000, "fuzz_cuda_nodes": 2000}  # inputs: half a minute each


def lacks(sanitizers: str, folder: Path, compiler: str = "c++") -> str | None:
    """Return why programs with these sanitizers cannot be built or run here, or None."""
    if shutil.which("cmake") is None or shutil.which(compiler) is None:
        return f"no cmake or no {compiler}"
    source, program = folder / "empty.cc", folder / "empty"
    source.write_text("int main() { return 0; }\n")
    flags = [f"-fsanitize={sanitizers}"] if sanitizers else []
    built = subprocess.run(
        [compiler, *flags, source, "-o", program], capture_output=True, text=True
    )
    if built.returncode:
        return f"no sanitizer {sanitizers}: {built.stderr.strip()[-200:]}"
    ran = subprocess.run([program], capture_output=True, text=True)
    if ran.returncode:
        return f"sanitizer {sanitizers} does not run here: {ran.stderr.strip()[-200:]}"
    return None


def sanitized(sanitizers: str) -> tuple[str, ...]:
    return (*PLAIN, f"-DONNX_LOWRANK_SANITIZE={sanitizers}")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["", "address,undefined", "thread"])
def test_cpp(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, sanitizers: str) -> None:
    if reason := lacks(sanitizers, tmp_path):
        pytest.skip(reason)
    target, kind = "kernel_tests", sanitizers or "plain"
    options = sanitized(sanitizers) if sanitizers else PLAIN
    program = build(tmp_path_factory, kind, [target], *options) / target
    # Run itself, not by ctest, which succeeds where it finds no test.
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert "has no cases" not in result.stdout
    cases, failures = (int(result.stdout.split()[i]) for i in (0, 2))
    assert cases > 1000
    assert failures == 0


@pytest.mark.slow
@pytest.mark.parametrize(("target", "count"), FUZZED.items())
def test_fuzzed_nodes(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    target: str,
    count: int,
) -> None:
    """No node makes the sanitizers speak, and what instruction sets both run is equal.

    clang's fuzzer where there is one, else our driver of random bytes under the compiler at hand.
    """
    sanitizers = "address,undefined"
    source, program = tmp_path / "fuzzer.cc", tmp_path / "fuzzer"
    source.write_text('extern "C" int LLVMFuzzerTestOneInput(char *, long) { return 0; }\n')
    fuzzer = (
        shutil.which("clang++") is not None
        and not subprocess.run(
            ["clang++", f"-fsanitize=fuzzer,{sanitizers}", source, "-o", program],
            capture_output=True,
        ).returncode
    )
    compiler = "clang++" if fuzzer else "c++"
    if reason := lacks(sanitizers, tmp_path, compiler):
        pytest.skip(reason)
    options = [*sanitized(sanitizers), f"-DCMAKE_CXX_COMPILER={compiler}"]
    kind = "fuzzer" if fuzzer else sanitizers
    program = build(tmp_path_factory, kind, [target], *options, tool=compiler) / target
    limits = ["-max_total_time=50", "-max_len=256", "-rss_limit_mb=4096"]
    arguments = [f"-runs={count}", "-seed=1", *limits] if fuzzer else [str(count), "1"]
    result = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
    )
    with capsys.disabled():
        driver = "libFuzzer" if fuzzer else "random bytes"
        print(f"\n{target}, {driver}: {result.stdout.strip().splitlines()[-1:]}")
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    counted = re.search(r"(\d+) inputs: (\d+) ran, (\d+) refused", result.stdout)
    assert counted
    inputs, ran, refused = (int(n) for n in counted.groups())
    assert inputs >= 100
    assert min(ran, refused) > 0.02 * inputs  # a guided fuzzer leans to what runs
