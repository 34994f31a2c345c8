"""One self-contained HTML file on any runs, and its figures as files."""

from __future__ import annotations

from onnx_lowrank.report.html.page import render
from onnx_lowrank.report.html.runs import Run, read_run
from onnx_lowrank.report.html.sections import drawings, sections, this_machine

__all__ = ["Run", "drawings", "read_run", "render", "sections", "this_machine"]
