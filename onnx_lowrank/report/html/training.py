"""The parts of a report that come from `finetune`, `cascade` and `correct`."""

from __future__ import annotations

from typing import Any

from onnx_lowrank.report.console import short_count
from onnx_lowrank.report.html.cells import ABSENT, NOT_MEASURED, form, percent
from onnx_lowrank.report.html.content import Block, Table
from onnx_lowrank.report.html.runs import Run


def summary(run: Run) -> list[tuple[str, str, str]]:
    """Return what is to be read at a glance of a training or a correction."""
    if run.kind == "finetune":
        history, best = run.data["history"], run.data["best"]
        entries = _gain(history[0] if history else None, best)
        said = f"{form(run.data['steps'], '{}')} steps; {run.data['stopped']}"
        return [*entries, ("Weights trained", str(len(run.data["trained"])), said)]
    if run.kind == "cascade":
        stages = run.data["stages"]
        entries = [("Layers replaced", str(len(stages)), "one after the other")]
        if run.data["macs"] is not None:
            counts = [short_count(run.data[key]) for key in ("macs", "macs_new")]
            entries.append(("Multiply-adds", counts[1], f"of {counts[0]}"))
        return [*entries, *(_gain(stages[-1]["fitted"], stages[-1]["tuned"]) if stages else [])]
    if run.kind == "correct":
        changed = sum(each["reason"] is None for each in run.data["corrections"])
        return [("Corrected", str(changed), f"of {len(run.data['corrections'])} tensors")]
    return []


def _gain(before: dict[str, Any] | None, after: dict[str, Any]) -> list[tuple[str, str, str]]:
    said = NOT_MEASURED if before is None else _loss(before)
    entries = [("Validation loss", _loss(after), f"{said} before training")]
    for key, title in (("accuracy", "Accuracy"), ("agreement", "Same first class")):
        if after[key] is not None:
            share = ABSENT if before is None else percent(before[key])
            entries.append((title, f"{percent(after[key])} %", f"{share} % before"))
    return entries


def training(run: Run) -> list[Block]:
    """Return the epochs of a fine-tuning, the stages of a cascade, or all corrections."""
    if run.kind == "finetune":
        rows = [
            (str(epoch), _loss(s), percent(s["accuracy"]), percent(s["agreement"]))
            for epoch, s in enumerate(run.data["history"])
        ]
        columns = ("epoch", "validation loss", "accuracy, %", "as the original, %")
        return [Table(f"{run.name}: epochs", columns, tuple(rows), text=())]
    if run.kind == "cascade":
        stages = [
            (
                each["layer"],
                each["scheme"],
                *(_loss(each[when]) for when in ("fitted", "tuned")),
                *(percent(each[when]["accuracy"]) for when in ("fitted", "tuned")),
                *(percent(each[when]["agreement"]) for when in ("fitted", "tuned")),
            )
            for each in run.data["stages"]
        ]
        names = ("validation loss", "accuracy, %", "as the original, %")
        pairs = tuple(text for name in names for text in (name, "trained"))
        return [
            Table(f"{run.name}: stages", ("layer", "scheme", *pairs), tuple(stages), text=(0, 1))
        ]
    if run.kind == "correct":
        found = [
            (
                each["tensor"],
                form(each["shift"], "{:.3g}"),
                form(each["scale"], "{:.3g}"),
                each["reason"] or "",
            )
            for each in run.data["corrections"]
        ]
        columns = ("tensor", "shift of means, deviations", "log of factors", "why it stayed")
        return [Table(f"{run.name}: corrections", columns, tuple(found), text=(0, 3))]
    return []


def _loss(score: dict[str, Any]) -> str:
    return "not finite" if score["loss"] is None else f"{score['loss']:.4g}"
