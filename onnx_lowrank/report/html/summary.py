"""The figures of a run at the head of its chapter."""

from __future__ import annotations

from onnx_lowrank.report.console import short_bytes, short_count
from onnx_lowrank.report.html import measured, training
from onnx_lowrank.report.html.cells import (
    NOT_MEASURED,
    form,
    interval,
    inverse,
    percent,
    times,
    verdict,
)
from onnx_lowrank.report.html.content import Block, Facts
from onnx_lowrank.report.html.runs import Run


def summary(run: Run) -> list[Block]:
    """Return the figures of a run, each with what it is."""
    entries: list[tuple[str, str, str]] = []
    if run.kind == "search":
        entries.append(verdict(run.data["passed"], "the budget"))
        timed = run.data["search"]["latency"]
        there = run.data["latency_predicted_for"]
        how = "measured" if there is None else f"predicted for {there}"
        if timed["ratio"] is None:
            entries.append(("Speed", NOT_MEASURED, "the run did not come to it"))
        else:
            said = f"{how}; latency {interval(timed, ' to ')}"
            entries.append(("Speed", times(inverse(timed["ratio"])), said))
    elif run.verdict:
        entries.append(verdict(run.verdict["passed"], "tolerance"))
    if run.cost:
        total = run.cost["total"]
        for title, key in (("Multiply-adds", "mac"), ("Parameters", "param")):
            before, after = (short_count(total[f"{key}s{end}"]) for end in ("", "_new"))
            reduction = total[f"{key}_reduction"]
            out = (run.cost.get("uncounted") or {}).get(f"{key}s")
            left = f"; without {len(out)} of the layers, as theirs are unknown" if out else ""
            entries.append((title, f"{times(reduction)} fewer", f"{before} to {after}{left}"))
    size, new = run.data.get("file_bytes"), run.data.get("file_bytes_new")
    if size and new:
        said = f"{short_bytes(size)} to {short_bytes(new)}"
        entries.append(("File", f"{times(size / new)} smaller", said))
    if run.verdict:
        accuracy, samples = run.verdict["accuracy"], form(run.verdict["samples"], "{}")
        if accuracy:
            low, high = accuracy["drop_interval"]
            before, after = (percent(accuracy[key]) for key in ("original", "compressed"))
            confidence = percent(accuracy["confidence"], "{:.0f}")
            entries.append(
                (
                    "Accuracy lost",
                    form(accuracy["drop_points"], "{:.2f} points", NOT_MEASURED),
                    f"{before} % to {after} %; {confidence} % interval {form(low, '{:.2f}')} to "
                    f"{form(high, '{:.2f}')}",
                )
            )
        top1 = run.verdict["agreement"].get("top1")
        if top1 is not None:
            entries.append(("Same first class", f"{100 * top1:.2f} %", f"of {samples} samples"))
        known = [o["sqnr_db"] for o in run.verdict["outputs"] if o.get("sqnr_db") is not None]
        if known:
            entries.append(("Signal to error", f"{min(known):.1f} dB", f"{samples} samples"))
    if run.kind in ("bench", "profile"):
        entries += measured.summary(run)
    entries += training.summary(run)
    if run.kind == "inspect":
        layers = run.data["layers"]
        usable = sum(not layer["reason"] for layer in layers)
        entries.append(("Layers", str(len(layers)), f"{usable} can be approximated"))
        counts = [layer["macs"] for layer in layers if layer["macs"] is not None]
        if counts:
            entries.append(("Multiply-adds", short_count(sum(counts)), "of the layers known"))
        if stored := run.data.get("total"):
            count, size = short_count(stored["params"]), short_bytes(stored["bytes"])
            entries.append(("Parameters", count, f"{size}; each stored tensor counted once"))
    if run.kind == "estimate":
        seconds = form(run.data["seconds"], "{:.3g} s", NOT_MEASURED)
        entries.append(("Time of the original", seconds, "all else of it is predicted"))
    if run.kind == "sweep":
        images = run.data["held_out_images"]
        said = f"on {form(images, '{}')} held-out images"
        entries.append(("Points", str(len(run.data["points"])), said))
    if run.missing:
        entries.append(("Incomplete", NOT_MEASURED, f"{len(run.missing)} entries; see the notes"))
    kind = "" if run.kind == run.name else f" ({run.kind})"
    return [Facts(run.name + kind, tuple(entries))]
