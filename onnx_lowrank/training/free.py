"""Whether models that fix their batch compute any other just as well in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from onnx_lowrank.data.dataset import batched_inputs
from onnx_lowrank.errors import ModelError
from onnx_lowrank.runtime import TensorInfo
from onnx_lowrank.training.check import TOLERANCE
from onnx_lowrank.training.executor import Network
from onnx_lowrank.types import Feeds


def free_batch(
    networks: Sequence[Network], inputs: Sequence[TensorInfo], feeds: Sequence[Feeds]
) -> tuple[TensorInfo, ...]:
    """Return the inputs with any batch, if the networks give each sample the same in a larger one.

    Exporters often fix a batch of 1, though few of the nodes depend on it. Such a network would be
    trained sample by sample, and one that fixes more would lose the samples that fill no batch.

    Parameters
    ----------
    networks : sequence of Network
        They share the inputs.
    inputs : sequence of TensorInfo
        Those of the models.
    feeds : sequence of mapping
        One or more of their batches; the more they differ the better.

    Returns
    -------
    tuple of TensorInfo
        The inputs as they are where they fix no batch, or where the outputs differ: a Reshape to
        constant sizes, or a model whose samples depend on each other.
    """
    batched = batched_inputs(inputs)
    if not any(i.shape and batched[i.name] and isinstance(i.shape[0], int) for i in inputs):
        return tuple(inputs)
    runs = [*feeds, feeds[0]]
    joined = {
        name: np.concatenate([run[name] for run in runs]) if carries else feeds[0][name]
        for name, carries in batched.items()
    }
    if not all(_same(network, runs, joined) for network in networks):
        return tuple(inputs)
    return tuple(
        replace(info, shape=("N", *info.shape[1:])) if info.shape and batched[info.name] else info
        for info in inputs
    )


def _same(network: Network, runs: Sequence[Feeds], joined: Feeds) -> bool:
    with torch.no_grad():
        parts = [network.run(run) for run in runs]
        try:
            found = network.run(joined)
        except (ModelError, RuntimeError, ValueError, IndexError):
            return False
    for name, value in found.items():
        if not all(part[name].dim() for part in parts):
            return False
        expected = torch.cat([part[name] for part in parts]).double()
        if value.shape != expected.shape:
            return False
        scale = float(expected.abs().max()) or 1.0
        if not float((value.double() - expected).abs().max()) <= TOLERANCE * scale:
            return False
    return True
