"""The sections of models/RESULTS.md on training, in Markdown, from the JSON of the runs."""

from __future__ import annotations

from typing import Any

import seed_tables
from result_tables import on_machine
from seed_tables import table


def points(drop: dict[str, float] | None) -> str:
    """Return points lost with their interval; empty if there are none."""
    if drop is None:
        return ""
    return f"{drop['points']:.2f} ({drop['low']:.2f} to {drop['high']:.2f})"


def conditions(data: dict[str, Any]) -> str:
    settings = data["settings"]
    return (
        f"Points of accuracy lost on {data['test_images']} test images (95 % interval), of which "
        f"the original has {data['accuracy']:.2f} % right; a negative figure is a gain. Fits by "
        f"the covariance of {settings['statistics']} images; {settings['epochs']} pass over "
        f"{settings['samples']} training images after each layer, AdamW, the best epoch of other "
        "images."
    )


def write_tuned(data: dict[str, Any]) -> list[str]:
    found = {(row["layer"], row["scheme"]): row for row in data["rows"]}
    said = "Only the layers above the approximated one are trained, by the labels."
    lines = [f"{conditions(data)} {said}", ""]
    for title, rows in seed_tables.TABLES.items():
        key = "param_reduction" if rows is seed_tables.CONNECTED else "mac_reduction"
        cells: list[tuple[object, ...]] = []
        for row in rows:
            each = found[row.layer, row.scheme]
            # Their table of fully connected layers has one column of errors; by colours, a third.
            covariance = row.errors[1]
            tuned = row.errors[2] if rows is seed_tables.MONO else None
            cells.append(
                (
                    row.layer,
                    row.ranks,
                    *("" if error is None else f"{error:.2f}" for error in (covariance, tuned)),
                    f"`{row.scheme}`",
                    points(each["fitted"]),
                    points(each["tuned"]),
                    f"{each[key]:.2f}",
                )
            )
        theirs = ("layer", "theirs", "covariance", "fine-tuned")
        ours = ("ours", "covariance", "fine-tuned", "times fewer")
        lines += [f"### {title}, fine-tuned", "", *table((*theirs, *ours), cells)]
    return [*lines, *on_machine(data)]


def write_cascades(data: dict[str, Any]) -> list[str]:
    found = {tuple(row["plan"]): row for row in data["rows"]}
    cells: list[tuple[object, ...]] = []
    for row in seed_tables.CASCADES:
        each = found[row.plan]
        cells.append(
            (
                row.ranks,
                "" if row.error is None else f"{row.error:.1f}",
                ", ".join(f"`{part}`" for part in row.plan),
                f"{each['mac_reduction']:.2f}",
                points(each["fitted"]),
                points(each["corrected"]),
                points(each["trained"]),
            )
        )
    columns = ("theirs", "error", "ours", "times fewer")
    columns = (*columns, "covariance", "corrected", "cascade")
    said = (
        "Factors and the layers above them are trained after each layer, by the labels and by the "
        "original's outputs. `covariance` is the plan fitted at once, `corrected` that with means "
        "and deviations as the original's (`correct`), both without training. Times fewer "
        "multiply-adds of all layers, as by `cost`."
    )
    return [f"{conditions(data)} {said}", "", *table(columns, cells), *on_machine(data)]
