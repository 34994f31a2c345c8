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
    """Print shape, cost and share of every layer, then which schemes apply or why there is none."""
    scope = _common_scope([row.layer.name for row in rows])
    known = [row.layer.spec.macs for row in rows if row.layer.spec and row.layer.spec.macs]
    total = sum(known)
    table = _table("layer", "weight", "stride", "MACs", "share", "params")
    for row in rows:
        conv = row.layer.spec
        if conv is None:
            table.add_row(row.layer.name.removeprefix(scope), "", "", "", "", "")
            continue
        shape = f"{conv.in_channels}->{conv.out_channels}"
        if conv.kernel:
            shape += " " + "x".join(map(str, conv.kernel))
        if conv.group > 1:
            shape += f" /{conv.group}"
        table.add_row(
            row.layer.name.removeprefix(scope),
            shape,
            "x".join(map(str, dict.fromkeys(conv.strides))),
            _count(conv.macs),
            f"{conv.macs / total:.1%}" if conv.macs else "",
            _count(conv.params),
        )
    _print_scope(scope)
    _print(table)
    _print_groups(
        ((row.layer.name, row.reason or f"can take {', '.join(row.schemes)}") for row in rows),
        scope,
    )


def print_cost(report: CostReport) -> None:
    """Print operations and parameters before and after, then what is kept."""
    scope = _common_scope([cost.name for cost in report.layers])
    table = _table("layer", "scheme", "MACs", "new", "", "params", "new", "")
    for cost in report.layers:
        if cost.scheme:
            table.add_row(cost.name.removeprefix(scope), cost.scheme, *_cost_cells(cost))
    table.add_section()
    table.add_row("all layers", "", *_cost_cells(report.total))
    _print_scope(scope)
    _print(table)
    kept = ((d.layer, d.reason or "") for d in report.plan.decisions if d.scheme is None)
    _print_kept(kept, scope)


def print_compress(report: CompressReport) -> None:
    """Print what was replaced, how well it fits, what is kept, and the comparison."""
    scope = _common_scope([cost.name for cost in report.cost.layers])
    table = _table("layer", "scheme", "MACs", "new", "", "start", "error", "s")
    for cost in report.cost.layers:
        if fit := report.fits.get(cost.name):
            table.add_row(
                cost.name.removeprefix(scope),
                cost.scheme,
                *_cost_cells(cost)[:3],
                f"{fit.start_error:.3f}",
                f"{fit.error:.3f}",
                f"{fit.seconds:.1f}",
            )
    table.add_section()
    total = report.cost.total
    table.add_row("all layers", "", *_cost_cells(total)[:3], "", "", "")
    _print_scope(scope)
    _print(table)
    print(
        f"parameters {_count(total.params)} -> {_count(total.params_new)}; "
        "start, error: relative error of the weights before and after refinement"
    )
    _print_kept(report.kept.items(), scope)
    if report.verification:
        print_verification(report.verification)


def print_verification(report: VerifyReport) -> None:
    """Print the comparison of two models, output by output, and the verdict."""
    for provider, result in report.results.items():
        table = _table("output", "max abs", "RMS", "SQNR dB", "cosine")
        for output in result.outputs:
            table.add_row(
                output["name"],
                *(_number(output.get(key)) for key in ("max_abs", "rms", "sqnr_db", "cosine")),
            )
        _print(table)
        facts = [f"{report.samples} samples on {provider.upper()}"]
        facts += [f"{k} agreement {v:.2%}" for k, v in result.agreement.items() if v is not None]
        if accuracy := result.accuracy:
            facts.append(f"accuracy {accuracy['original']:.2%} -> {accuracy['compressed']:.2%}")
        print(", ".join(facts))
    for provider, reason in report.unchecked.items():
        print(f"{provider.upper()} not checked: {reason}")
    for line in (*report.notes, *(f"FAILED: {failure}" for failure in report.failures)):
        print(line)
    if report.passed:
        print("PASSED")


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print versions, providers, instruction sets, and what is missing."""
    facts = diagnosis.to_dict()
    del facts["version"]
    missing = facts.pop("missing")
    for key, value in facts.items():
        title = key.replace("_", " ")
        if isinstance(value, dict):
            print(f"{title}:")
            for name, item in value.items():
                print(f"  {name}: {_value(item)}")
        else:
            print(f"{title}: {_value(value)}")
    for item in missing:
        print(f"missing: {item['what']}; {item['remedy']}")


def _common_scope(names: Sequence[str]) -> str:
    """Return the scope that all names share, with its last slash; it is printed once."""
    first, *rest = names or [""]
    scope = first
    while scope and not all(name.startswith(scope) for name in rest):
        scope = scope[:-1]
    return scope[: scope.rfind("/") + 1]


def _print_groups(facts: Iterable[tuple[str, str]], scope: str) -> None:
    """Print what is said of layers; those of which the same is said share a line."""
    by_fact: dict[str, list[str]] = {}
    for name, fact in facts:
        by_fact.setdefault(fact, []).append(name.removeprefix(scope))
    for fact, names in by_fact.items():
        print(f"{', '.join(names)}: {fact}")


def _print_scope(scope: str) -> None:
    if scope:
        print(f"in {scope}")


def _print_kept(kept: Iterable[tuple[str, str]], scope: str) -> None:
    _print_groups(((name, f"kept: {reason}") for name, reason in kept), scope)


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
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return str(value)
