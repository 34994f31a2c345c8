"""The tables of Denton et al. (2014) and its supplement, and ours beside them, in Markdown."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

# Table 1: seconds of a forward pass of 128 images on the authors' CPU, by the n-th of each op.
SECONDS = {
    "Conv": (2.83, 4.26, 1.87, 1.53, 1.42),
    "LRN": (0.19, 0.08),
    "Gemm": (0.38, 0.07, 0.02),
}
TOTAL_SECONDS = 12.89


@dataclass(frozen=True)
class Row:
    """A row of the authors' tables 2 to 4, and what stands for it in our network.

    Attributes
    ----------
    layer, ranks : str
        Theirs.
    errors : tuple of (float or None)
        Points of test error added: fitted in the Frobenius norm, by the covariance of the data,
        and by the Mahalanobis metric; of colours, after fine-tuning instead.
    reduction : float
        Times fewer operations, as they count; of a fully connected layer, parameters.
    scheme : str
        Ours, of the layer of the same name: as many channels in a block, or the same share of the
        full rank.
    """

    layer: str
    ranks: str
    errors: tuple[float | None, float | None, float | None]
    reduction: float
    scheme: str

    @property
    def spec(self) -> str:
        """The layer and our scheme, as `sweep` takes them."""
        return f"{self.layer}={self.scheme}"


MONO = tuple(
    Row("conv1", f"C'={colours}", errors, reduction, f"mono:C={colours}")
    for colours, errors, reduction in (
        (4, (16.11, 5.94, 1.71), 2.97),
        (8, (3.51, 1.41, 0.22), 2.94),
        (16, (1.16, 0.45, None), 2.88),
    )
)
SVD = tuple(
    Row(layer, f"G,H={theirs}; K1,K2={ranks}", errors, reduction, f"bicluster-svd:{ours}")
    for layer, theirs, ranks, errors, reduction, ours in (
        ("conv2", "2,2", "19,51", (6.76, 1.97, 6.44), 6.3, "G=2,H=2,K1=10,K2=26"),
        ("conv2", "2,2", "24,64", (2.2, 0.69, 2.2), 4.0, "G=2,H=2,K1=12,K2=32"),
        ("conv2", "2,2", "28,76", (0.98, 0.38, 1.0), 2.9, "G=2,H=2,K1=14,K2=38"),
        ("conv3", "2,4", "51,51", (5.83, 2.09, 5.73), 4.0, "G=2,H=4,K1=26,K2=19"),
        ("conv3", "2,4", "64,76", (1.4, 0.63, 1.42), 2.4, "G=2,H=4,K1=32,K2=28"),
        ("conv3", "2,4", "76,76", (1.21, 0.46, 1.22), 2.1, "G=2,H=4,K1=38,K2=28"),
    )
)
OUTER = tuple(
    Row(layer, f"G,H={theirs}; K={rank}", errors, reduction, f"bicluster-outer:{ours},K={rank}")
    for layer, theirs, rank, errors, reduction, ours in (
        ("conv2", "48,2", 6, (6.04, 7.03, 4.66), 6.9, "G=24,H=2"),
        ("conv2", "48,2", 10, (1.7, 1.9, 1.56), 4.1, "G=24,H=2"),
        ("conv2", "48,2", 16, (0.37, 0.4, 0.18), 2.5, "G=24,H=2"),
        ("conv3", "128,4", 4, (5.65, 2.36, 5.64), 4.1, "G=64,H=4"),
        ("conv3", "128,4", 8, (0.31, 0.29, 0.28), 2.1, "G=64,H=4"),
        ("conv4", "256,8", 4, (1.65, 1.59, 1.82), 4.1, "G=96,H=8"),
        ("conv4", "256,8", 8, (0.12, 0.11, 0.16), 2.1, "G=96,H=8"),
    )
)
CONNECTED = tuple(
    Row("fc1", f"K={rank}", (error, None, None), reduction, f"svd:R={ours}")
    for rank, error, reduction, ours in ((250, 0.84, 13.4, 31), (950, 0.09, 3.5, 119))
)
TABLES = {
    "Monochromatic": MONO,
    "Biclustering and SVD": SVD,
    "Biclustering and outer products": OUTER,
    "Fully connected, SVD": CONNECTED,
}
ROWS = tuple(row for rows in TABLES.values() for row in rows)
METRICS = ("frobenius", "covariance", "mahalanobis")


@dataclass(frozen=True)
class Cascade:
    """Layers approximated one after the other.

    Attributes
    ----------
    plan : tuple of str
        Ours, as `cascade` takes it.
    ranks : str
        The authors' (conv1, then conv2); empty where they have no such row.
    error : float or None
        Theirs after training, points of test error.
    trained : bool
        Whether ours is trained too, or only fitted and corrected.
    """

    plan: tuple[str, ...]
    ranks: str = ""
    error: float | None = None
    trained: bool = True


_COLOURS = "conv1=mono:C=6"
CASCADES = (
    Cascade(
        (_COLOURS, "conv2=bicluster-outer:G=24,H=2,K=8"),
        "C'=6; G,H=48,2; K=8",
        1.0,
    ),
    Cascade(
        (_COLOURS, "conv2=bicluster-svd:G=2,H=2,K1=10,K2=32"),
        "C'=6; G,H=2,2; K1,K2=19,64",
        1.2,
    ),
    # All Convs by the authors' schemes; by ours at a quarter of the work; without training.
    Cascade(
        (
            _COLOURS,
            "conv2=bicluster-svd:G=2,H=2,K1=10,K2=32",
            "conv3=bicluster-svd:G=2,H=4,K1=26,K2=19",
            "conv4=bicluster-outer:G=96,H=8,K=4",
        )
    ),
    Cascade(
        (
            "conv1=channel:R=16",
            "conv2=tucker2:R1=12,R2=28",
            "conv3=tucker2:R1=40,R2=44",
            "conv4=tucker2:R1=44,R2=40",
        )
    ),
    Cascade(
        (
            "conv1=channel:R=20",
            "conv2=tucker2:R1=20,R2=44",
            "conv3=tucker2:R1=48,R2=64",
            "conv4=tucker2:R1=64,R2=48",
        ),
        trained=False,
    ),
)


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    """Return a table in Markdown; a bar in a name is escaped."""
    lines = [columns, ("---",) * len(columns), *rows]
    return ["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in lines] + [
        ""
    ]


def times(report: dict[str, Any]) -> list[str]:
    """Return the time of every layer in the JSON of `profile`, beside the authors' Table 1."""
    model = report["model"]
    seen: dict[str, int] = defaultdict(int)
    rows: list[tuple[object, ...]] = []
    for row in model["rows"]:
        theirs = SECONDS.get(row["op"], ())
        which, seen[row["op"]] = seen[row["op"]], seen[row["op"]] + 1
        seconds = theirs[which] if which < len(theirs) else None
        rows.append(
            (
                f"{row['op']} {which + 1}" if theirs else row["op"],
                f"{row['mean_ms']:.2f} ± {row['sd_ms']:.2f}",
                f"{100 * row['share']:.1f}",
                "" if row["gflops"] is None else f"{row['gflops']:.1f}",
                "" if seconds is None else f"{seconds:.2f}",
                "" if seconds is None else f"{100 * seconds / TOTAL_SECONDS:.1f}",
            )
        )
    total = f"{model['total_mean_ms']:.2f} ± {model['total_sd_ms']:.2f}"
    rows.append(("total", total, "100.0", "", f"{TOTAL_SECONDS:.2f}", "100.0"))
    columns = ("layer", "ms, mean ± SD", "share, %", "GFLOP/s", "theirs, s", "share, %")
    return table(columns, rows)


