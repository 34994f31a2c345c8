"""The gate of files, without any command; the commands are in trust/test_options.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnx_lowrank.errors import OutputError
from onnx_lowrank.files import (
    Input,
    Output,
    check_file,
    check_outputs,
    real_path,
    source_path,
    write_text,
)


def said(output: Output, *inputs: Input) -> str:
    with pytest.raises(OutputError) as caught:
        check_outputs([output], inputs)
    text = str(caught.value)
    assert ";" in text
    assert "\n" not in text
    return text


def test_what_may_be_overwritten_is_so_only_by_force(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_text("a model")
    source = Input("is the input itself", model)
    for path in (model, tmp_path / "." / "net.onnx"):
        assert "or give --force" in said(Output("-o", path, replaces=model), source)
        check_outputs([Output("-o", path, replaces=model, force=True)], [source])
        assert "--force" not in said(Output("-o", path, force=True), source)
    check_outputs([Output("-o", tmp_path / "new.onnx")], [source])
    check_outputs([Output("-o", model)], [Input("is read", tmp_path / "missing")])


def test_an_error_with_one_input_does_not_hide_another(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("")
    missing = Input("is the input itself", tmp_path / "missing" / "net.onnx")
    output = Output("-o", there, replaces=missing.path)
    assert "is read" in said(output, missing, Input("is read", there))


def test_the_file_of_a_model(tmp_path: Path) -> None:
    class Place:
        def __fspath__(self) -> str:
            return str(tmp_path)

    sources: tuple[object, ...] = (str(tmp_path), tmp_path, Place())
    assert [source_path(each) for each in sources] == [tmp_path] * 3
    assert source_path(b"content") is None


def test_folders_own_what_they_write(tmp_path: Path) -> None:
    folder = Output("--figures", tmp_path, ("*.png", "work"))
    for name in ("a.png", "work/deep/file"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        assert "is read" in said(folder, Input("is read", path))
        with pytest.raises(OutputError, match="--figures and -o would both write"):
            check_outputs([folder, Output("-o", path)], [])
    for name in ("a.json", "other/a.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        check_outputs([folder, Output("-o", path)], [Input("is read", tmp_path / "run.json")])
        check_outputs([folder], [Input("is read", path)])
    os.link(tmp_path / "a.json", tmp_path / "linked.png")
    assert "is read" in said(folder, Input("is read", tmp_path / "a.json"))
    data = tmp_path / "images"
    data.mkdir()
    assert "is read" in said(Output("-o", data / "new", ("*.png",)), Input("is read", data))
    check_outputs([Output("-o", tmp_path / "new", ("*.png",))], [Input("is read", data)])


def test_names_that_no_file_system_takes_are_one_line(tmp_path: Path) -> None:
    for name in ("a\0b", "x" * 300, "loop", "to_null"):
        (tmp_path / "loop").unlink(missing_ok=True)
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "to_null").unlink(missing_ok=True)
        (tmp_path / "to_null").symlink_to("/dev/null")
        for output in (Output("-o", tmp_path / name), Output("-o", tmp_path / name, ("*",))):
            assert len(said(output)) < 600
    for name in ("/dev/stdout", "/dev/null", "/proc/self/fd/1", "/dev/fd/2"):
        with pytest.raises(OutputError, match="is a device or a stream"):
            check_file(name)
    if os.access("/dev/shm", os.W_OK):
        check_file("/dev/shm/a file")


def test_links_are_followed_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "folder").symlink_to("there")
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("folder/plan.json")
    assert real_path(tmp_path / "one") == tmp_path.resolve() / "there" / "plan.json"
    write_text(tmp_path / "one", "{}")
    assert (tmp_path / "one").is_symlink()
    assert (tmp_path / "two").is_symlink()
    assert (tmp_path / "there" / "plan.json").read_text() == "{}"
    with pytest.raises(OutputError, match="would both write"):
        check_outputs([Output("-o", tmp_path / "one"), Output("-p", tmp_path / "two")], [])


def test_a_folder_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "cannot write" in said(Output("-o", Path("new.onnx")))
