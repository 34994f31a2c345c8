"""Tables for a terminal of 80 columns; no colour when piped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from onnx_lowrank.planning.cost import Cost
from onnx_lowrank.results import CompressReport, CostReport, LayerInfo
from onnx_lowrank.runtime.doctor import Diagnosis
from onnx_lowrank.verification import VerifyReport


def print_layers(rows: Sequence[LayerInfo]) -> None:
    """Print one line per layer: shape, cost, share, and the schemes that apply or why there is none."""
    known = [row.layer.spec.macs for row in rows if row.layer.spec and row.layer.spec.macs]
    total = sum(known)
    table = _table("layer", "weight", "stride", "MACs", "share", "params", "schemes or why none")
    for row in rows:
        conv = row.layer.spec
        if conv is None:
            table.add_row(row.layer.name, "", "", "", "", "", row.reason)
            continue
        shape = f"{conv.in_channels}->{conv.out_channels}"
        if conv.kernel:
            shape += " " + "x".join(map(str, conv.kernel))
        if conv.group > 1:
            shape += f" /{conv.group}"
        table.add_row(
            row.layer.name,
            shape,
            "x".join(map(str, dict.fromkeys(conv.strides))),
            _count(conv.macs),
            f"{conv.macs / total:.1%}" if conv.macs else "",
            _count(conv.params),
            row.reason or ", ".join(row.schemes),
        )
    _print(table)


def print_cost(report: CostReport) -> None:
    """Print operations and parameters before and after, per replaced layer and in all; then what is kept."""
    table = _table("layer", "scheme", "MACs", "new", "", "params", "new", "")
    for cost in report.layers:
        if cost.scheme:
            table.add_row(cost.name, cost.scheme, *_cost_cells(cost))
    table.add_section()
    table.add_row("all layers", "", *_cost_cells(report.total))
    _print(table)
    _print_kept((d.layer, d.reason or "") for d in report.plan.decisions if d.scheme is None)


def print_compress(report: CompressReport) -> None:
    """Print what was replaced, how well it fits, what is kept, and the comparison."""
    table = _table("layer", "scheme", "MACs", "new", "", "start", "error", "s")
    for cost in report.cost.layers:
        if fit := report.fits.get(cost.name):
            table.add_row(
                cost.name,
                cost.scheme,
                *_cost_cells(cost)[:3],
                f"{fit.start_error:.3f}",
                f"{fit.error:.3f}",
                f"{fit.seconds:.1f}",
            )
    table.add_section()
    total = report.cost.total
    table.add_row("all layers", "", *_cost_cells(total)[:3], "", "", "")
    _print(table)
    print(
        f"parameters {_count(total.params)} -> {_count(total.params_new)}; "
        "start, error: relative error of the weights before and after refinement"
    )
    _print_kept(report.kept.items())
    if report.verification:
        print_verification(report.verification)


def print_verification(report: VerifyReport) -> None:
    """Print the comparison of two models, output by output, and the verdict."""
    data = report.to_dict()
    table = _table("output", "max abs", "RMS", "SQNR dB", "cosine")
    for output in data["outputs"]:
        table.add_row(
            output["name"],
            *(_number(output[key]) for key in ("max_abs", "rms", "sqnr_db", "cosine")),
        )
    _print(table)
    for title in ("agreement", "accuracy", "providers"):
        if values := {k: v for k, v in (data[title] or {}).items() if v is not None}:
            print(f"{title}: " + ", ".join(f"{k} {_value(v)}" for k, v in values.items()))
    print(f"samples: {data['samples']}")
    for failure in report.failures:
        print(f"FAILED: {failure}")
    if report.passed:
        print("PASSED")


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print versions, providers, instruction sets, and what is missing."""
    for key, value in diagnosis.to_dict().items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, item in value.items():
                print(f"  {name}: {_value(item)}")
        else:
            print(f"{key}: {_value(value)}")


def _print_kept(kept: Iterable[tuple[str, str]]) -> None:
    """Print kept layers; those with one reason share a line."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in kept:
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        print(f"kept {', '.join(names)}: {reason}")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        text = index == 0 or column.startswith(("scheme", "weight"))
        table.add_column(column, justify="left" if text else "right", overflow="fold")
    return table


def _print(table: Table) -> None:
    console = Console()
    # A pipe has no width of its own; nothing is cut off for a reader that is a program.
    console.print(table, width=console.width if console.is_terminal else 200)


def _cost_cells(cost: Cost) -> tuple[str, str, str, str, str, str]:
    return (
        _count(cost.macs),
        _count(cost.macs_new),
        _times(cost.mac_reduction),
        _count(cost.params),
        _count(cost.params_new),
        _times(cost.param_reduction),
    )


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def _count(value: int | None) -> str:
    """Format a count with three digits and a unit."""
    if value is None:
        return "?"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items())
    return str(value)
