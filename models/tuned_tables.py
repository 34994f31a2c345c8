"""The sections of models/RESULTS.md on training, in Markdown, from the JSON of the runs."""

from __future__ import annotations

import itertools
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


def compare(data: dict[str, Any]) -> str:
    """Return how far ours go the way of the authors' rows, in sentences with figures counted."""
    found = {(row["layer"], row["scheme"]): row for row in data["rows"]}
    same = pairs = 0
    for rows in seed_tables.TABLES.values():
        for first, second in itertools.combinations(rows, 2):
            theirs = [row.errors[0 if row.errors[1] is None else 1] for row in (first, second)]
            ours = [found[row.layer, row.scheme]["fitted"]["points"] for row in (first, second)]
            if first.layer == second.layer and theirs[0] is not None and theirs[1] is not None:
                pairs += 1
                same += (theirs[0] > theirs[1]) == (ours[0] > ours[1])
    lower = sum(row["tuned"]["points"] < row["fitted"]["points"] for row in data["rows"])
    within = sum(row["tuned"]["points"] <= 1 for row in data["rows"])
    gains = sum(row["tuned"]["high"] < 0 for row in data["rows"])
    return (
        f"Where the authors give two ranks of one layer and scheme, which of them loses more by "
        f"the covariance is the same here in {same} of {pairs} pairs. Training gives back some in "
        f"{lower} of {len(data['rows'])} rows; after it {within} lose at most 1 point, and {gains} "
        "are better than the original beyond chance, which was trained but briefly. Not alike: the "
        "authors give figures after training for colours only, and theirs are of ImageNet."
    )


def compare_cascades(data: dict[str, Any]) -> str:
    """Return what training and corrections are worth, with figures counted."""
    trained = [row for row in data["rows"] if row["trained"] is not None]
    better = sum(row["trained"]["points"] < row["corrected"]["points"] for row in trained)
    corrected = sum(row["corrected"]["points"] < row["fitted"]["points"] for row in data["rows"])
    told = [
        f"Corrections lower the loss of {corrected} of {len(data['rows'])} plans, a cascade that "
        f"of {better} of {len(trained)} further."
    ]
    for key, name in (("trained", "after training"), ("corrected", "without any training")):
        passing = [row for row in data["rows"] if row[key] and row[key]["points"] <= 1]
        if passing:
            row = max(passing, key=lambda row: row["mac_reduction"])
            told.append(
                f"At most 1 point is lost at {row['mac_reduction']:.2f} times fewer {name}."
            )
    return " ".join(told)


def write_tuned(data: dict[str, Any]) -> list[str]:
    found = {(row["layer"], row["scheme"]): row for row in data["rows"]}
    said = "Only the layers above the approximated one are trained, by the labels."
    lines = [f"{conditions(data)} {said}", "", compare(data), ""]
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
    lines = [f"{conditions(data)} {said}", "", compare_cascades(data), ""]
    return [*lines, *table(columns, cells), *on_machine(data)]
