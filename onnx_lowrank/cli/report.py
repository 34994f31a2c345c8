"""The command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnx_lowrank.cli.gate import Writes
from onnx_lowrank.cli.options import Json, Quiet
from onnx_lowrank.cli.output import print_result, show_progress
from onnx_lowrank.errors import DataError


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN.json...",
            help="What any other command but doctor printed with --json, or sweep wrote.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The HTML file to write.", show_default=False),
        Writes(),
    ],
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="MODEL", help="The original; adds its layers' spectra."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="DIR", help="Write the figures there, as PNG and SVG."),
        Writes(("*.png", "*.svg")),
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = (
        "Low-rank approximation: report"
    ),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one self-contained HTML file on any runs, to be opened in a browser or printed."""
    from onnx_lowrank.documents import document
    from onnx_lowrank.files import write_text
    from onnx_lowrank.report import html
    from onnx_lowrank.report.console import say
    from onnx_lowrank.report.html.figures import save
    from onnx_lowrank.report.html.page import require_libraries
    from onnx_lowrank.spectra import layer_spectra

    require_libraries()
    with show_progress(quiet=quiet) as progress:
        progress("reading the runs", 0, 3)
        read = [html.read_run(path) for path in runs]
        names = [run.name for run in read]
        if len(set(names)) < len(names):
            raise DataError("two runs have files of one name; rename one of them")
        progress("computing spectra", 1, 3)
        spectra = layer_spectra(model) if model else ()
        progress("drawing", 2, 3)
        chapters = html.sections(read, spectra, html.this_machine(read))
        write_text(output, html.render(title, chapters))
        if figures is not None:
            try:
                figures.mkdir(parents=True, exist_ok=True)
                for drawing in html.drawings(chapters):
                    save(drawing, figures)
            except OSError as error:
                raise DataError(f"cannot write figures to {figures}: {error}") from None
    written = {
        "output": str(output),
        "bytes": output.stat().st_size,
        "sections": [chapter.id for chapter in chapters],
        "figures": None if figures is None else str(figures),
    }
    print_result(
        lambda: document("report", written),
        lambda: say(f"wrote {output}"),
        as_json=as_json,
        quiet=quiet,
    )
