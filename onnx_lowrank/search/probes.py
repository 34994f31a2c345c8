"""How the error of one layer carries through the network, from one candidate of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_lowrank.search.candidate import Option
from onnx_lowrank.search.chosen_quality import ChosenQuality
from onnx_lowrank.search.context import SearchContext
from onnx_lowrank.search.layer_fits import LayerFits


def carried_noise(
    context: SearchContext,
    options: Mapping[str, Sequence[Option]],
    fits: LayerFits,
    quality: ChosenQuality,
) -> dict[str, float]:
    """Return the noise of the outputs over the squared error of each layer, by layer name.

    Small errors add up: the noise of a model is about the sum over its layers of this factor times
    the squared error. A layer of which every fit fails has a factor of 1.

    Parameters
    ----------
    context : SearchContext
        What the search works with.
    options : mapping of str to sequence of Option
        The candidates of each layer: of those already fitted, of all where none is, the one whose
        error is nearest to `probe_error` is run.
    fits : LayerFits
        Makes its fit where it is not made yet.
    quality : ChosenQuality
        Measures the noise.
    """
    found = {}
    for done, (name, tried) in enumerate(options.items()):
        context.progress("probing layers", done, len(options))
        found[name] = 1.0
        inexact = [option for option in tried if option.error > 0]
        made = fits.of(name)
        # One that is fitted already will do as well, if its error is about as large.
        near = [o for o in inexact if o.scheme.spec in made] or inexact
        away = [abs(np.log(max(o.error, 1e-9) / context.settings.probe_error)) for o in near]
        for place in np.argsort(away, kind="stable"):
            probe = fits.candidates({name: near[place]})
            if probe:
                error = probe[name].fit.error
                found[name] = quality.noise(probe) / max(error**2, 1e-12)
                break
    return found
