"""What a search found, as tables on the terminal."""

from __future__ import annotations

from onnx_lowrank.pipelines.budget_result import BudgetResult
from onnx_lowrank.report.console import (
    new_table,
    print_kept,
    print_scope,
    print_table,
    say,
    scope_of,
    short_count,
)
from onnx_lowrank.report.tables import (
    at_least,
    print_seconds,
    print_uncounted,
    print_verification,
    sizes_line,
)

_QUANTITIES = {
    "accuracy": "points of accuracy lost",
    "agreement": "points of top-1 agreement lost",
    "score": "lost of the score",
    "sqnr_db": "SQNR in dB",
}


def print_search(result: BudgetResult) -> None:
    """Print the plan, the models tried on the way, the speed, and the verdict."""
    report, search = result.compressed.report, result.search
    scope = scope_of([cost.name for cost in report.cost.layers])
    costs = {cost.name: cost for cost in report.cost.layers}
    table = new_table("layer", "scheme", "MACs", "new", "error", "time", "99% interval")
    for layer in search.layers:
        cost = costs[layer.name]
        table.add_row(
            layer.name.removeprefix(scope),
            layer.scheme,
            short_count(cost.macs),
            short_count(cost.macs_new),
            f"{layer.error:.3f}",
            f"{layer.ratio:.3f}",
            f"{layer.low:.3f} .. {layer.high:.3f}",
        )
    print_scope(scope)
    print_table(table)
    print_kept(report.kept.items(), scope)
    if search.explored:
        say("models measured on the way, on the samples of the search:")
        tried = new_table("time predicted", "noise", "measured", "SQNR dB", "points lost", "")
        for each in search.explored:
            quality = each.quality
            tried.add_row(
                f"{each.predicted_ratio:.3f}",
                f"{each.predicted_noise:.4f}",
                f"{quality.noise:.4f}",
                f"{quality.sqnr_db:.2f}",
                "-" if quality.drop is None else f"{quality.drop:.2f}",
                "within" if each.passed else "beyond",
            )
        print_table(tried)
    total, speed = report.cost.known, search.latency
    say(
        f"multiply-adds {at_least(report.cost)['macs']}{short_count(total.macs)} -> "
        f"{short_count(total.macs_new)}, {sizes_line(report)}"
    )
    print_uncounted(report.cost, scope)
    if result.predicted_for is None:
        say(
            f"time {speed.ratio:.3f} of the original's (99% interval {speed.low:.3f} .. "
            f"{speed.high:.3f}; predicted {search.predicted_ratio:.3f})"
        )
    else:
        say(
            f"time {speed.ratio:.3f} of the original's ({speed.low:.3f} .. {speed.high:.3f}), "
            f"predicted for {result.predicted_for}; not measured here"
        )
    for note in report.notes:
        say(note)
    if report.verification:
        say("verdict, on samples that the search did not see:")
        print_verification(report.verification)
    if (expected := result.expected) is not None and (measured := result.measured) is not None:
        say(
            f"{_QUANTITIES[expected.quantity]}: {measured:.4g}, expected {expected.low:.4g} .. "
            f"{expected.high:.4g} ({expected.confidence:.0%} interval from the samples of the "
            f"search, which gave {expected.value:.4g}): "
            f"{'within' if result.as_expected else 'OUTSIDE'}"
        )
    print_seconds(report.seconds)
    said = report.verification.failures if report.verification else ()
    for failure in result.failures:
        if failure not in said:
            say(f"FAILED: {failure}")
