"""Tables for a terminal of 80 columns; no colour when piped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_lowrank.measure.verification import VerifyReport
from onnx_lowrank.pipelines.result import CompressReport, CostReport, LayerInfo, inspected_cost
from onnx_lowrank.planning.cost import Cost
from onnx_lowrank.report.console import (
    new_table,
    print_groups,
    print_kept,
    print_scope,
    print_table,
    say,
    scope_of,
    short_bytes,
    short_count,
)
from onnx_lowrank.runtime.doctor import Diagnosis

# From here on float32 loses more than a part in a million to terms that cancel.
CANCELLING = 20.0


def print_layers(rows: Sequence[LayerInfo]) -> None:
    """Print shape, cost and share of every layer, then which schemes apply or why there is none."""
    scope = scope_of([row.layer.name for row in rows])
    report = inspected_cost(rows)
    total = report.known
    predicted = any(row.time_at_half is not None for row in rows)
    more = ("at half",) if predicted else ()
    table = new_table("layer", "weight", "stride", "MACs", "share", "params", *more)
    for row in rows:
        layer, conv = row.layer, row.layer.spec
        shape = layer.op if conv is None else f"{conv.in_channels}->{conv.out_channels}"
        if conv is not None and conv.kernel:
            shape += " " + "x".join(map(str, conv.kernel))
        if conv is not None and conv.group > 1:
            shape += f" /{conv.group}"
        share = f"{layer.macs / total.macs:.1%}" if layer.macs and total.macs else ""
        table.add_row(
            layer.name.removeprefix(scope),
            shape,
            "x".join(map(str, dict.fromkeys(conv.strides))) if conv is not None else "",
            short_count(layer.macs),
            share,
            short_count(layer.params),
            *([_optional(row.time_at_half)] if predicted else ()),
        )
    table.add_section()
    least = at_least(report)
    table.add_row(
        "all layers",
        "",
        "",
        least["macs"] + short_count(total.macs),
        "",
        least["params"] + short_count(total.params),
        *([""] if predicted else ()),
    )
    print_scope(scope)
    print_table(table)
    if predicted:
        say("at half: least time with about half of its MACs over its own, predicted here")
    print_groups(
        ((row.layer.name, row.reason or f"can take {', '.join(row.schemes)}") for row in rows),
        scope,
    )
    say(f"weights: {least['params']}{short_bytes(total.bytes)}, each stored tensor counted once")
    print_uncounted(report, scope)


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def print_cost(report: CostReport) -> None:
    """Print operations and parameters before and after, then what is kept."""
    scope = scope_of([cost.name for cost in report.layers])
    table = new_table("layer", "scheme", "MACs", "new", "", "params", "new", "")
    for cost in report.layers:
        if cost.scheme:
            table.add_row(cost.name.removeprefix(scope), cost.scheme, *_cost_cells(cost))
    table.add_section()
    least, total = at_least(report), report.known
    table.add_row("all layers", "", *_total_cells(report))
    print_scope(scope)
    print_table(table)
    say(
        f"weights: {least['params']}{short_bytes(total.bytes)} -> {short_bytes(total.bytes_new)}, "
        "each stored tensor counted once"
    )
    print_uncounted(report, scope)
    kept = ((d.layer, d.reason or "") for d in report.plan.decisions if d.scheme is None)
    print_kept(kept, scope)


def print_compress(report: CompressReport) -> None:
    """Print what was replaced, how well it fits, what is kept, and the comparison."""
    scope = scope_of([cost.name for cost in report.cost.layers])
    table = new_table("layer", "scheme", "MACs", "new", "", "start", "error", "s")
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
    table.add_row("all layers", "", *_total_cells(report.cost)[:3], "", "", "")
    print_scope(scope)
    print_table(table)
    say(
        f"{sizes_line(report)}; "
        "start, error: relative error before and after refinement, of the weights or, with "
        "calibration, of the output"
    )
    print_uncounted(report.cost, scope)
    print_kept(report.kept.items(), scope)
    for name, fit in report.fits.items():
        if (size := fit.cancellation) is not None and size > CANCELLING:
            say(
                f"{name.removeprefix(scope)}: its terms cancel, the largest is {size:.0f} times "
                "the weight; fewer terms (R, K) are safer"
            )
    for note in report.notes:
        say(note)
    if report.verification:
        print_verification(report.verification)
    print_seconds(report.seconds)


def print_seconds(seconds: Mapping[str, float]) -> None:
    """Print what the steps took, in one line; nothing where that is unknown."""
    if seconds:
        say("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))


def sizes_line(report: CompressReport) -> str:
    """Return parameters and sizes of the files before and after, in a clause."""
    total, least = report.cost.known, at_least(report.cost)["params"]
    line = f"parameters {least}{short_count(total.params)} -> {short_count(total.params_new)}"
    if report.file_bytes is None:
        return line
    before, after = report.file_bytes.before, report.file_bytes.after
    return f"{line}, file {short_bytes(before)} -> {short_bytes(after)}"


def at_least(report: CostReport) -> dict[str, str]:
    """Return the words in front of totals that leave layers out, by "macs" and "params"."""
    return {what: "at least " if names else "" for what, names in report.uncounted.items()}


def print_uncounted(report: CostReport, scope: str) -> None:
    """Print which layers totals leave out."""
    for what, key in (("multiply-adds", "macs"), ("parameters", "params")):
        names = [name.removeprefix(scope) for name in report.uncounted[key]]
        if names:
            say(f"not in the total of {what}, as theirs are unknown: {', '.join(names)}")


def print_verification(report: VerifyReport) -> None:
    """Print the comparison of two models, output by output, and the verdict."""
    for provider, result in report.results.items():
        table = new_table("output", "max abs", "RMS", "SQNR dB", "cosine")
        for output in result.outputs:
            table.add_row(
                output["name"],
                *(_number(output.get(key)) for key in ("max_abs", "rms", "sqnr_db", "cosine")),
            )
            for each in output.get("parts", ()):  # of different scales: the worst is the output's
                table.add_row(each["part"], "", "", _number(each["sqnr_db"]), "")
        print_table(table)
        facts = [f"{report.samples} samples on {provider.upper()}"]
        facts += [f"{k} agreement {v:.2%}" for k, v in result.agreement.items() if v is not None]
        if accuracy := result.accuracy:
            facts.append(f"accuracy {accuracy['original']:.2%} -> {accuracy['compressed']:.2%}")
        if score := result.score:
            facts.append(f"{score['name']} {score['original']:.5g} -> {score['compressed']:.5g}")
        say(", ".join(facts))
    for provider, reason in report.unchecked.items():
        say(f"{provider.upper()} not checked: {reason}")
    for line in (*report.notes, *(f"FAILED: {failure}" for failure in report.failures)):
        say(line)
    if report.passed:
        say("PASSED")


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print versions, providers, instruction sets, and what is missing."""
    facts = diagnosis.to_dict()
    del facts["version"]
    missing = facts.pop("missing")
    for key, value in facts.items():
        title = key.replace("_", " ")
        if isinstance(value, dict):
            say(f"{title}:")
            for name, item in value.items():
                say(f"  {name}: {_value(item)}")
        else:
            say(f"{title}: {_value(value)}")
    for item in missing:
        say(f"missing: {item['what']}; {item['remedy']}")


def _cost_cells(cost: Cost) -> tuple[str, str, str, str, str, str]:
    return (
        short_count(cost.macs),
        short_count(cost.macs_new),
        _times(cost.mac_reduction),
        short_count(cost.params),
        short_count(cost.params_new),
        _times(cost.param_reduction),
    )


def _total_cells(report: CostReport) -> tuple[str, str, str, str, str, str]:
    """Return the cells of a sum, with "at least" where it leaves layers out."""
    cells = _cost_cells(report.known)
    least = at_least(report)
    macs, params = least["macs"], least["params"]
    return (
        macs + cells[0],
        macs + cells[1],
        cells[2],
        params + cells[3],
        params + cells[4],
        cells[5],
    )


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _value(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value)) or "none"
    return str(value)
