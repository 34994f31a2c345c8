"""The chapters of a report, from the runs that it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from onnx_lowrank.report.console import short_bytes, short_count
from onnx_lowrank.report.html import figures, measured, training
from onnx_lowrank.report.html.cells import (
    NOT_MEASURED,
    form,
    interval,
    percent,
    times,
    yes,
)
from onnx_lowrank.report.html.content import Block, Drawing, Notes, Section, Table
from onnx_lowrank.report.html.predicted import predicted
from onnx_lowrank.report.html.runs import Run
from onnx_lowrank.report.html.spectrum import spectra_section
from onnx_lowrank.report.html.summary import summary
from onnx_lowrank.runtime.machine import describe_machine
from onnx_lowrank.spectra import Spectrum

MAX_BARS = 40
_MAX_MISSING = 40


def sections(
    runs: Sequence[Run], spectra: Sequence[Spectrum] = (), machine: dict[str, Any] | None = None
) -> tuple[Section, ...]:
    """Return the chapters for which the runs have something to show, in the order of reading.

    Parameters
    ----------
    runs : sequence of Run
        What commands printed.
    spectra : sequence of Spectrum
        Of the original model's layers; empty where it is not at hand.
    machine : dict, optional
        The machine that writes the report, for runs that do not name theirs.
    """
    found: tuple[tuple[str, str, str, list[Block]], ...] = (
        ("summary", "Summary", "", _each(runs, summary)),
        (
            "frontier",
            "Accuracy and latency",
            "Whole models that the search measured on its way. Latencies of the points are sums "
            "over layers; that of the chosen one is of the whole model.",
            _each(runs, _frontier),
        ),
        ("predicted", "What may be gained", "", _each(runs, predicted)),
        ("latency", "Latency of whole models", "", _each(runs, measured.bench)),
        (
            "layers",
            "Layers before and after",
            "",
            [*_each(runs, _operations), *_each(runs, measured.profile)],
        ),
        ("plan", "Plan", "What was done to each layer.", _each(runs, _plan)),
        spectra_section(spectra, [run.cost for run in runs if run.cost]),
        (
            "errors",
            "Errors of the outputs",
            "Of the rewritten model against the original, in onnxruntime.",
            _each(runs, _errors),
        ),
        ("training", "Training and correction", "", _each(runs, training.training)),
        ("sweep", "Sweep", "", _each(runs, measured.sweep)),
        ("notes", "Notes", "", _each(runs, _notes)),
        ("environment", "Environment", "", measured.environment(runs, machine)),
    )
    return tuple(
        Section(id, title, intro, tuple(blocks)) for id, title, intro, blocks in found if blocks
    )


def drawings(chapters: Iterable[Section]) -> tuple[Drawing, ...]:
    """Return all figures of a report."""
    return tuple(
        block for chapter in chapters for block in chapter.blocks if isinstance(block, Drawing)
    )


def this_machine(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Return the machine that writes the report, where a run does not name its own."""
    named = ("machine" in run.data and "machine" not in run.missing for run in runs)
    return None if all(named) else describe_machine()


def _each(runs: Iterable[Run], make: Any) -> list[Block]:
    return [block for run in runs for block in make(run)]


def _frontier(run: Run) -> list[Block]:
    if run.kind != "search":
        return []
    search = run.data["search"]
    explored, quality = search["explored"], search["quality"]
    drops = quality["drop"] is not None
    loss = "points of accuracy lost" if drops else "noise of the outputs, share of the signal"
    key = "drop" if drops else "noise"
    points = [
        (e["predicted_ratio"], e[key], bool(e["passed"]))
        for e in explored
        if None not in (e["predicted_ratio"], e[key])
    ]
    at = (search["latency"]["ratio"], quality[key])
    chosen = None if None in at else at
    alt = f"Scatter of {len(points)} models: {loss} against latency over the original's. " + (
        f"The chosen one is at {chosen[0]:.3f} of the latency and {chosen[1]:.3g}."
        if chosen
        else "None was chosen."
    )
    rows = [
        (
            str(index),
            form(e["predicted_ratio"], "{:.3f}"),
            form(e["drop"], "{:.2f}"),
            form(e["sqnr_db"], "{:.1f}"),
            form(e["samples"], "{}"),
            yes(e["passed"]),
        )
        for index, e in enumerate(explored, 1)
    ]
    columns = (
        *("model", "latency, predicted", "points lost", "SQNR, dB", "samples"),
        "within the bounds",
    )
    if not rows and chosen is None:
        return [Notes(f"{run.name}: models explored", ("Not measured: no model was measured.",))]
    return [
        Drawing(
            run.slug("frontier"),
            f"{run.name}: what is lost, against latency",
            alt,
            lambda: figures.draw_frontier(points, chosen, loss),
        ),
        Table(f"{run.name}: models explored", columns, tuple(rows), text=(5, 6)),
    ]


