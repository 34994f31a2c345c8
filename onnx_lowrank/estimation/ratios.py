"""Predicted times of candidates over those of their layers, from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from onnx_lowrank.conv import ConvSpec
from onnx_lowrank.estimation.latency_model import LatencyModel
from onnx_lowrank.estimation.work import Work, work_of
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.rewriting.forms import STANDARD, forms_for
from onnx_lowrank.schemes import Scheme
from onnx_lowrank.schemes.dense import DenseFactors

_DTYPE = np.dtype(np.float32)


@cache
def dense_work(spec: ConvSpec) -> tuple[Work, ...]:
    """Return what a layer does as it is; its sizes are known."""
    weight = np.broadcast_to(0.0, spec.weight_shape)
    return work_of(DenseFactors(weight), spec, STANDARD, spec.macs or 0)


def predicted_ratio(
    spec: ConvSpec, scheme: Scheme, latencies: LatencyModel, forms: Sequence[Form]
) -> float:
    """Return the least time of a scheme in any of some forms, over the layer's own.

    Infinite where nodes of such a kind were never timed.
    """
    factors = scheme.instances(spec, None)[0]
    own = latencies.seconds(dense_work(spec))
    times = [
        latencies.seconds(work)
        for form in forms_for(type(factors), spec, _DTYPE, forms)
        if latencies.knows(work := work_of(factors, spec, form, scheme.macs(spec) or 0))
    ]
    return min(times, default=np.inf) / own if own > 0 else np.inf


def time_at_half(
    spec: ConvSpec, schemes: Sequence[Scheme], latencies: LatencyModel, forms: Sequence[Form]
) -> float:
    """Return the least time of candidates of about half the multiply-adds, over the layer's own.

    At most 1: a layer may stay as it is.
    """
    nearest: dict[str, tuple[float, Scheme]] = {}
    for scheme in schemes:
        away = abs(np.log(2 * (scheme.macs(spec) or 1) / (spec.macs or 1)))
        if scheme.name not in nearest or away < nearest[scheme.name][0]:
            nearest[scheme.name] = (away, scheme)
    ratios = [predicted_ratio(spec, scheme, latencies, forms) for _, scheme in nearest.values()]
    return min([*ratios, 1.0])