def losses(report: dict[str, Any]) -> list[str]:
    """Return the points of accuracy that each scheme loses in the JSON of `sweep`, and theirs.

    Raises
    ------
    KeyError
        A point of the tables is missing in the sweep.
    """
    found = {(p["layer"], p["scheme"], p["metric"]): p for p in report["points"]}
    lines: list[str] = []
    for title, rows in TABLES.items():
        third = "fine-tuned" if rows is MONO else "Mahalanobis"
        cells: list[tuple[object, ...]] = []
        for row in rows:
            points = [found[row.layer, row.scheme, metric] for metric in METRICS]
            key = "param_reduction" if rows is CONNECTED else "mac_reduction"
            cells.append(
                (
                    row.layer,
                    row.ranks,
                    *("" if error is None else f"{error:.2f}" for error in row.errors),
                    f"{row.reduction:.2f}",
                    f"`{row.scheme}`",
                    *(f"{point['drop_points']:.2f}" for point in points),
                    f"{points[0][key]:.2f}",
                )
            )
        theirs = ("layer", "theirs", "Frobenius", "covariance", third, "times fewer")
        ours = ("ours", "Frobenius", "covariance", "Mahalanobis", "times fewer")
        lines += [f"### {title}", "", *table((*theirs, *ours), cells)]
    return lines