def _operations(run: Run) -> list[Block]:
    if run.kind == "inspect":
        return _inspected(run)
    if run.cost is None:
        return []
    known = [
        layer for layer in run.cost["layers"] if None not in (layer["macs"], layer["macs_new"])
    ]
    blocks: list[Block] = []
    if known:
        shown = sorted(known, key=lambda layer: -layer["macs"])[:MAX_BARS]
        shown = [layer for layer in known if layer in shown]  # in graph order
        left = f"; the {MAX_BARS} largest of {len(known)}" if len(known) > MAX_BARS else ""
        names = [layer["name"] for layer in shown]
        series = [
            ("before", [layer["macs"] / 1e6 for layer in shown]),
            ("after", [layer["macs_new"] / 1e6 for layer in shown]),
        ]
        blocks.append(
            Drawing(
                run.slug("macs"),
                f"{run.name}: multiply-adds of the layers{left}",
                f"Bars of {len(names)} layers before and after; the figures are in the table.",
                lambda: figures.draw_bars(names, series, "multiply-adds, millions"),
            )
        )
    rows = [
        (
            layer["name"],
            layer["scheme"] or "kept",
            short_count(layer["macs"]),
            short_count(layer["macs_new"]),
            times(layer["mac_reduction"]),
            short_count(layer["params"]),
            short_count(layer["params_new"]),
            short_bytes(layer.get("bytes")),
            short_bytes(layer.get("bytes_new")),
        )
        for layer in (*run.cost["layers"], run.cost["total"])
    ]
    rows[-1] = (rows[-1][0], "", *rows[-1][2:])
    counts = ("MACs", "MACs after", "fewer", "weights", "weights after")
    columns = ("layer", "scheme", *counts, "bytes", "bytes after")
    caption = f"{run.name}: operations and parameters"
    return [*blocks, Table(caption, columns, tuple(rows), text=(0, 1))]


def _inspected(run: Run) -> list[Block]:
    rows = tuple(
        (
            layer["name"],
            layer["op"],
            ", ".join(layer["schemes"]) or layer["reason"] or "",
            "×".join(map(str, layer["kernel_shape"] or ())),
            short_count(layer["macs"]),
            short_count(layer["params"]),
        )
        for layer in run.data["layers"]
    )
    columns = ("layer", "op", "schemes, or why none", "kernel", "MACs", "weights")
    return [Table(f"{run.name}: layers", columns, rows, text=(0, 1, 2))]


def _plan(run: Run) -> list[Block]:
    if run.compression is None:
        return []
    fits = {fit["name"]: fit for fit in run.compression["fits"]}
    kept = {each["name"]: each["reason"] for each in run.compression["kept"]}
    search = run.compression.get("search")
    timed = {each["name"]: each for each in search["layers"]} if search else {}
    rows: list[tuple[str, ...]] = []
    for layer in run.compression["cost"]["layers"]:
        name = layer["name"]
        fit, ratio = fits.get(name), timed.get(name)
        latency = interval(ratio) if ratio else ""
        rows.append(
            (
                name,
                layer["scheme"] or f"kept: {kept.get(name, '')}",
                fit["metric"] if fit else "",
                percent(fit["error"]) if fit else "",
                *((latency,) if timed else ()),
            )
        )
    columns = ("layer", "scheme", "metric", "error of the fit, %")
    after = ("latency over the layer's",) if timed else ()
    return [Table(f"{run.name}: the plan", (*columns, *after), tuple(rows), text=(0, 1, 2))]


def _errors(run: Run) -> list[Block]:
    if run.verdict is None:
        return []
    rows = []
    for provider, result in run.verdict["providers"].items():
        for output in result.get("outputs", ()):
            cells = ((output.get(k), template) for k, template in _ERRORS.values())
            values = tuple(form(value, template) for value, template in cells)
            rows.append((output["name"], provider.upper(), *values))
            for each in output.get("parts", ()):  # of different scales: the worst is the output's
                only = (form(each["sqnr_db"], t) if key == "sqnr_db" else "" for key, t in _CELLS)
                rows.append((each["part"], provider.upper(), *only))
    unchecked = tuple(
        f"{provider.upper()} was not checked: {result.get('reason', NOT_MEASURED)}."
        for provider, result in run.verdict["providers"].items()
        if not result["checked"]
    )
    if not rows and not unchecked:
        unchecked = ("Not measured: there is no output of any provider.",)
    blocks: list[Block] = [
        Table(
            f"{run.name}: errors over {form(run.verdict['samples'], '{}')} samples",
            ("output", "provider", *_ERRORS),
            tuple(rows),
            text=(0, 1),
        )
    ]
    return [*blocks, Notes(f"{run.name}: not checked", unchecked)] if unchecked else blocks


_ERRORS = {
    "largest": ("max_abs", "{:.3g}"),
    "RMS": ("rms", "{:.3g}"),
    "SQNR, dB": ("sqnr_db", "{:.1f}"),
    "cosine": ("cosine", "{:.6f}"),
    "equal": ("equal", "{:.2%}"),
}
_CELLS = tuple(_ERRORS.values())


def _notes(run: Run) -> list[Block]:
    groups = [
        ("missed", run.data.get("failures", ())),
        ("notes", run.data.get("notes", ())),
    ]
    if run.compression:
        verdict = run.verdict or {}
        said = run.data.get("failures", ())  # those of a search, the comparison's among them
        missed = [each for each in verdict.get("failures", ()) if each not in said]
        groups += [
            ("missed by the comparison", missed),
            ("notes on the comparison", verdict.get("notes", ())),
            ("changes", run.data["changes"]),
            ("left alone", [f"{each['name']}: {each['reason']}" for each in run.data["refusals"]]),
        ]
    if run.kind in ("bench", "profile"):
        groups.append(("signs of other work on the machine", measured.noise(run)))
    if run.kind == "sweep":
        groups.append(("skipped", [measured.skipped(each) for each in run.data["skipped"]]))
    if run.missing:
        shown = [f"{place} is not measured" for place in run.missing[:_MAX_MISSING]]
        left = len(run.missing) - len(shown)
        groups.append(("an incomplete run", [*shown, *([f"and {left} more"] if left else [])]))
    return [Notes(f"{run.name}: {what}", tuple(said)) for what, said in groups if said]
