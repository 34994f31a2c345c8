"""The page on runs of every kind: what it holds, that texts are escaped, nothing is fetched."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnx_lowrank.errors import DataError
from onnx_lowrank.report import html as report
from onnx_lowrank.report.html.figures import save, to_svg
from onnx_lowrank.spectra import layer_spectra

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
MAX_BYTES = 3_000_000


class Reader(html.parser.HTMLParser):
    """Collects tags, identifiers, references and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.targets.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def page(paths: list[Path], network: Path | None = None) -> str:
    runs = [report.read_run(path) for path in paths]
    spectra = layer_spectra(network) if network else ()
    chapters = report.sections(runs, spectra, report.this_machine(runs))
    return report.render("A title", chapters)


def test_every_kind_is_recognised(runs: dict[str, Path]) -> None:
    assert {kind: report.read_run(path).kind for kind, path in runs.items()} == {k: k for k in runs}


def test_a_page_on_everything_is_complete_and_small(runs: dict[str, Path], network: Path) -> None:
    text = page(list(runs.values()), network)
    found = Reader(text)
    for section in (
        *("summary", "frontier", "latency", "layers", "plan", "spectra", "errors", "sweep"),
        *("notes", "environment"),
    ):
        assert section in found.ids
        assert f"#{section}" in found.targets
    assert len(set(found.ids)) == len(found.ids)
    assert all(target[1:] in found.ids for target in found.targets if target.startswith("#"))
    # All else that is referred to is in the file.
    assert all(target.startswith(("#", "data:")) for target in found.targets)
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(text.encode()) < MAX_BYTES


def test_names_of_layers_are_texts(runs: dict[str, Path], network: Path) -> None:
    text = page([runs["compress"], runs["profile"]], network)
    found = Reader(text)
    assert "script" not in found.tags
    assert "<script>console.error('run')</script>$\\frac$" in found.text


@pytest.mark.parametrize("kind", ["search", "compress", "bench", "profile", "verify", "cost"])
def test_figures_on_the_page_are_those_of_the_run(kind: str, runs: dict[str, Path]) -> None:
    data = json.loads(runs[kind].read_text())
    text = Reader(page([runs[kind]])).text
    if "cost" in data or kind == "cost":
        total = data.get("cost", data)["total"]
        assert f"{total['mac_reduction']:.3g} × fewer" in text
    if kind == "search":
        assert f"{data['search']['latency']['ratio']:.3f}" in text
        assert all(layer["scheme"] in text for layer in data["search"]["layers"])
    if kind == "bench":
        ratio = data["settings"][0]["contenders"][1]["ratio"]
        assert f"{ratio['ratio']:.3f} ({ratio['low']:.3f}–{ratio['high']:.3f})" in text
        assert data["machine"]["cpu"] in text
    if kind == "profile":
        for row in data["model"]["rows"]:
            assert f"{row['mean_ms']:.3f} ± {row['sd_ms']:.3f}" in text
    if kind == "verify":
        assert f"{data['outputs'][0]['cosine']:.6f}" in text


def test_figures_as_files_are_the_same_each_time(runs: dict[str, Path], tmp_path: Path) -> None:
    chapters = report.sections([report.read_run(runs["compress"])])
    (drawing,) = report.drawings(chapters)
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(drawing, tmp_path / name)
        written.append(
            [(tmp_path / name / f"{drawing.name}.{e}").read_bytes() for e in ("svg", "png")]
        )
    assert written[0] == written[1]
    assert written[0][1].startswith(b"\x89PNG")
    svg = to_svg(drawing)
    assert "var(--series-0)" in svg
    assert "#0b63b5" not in svg


