"""The chapter on how low-rank the layers are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from onnx_lowrank.report.html import figures
from onnx_lowrank.report.html.content import Block, Drawing, Table
from onnx_lowrank.spectra import Spectrum, ranks_for

MAX_LAYERS = 24
SHARES = (0.9, 0.99)
_INTRO = (
    "Singular values of each weight, unfolded along its outputs, its inputs and its kernel: the "
    "energy (share of the squared norm) that the best approximation of a rank loses. The steeper "
    "a line falls, the lower the rank that a scheme can choose."
)


def spectra_section(
    spectra: Sequence[Spectrum], costs: Sequence[dict[str, Any]]
) -> tuple[str, str, str, list[Block]]:
    """Return the chapter's identifier, title, introduction and blocks; none without spectra.

    Figures are of the layers with the most multiply-adds, where those are known, or weights; the
    table is of all.
    """
    macs = {layer["name"]: layer["macs"] or 0 for cost in costs for layer in cost["layers"]}

    def weight(spectrum: Spectrum) -> tuple[int, int]:
        size = 1
        for length in spectrum.shape:
            size *= length
        return macs.get(spectrum.layer, 0), size

    drawn = sorted(spectra, key=weight, reverse=True)[:MAX_LAYERS]
    blocks: list[Block] = []
    for index, spectrum in enumerate(spectra):
        modes = tuple(spectrum.modes.items())
        if spectrum not in drawn or not modes:
            continue
        text = "; ".join(
            f"{mode}: {ranks_for(values, SHARES[0])} of {len(values)} hold 90 %"
            for mode, values in modes
        )
        blocks.append(
            Drawing(
                f"spectrum-{index + 1}",
                f"{spectrum.layer}, {' × '.join(map(str, spectrum.shape))}",
                f"Energy lost against rank of layer {spectrum.layer}. {text}.",
                partial(figures.draw_spectrum, modes),
                small=True,
            )
        )
    rows = [
        (
            spectrum.layer,
            mode,
            str(len(values)),
            *(str(ranks_for(values, share)) for share in SHARES),
        )
        for spectrum in spectra
        for mode, values in spectrum.modes.items()
    ]
    if rows:
        columns = ("layer", "unfolded along", "full rank", "for 90 %", "for 99 %")
        blocks.append(Table("Ranks that hold the energy", columns, tuple(rows), text=(0, 1)))
    left = f" Drawn for {MAX_LAYERS} of {len(spectra)} layers." if len(spectra) > MAX_LAYERS else ""
    return "spectra", "Spectra of the layers", _INTRO + left, blocks
