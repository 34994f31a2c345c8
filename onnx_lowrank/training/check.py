"""Whether torch computes what onnxruntime does: asked before any gradient is believed."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime import open_session
from onnx_lowrank.training.executor import Network
from onnx_lowrank.types import Feeds

# Of the largest value of an output. Sums of n float32 terms in another order differ by about
# sqrt(n) eps, 1e-5 for the n = 9216 of large layers; some twenty layers add up to 5e-5.
TOLERANCE = 1e-4


def check_forward(network: Network, model: onnx.ModelProto, feeds: Feeds) -> float:
    """Return the largest difference from onnxruntime, relative to each output's largest value.

    Parameters
    ----------
    network : Network
        The model in torch, in float32.
    model : onnx.ModelProto
        The model.
    feeds : mapping of str to ndarray
        Inputs of one run.

    Raises
    ------
    ModelError
        It is beyond `TOLERANCE`, or not a number.
    """
    expected = open_session(model).run(dict(feeds))
    with torch.no_grad():
        found = network.run(feeds)
    worst = 0.0
    for name, value in expected.items():
        if value.dtype.kind != "f":
            continue
        computed = np.asarray(found[name].cpu())
        scale = float(np.abs(value).max(initial=0)) or 1.0
        same = computed.shape == value.shape
        difference = float(np.abs(computed - value).max(initial=0)) / scale if same else np.inf
        if not difference <= TOLERANCE:
            raise ModelError(
                f"output '{name}' in torch is {difference:.1e} of its largest value off that of "
                f"onnxruntime, more than {TOLERANCE:.0e}; leave fine-tuning and gradient metrics "
                "out for this model"
            )
        worst = max(worst, difference)
    return worst