def test_labels_of_figures_are_no_formulas(runs: dict[str, Path], network: Path) -> None:
    chapters = report.sections([report.read_run(runs["sweep"])], layer_spectra(network))
    text = "".join(map(to_svg, report.drawings(chapters)))
    assert "mathdefault" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read the run"),
        ("[]", "is not the JSON of"),
        ('{"version": 1, "layers": [{"name": "a"}]}', "is not the JSON of"),
        ('{"kind": "doctor", "version": 1}', "is not the JSON of"),
        ('{"kind": "inspect", "version": 9, "layers": []}', "has version 9, not 1"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        report.read_run(path)


def test_the_command_writes_page_and_figures(
    runs: dict[str, Path], network: Path, printed: Callable[..., str]
) -> None:
    folder = runs["compress"].parent
    target, figures = folder / "report.html", folder / "figures"
    out = printed(
        *("report", runs["compress"], "-o", target, "--model", network, "--figures", figures)
    )
    assert out == f"wrote {target}\n"
    assert target.read_text().startswith("<!DOCTYPE html>")
    names = {path.name for path in figures.iterdir()}
    assert names == {
        f"{n}.{e}"
        for n in ("compress-macs", "spectrum-1", "spectrum-2", "spectrum-3")
        for e in ("png", "svg")
    }


def test_spectra_are_those_of_the_unfoldings() -> None:
    from onnx_lowrank.spectra import ranks_for, unfolding_spectra

    rng = np.random.default_rng(0)
    weight = np.einsum("fr,crhw->fchw", rng.standard_normal((8, 3)), rng.random((5, 3, 3, 1)))
    found = unfolding_spectra(weight)
    assert list(found) == ["outputs", "inputs", "kernel 1"]  # the last mode has size 1
    for axis, values in enumerate(found.values()):
        flat = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        exact = np.linalg.svd(flat, compute_uv=False)
        # Roots of eigenvalues: their error is the root of float64's eps, times a few.
        np.testing.assert_allclose(values[: len(exact)], exact, atol=1e-7 * exact[0])
    assert ranks_for(found["outputs"], 1 - 1e-12) == 3
    assert list(unfolding_spectra(rng.random((4, 6)))) == ["outputs"]


def test_a_machine_is_described_once(runs: dict[str, Path]) -> None:
    kinds = ["compress", "verify", "profile", "bench", "sweep", "search"]
    text = Reader(page([runs[kind] for kind in kinds])).text
    assert text.count(f"{', '.join(kinds)}: measured on") == 1
    assert text.count("measured on\n") == 1
    threads = "threads: compress: default; verify: default; profile: 1; bench: 1; sweep: default"
    assert f"{threads}; search: 1" in text


def test_the_sizes_of_both_files_are_shown(runs: dict[str, Path]) -> None:
    for kind in ("compress", "search"):
        data = json.loads(runs[kind].read_text())
        data["file_bytes"], data["file_bytes_new"] = 4_560_000, 1_000_000
        data["cost"]["uncounted"]["macs"] = ["lost"]
        path = runs[kind].with_name(f"sized-{kind}.json")
        path.write_text(json.dumps(data))
        text = Reader(page([path])).text
        assert "4.56 MB to 1 MB" in text
        assert "4.56 × smaller" in text
        assert "without 1 of the layers, as theirs are unknown" in text
        # Runs of before these figures were there are read as they were.
        del data["file_bytes"], data["file_bytes_new"], data["cost"]["uncounted"]
        path.write_text(json.dumps(data))
        assert "smaller" not in Reader(page([path])).text


def test_what_a_search_misses_is_said_once(runs: dict[str, Path], tmp_path: Path) -> None:
    data = json.loads(runs["search"].read_text())
    data["passed"], data["failures"] = False, ["CPU: too noisy", "it is not faster"]
    verdict = json.loads(runs["compress"].read_text())["verification"]
    data["verification"] = {**verdict, "failures": ["CPU: too noisy"]}
    path = tmp_path / "search.json"
    path.write_text(json.dumps(data))
    text = Reader(page([path])).text
    assert text.count("CPU: too noisy") == 1
    assert text.count("it is not faster") == 1


def test_an_axis_of_less_than_a_power_of_ten_has_numbers() -> None:
    from onnx_lowrank.report.html.content import Drawing
    from onnx_lowrank.report.html.figures import draw_sweep

    lines = [("mono", [(2.0, 23.0), (4.0, 41.0)])]
    svg = to_svg(Drawing("a", "b", "c", lambda: draw_sweep(lines)))
    numbers = [float(n) for n in re.findall(r">([\d.]+)</text>", svg)]
    assert sum(20 < number < 50 for number in numbers) >= 2  # of the errors; the others are 2 to 4
