"""What an estimate says, as tables on the terminal."""

from __future__ import annotations

from onnx_lowrank.estimation.result import Estimate, Point
from onnx_lowrank.report.console import new_table, print_scope, print_table, say, scope_of

PAYS = 0.97  # of the time: what a search takes to be worth it


def print_estimate(found: Estimate) -> None:
    """Print the predicted frontier, 8-bit integers beside it, the layers, and what may pay."""
    scope = scope_of([layer.name for layer in found.layers])
    layers = new_table("layer", "share of time", "time at half of its MACs")
    for layer in found.layers:
        layers.add_row(
            layer.name.removeprefix(scope), f"{layer.share:.1%}", f"{layer.time_at_half:.2f}"
        )
    print_scope(scope)
    print_table(layers)
    points = new_table("model", "SQNR dB", "time", "from .. to", "layers")
    for point in found.frontier:
        points.add_row("low rank", *_cells(point))
    if found.int8 is not None:
        points.add_row("8-bit Convs", *_cells(found.int8))
    print_table(points)
    say(
        f"predicted from {found.samples} samples, nothing fitted: time over the original's "
        f"({1e3 * found.seconds:.3g} ms); single layers are off by a factor of {found.spread:.2f}; "
        "SQNR of the scores"
    )
    say(verdict(found))


def verdict(found: Estimate) -> str:
    """Return in a sentence whether low rank, 8-bit integers or neither may pay."""
    best = min(found.frontier, key=lambda point: point.ratio, default=None)
    ways = []
    if best is not None and best.ratio < PAYS:
        ways.append(f"low rank may pay: {best.ratio:.2f} of the time at {best.sqnr_db:.0f} dB")
    if found.int8 is not None and found.int8.ratio < PAYS:
        ways.append(
            f"8-bit Convs may pay: {found.int8.ratio:.2f} of the time at "
            f"{found.int8.sqnr_db:.0f} dB"
        )
    return "; ".join(ways) or "neither low rank nor 8-bit Convs will pay here"


def _cells(point: Point) -> tuple[str, ...]:
    return (
        f"{point.sqnr_db:.0f}",
        f"{point.ratio:.2f}",
        f"{point.low:.2f} .. {point.high:.2f}",
        str(point.layers),
    )
