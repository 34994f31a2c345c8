"""Small networks of every shape that a search must come through, with layers nearly of low rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from builders import text_model
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes
    ----------
    text : str
        Its graph.
    weights : mapping of str to ndarray
        Its constants.
    samples : mapping of str to tuple of int
        The shape of one sample of every input that has samples.
    fixed : mapping of str to ndarray
        The inputs that are the same for all samples.
    sizes : mapping of str to tuple of int
        What to fix of inputs that are open.
    kept : mapping of str to str
        Beginnings of the reasons for which layers, by their outputs, must be kept.
    """

    text: str
    weights: Mapping[str, Array]
    samples: Mapping[str, tuple[int, ...]]
    fixed: Mapping[str, Array] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)

    def model(self) -> onnx.ModelProto:
        """Return the network, nodes named by their first outputs."""
        model = text_model(self.text, self.weights, opset=17)
        for node in model.graph.node:
            node.name = node.output[0]
        return model

    def data(self, count: int, *, seed: int = 0) -> list[dict[str, Array]]:
        """Return random samples, one in each set of feeds; channels differ in their means."""
        rng = np.random.default_rng(seed)
        return [
            {
                **self.fixed,
                **{
                    name: (
                        rng.standard_normal((1, *shape))
                        + rng.standard_normal((1, shape[0], *(1,) * (len(shape) - 1)))
                    ).astype(np.float32)
                    for name, shape in self.samples.items()
                },
            }
            for _ in range(count)
        ]


def low(rng: np.random.Generator, f: int, c: int, *kernel: int) -> Array:
    """Return a weight ``(f, c, *kernel)`` near rank 4, which keeps activations of one size."""
    inputs = int(np.prod((c, *kernel)))
    rank = min(4, f, inputs)
    weight = rng.standard_normal((f, rank)) @ rng.standard_normal((rank, inputs)) / np.sqrt(rank)
    weight += 0.05 * rng.standard_normal(weight.shape)
    return (weight.reshape(f, c, *kernel) * np.sqrt(2 / inputs)).astype(np.float32)


def _split() -> Network:
    rng = np.random.default_rng(0)
    text = """g (float[N,3,12,12] x) => (float[N,10] y, float[N,48,12,12] features) {
      c1 = Conv<pads=[1,1,1,1]>(x, w1)  r1 = Relu(c1)
      s0, s1 = Split<axis=1>(r1)
      c2 = Conv<pads=[1,1,1,1]>(s1, w2)  r2 = Relu(c2)
      c3 = Conv<pads=[1,1,1,1]>(r2, w3)  a3 = Add(c3, s1)
      all = Concat<axis=1>(s0, s1, a3)
      c4 = Conv(all, w4)  features = Relu(c4)
      p = GlobalAveragePool(features)  f = Flatten(p)  y = Gemm<transB=1>(f, w5)
    }"""
    weights = {
        "w1": low(rng, 32, 3, 3, 3),
        "w2": low(rng, 16, 16, 3, 3),
        "w3": low(rng, 16, 16, 3, 3),
        "w4": low(rng, 48, 48, 1, 1),
        "w5": low(rng, 10, 48),
    }
    return Network(text, weights, {"x": (3, 12, 12)})


def _branches() -> Network:
    rng = np.random.default_rng(1)
    text = """g (float[N,8,10,10] x) => (float[N,10] y) {
      c1 = Conv<pads=[1,1,1,1]>(x, w1)  r1 = Relu(c1)
      m = ReduceMax<keepdims=0>(x)  zero = Constant<value = float {0.0}>()
      flag = Greater(m, zero)
      t = If(flag)<
        then_branch = then () => (float[N,32,10,10] a) { a = Identity(r1) },
        else_branch = else () => (float[N,32,10,10] b) { b = Neg(c1) }>
      c2 = Conv<pads=[1,1,1,1]>(t, w2)  r2 = Relu(c2)
      c3 = Conv<pads=[1,1,1,1]>(r2, w3)  sum = Add(c3, r1)
      p = GlobalAveragePool(sum)  f = Flatten(p)  y = MatMul(f, w4)
    }"""
    weights = {
        "w1": low(rng, 32, 8, 3, 3),
        "w2": low(rng, 32, 32, 3, 3),
        "w3": low(rng, 32, 32, 3, 3),
        "w4": low(rng, 10, 32).T,
    }
    return Network(text, weights, {"x": (8, 10, 10)})


def _shared() -> Network:
    rng = np.random.default_rng(2)
    text = """g (float[N,8,10,10] x) => (float[N,10] y) {
      c1 = Conv<pads=[1,1,1,1]>(x, w1)  r1 = Relu(c1)
      c2 = Conv<pads=[1,1,1,1]>(r1, w2)  r2 = Relu(c2)
      c3 = Conv<pads=[1,1,1,1]>(r2, w2)  r3 = Relu(c3)
      p = GlobalAveragePool(r3)  f = Flatten(p)  y = MatMul(f, w3)
    }"""
    weights = {
        "w1": low(rng, 32, 8, 3, 3),
        "w2": low(rng, 32, 32, 3, 3),
        "w3": low(rng, 10, 32).T,
    }
    return Network(text, weights, {"x": (8, 10, 10)})


def _groups() -> Network:
    rng = np.random.default_rng(3)
    text = """g (float[N,8,10,10] x) => (float[N,10] y) {
      c1 = Conv<pads=[1,1,1,1]>(x, w1)  r1 = Relu(c1)
      deep = Conv<pads=[1,1,1,1], group=32>(r1, w2)
      c3 = Conv(deep, w3)  n3 = BatchNormalization(c3, scale, shift, mean, var)  r3 = Relu(n3)
      c4 = Conv<pads=[1,1,1,1], group=2>(r3, w4)  r4 = Relu(c4)
      p = GlobalAveragePool(r4)  f = Flatten(p)  y = MatMul(f, w5)
    }"""
    weights = {
        "w1": low(rng, 32, 8, 3, 3),
        "w2": low(rng, 32, 1, 3, 3),
        "w3": low(rng, 64, 32, 1, 1),
        "w4": low(rng, 64, 32, 3, 3),
        "w5": low(rng, 10, 64).T,
        "scale": rng.uniform(0.5, 1.5, 64).astype(np.float32),
        "shift": 0.1 * rng.standard_normal(64).astype(np.float32),
        "mean": 0.1 * rng.standard_normal(64).astype(np.float32),
        "var": rng.uniform(0.5, 1.5, 64).astype(np.float32),
    }
    return Network(text, weights, {"x": (8, 10, 10)}, kept={"deep": "it is a grouped Conv"})


def _sound() -> Network:
    rng = np.random.default_rng(4)
    text = """g (float[N,1,600] x) => (float[N,10] y) {
      c1 = Conv<strides=[4]>(x, w1)  r1 = Relu(c1)
      c2 = Conv<strides=[2]>(r1, w2)  r2 = Relu(c2)
      c3 = Conv<auto_pad="SAME_UPPER">(r2, w3)  r3 = Relu(c3)
      p = GlobalAveragePool(r3)  f = Flatten(p)  y = Gemm<transB=1>(f, w4)
    }"""
    weights = {
        "w1": low(rng, 32, 1, 64),
        "w2": low(rng, 32, 32, 9),
        "w3": low(rng, 32, 32, 3),
        "w4": low(rng, 10, 32),
    }
    return Network(text, weights, {"x": (1, 600)})


def _film() -> Network:
    rng = np.random.default_rng(5)
    text = """g (float[N,3,4,8,8] x) => (float[N,10] y) {
      c1 = Conv<pads=[1,1,1,1,1,1]>(x, w1)  r1 = Relu(c1)
      c2 = Conv<pads=[1,1,1,1,1,1]>(r1, w2)  r2 = Relu(c2)
      p = GlobalAveragePool(r2)  f = Flatten(p)  y = Gemm<transB=1>(f, w3)
    }"""
    weights = {
        "w1": low(rng, 16, 3, 3, 3, 3),
        "w2": low(rng, 16, 16, 3, 3, 3),
        "w3": low(rng, 10, 16),
    }
    return Network(text, weights, {"x": (3, 4, 8, 8)})


def _open() -> Network:
    rng = np.random.default_rng(6)
    text = """g (float[N,3,H,W] x) => (float[N,10] y) {
      c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1)  r1 = Relu(c1)
      c2 = Conv<auto_pad="SAME_LOWER">(r1, w2)  r2 = Relu(c2)
      c3 = Conv<pads=[1,1,1,1]>(r2, w3)  a = Add(c3, r1)  r3 = Relu(a)
      p = GlobalAveragePool(r3)  f = Flatten(p)  y = Gemm<transB=1>(f, w4)
    }"""
    weights = {
        "w1": low(rng, 32, 3, 3, 3),
        "w2": low(rng, 32, 32, 3, 3),
        "w3": low(rng, 32, 32, 3, 3),
        "w4": low(rng, 10, 32),
    }
    return Network(text, weights, {"x": (3, 16, 16)}, sizes={"x": (1, 3, 16, 16)})


def _tokens() -> Network:
    rng = np.random.default_rng(7)
    text = """g (float[N,T,32] x) => (float[N,T,64] y) {
      a = MatMul(x, w1)  h = Add(a, shift)
      q = MatMul(h, w2)  k = MatMul(h, w3)
      kt = Transpose<perm=[0,2,1]>(k)  qk = MatMul(q, kt)  soft = Softmax<axis=-1>(qk)
      o = MatMul(soft, h)  sum = Add(o, h)  n = LayerNormalization(sum, scale, shift)
      m = MatMul(n, w4)  y = Relu(m)
    }"""
    weights = {
        "w1": low(rng, 64, 32).T,
        "w2": low(rng, 64, 64).T,
        "w3": low(rng, 64, 64).T,
        "w4": low(rng, 64, 64).T,
        "scale": np.ones(64, np.float32),
        "shift": 0.1 * rng.standard_normal(64).astype(np.float32),
    }
    return Network(text, weights, {"x": (10, 32)}, sizes={"x": (1, 10, 32)})


def _inputs() -> Network:
    rng = np.random.default_rng(8)
    text = """g (float gain, float[10,16] table, float[N,3,12,12] x) => (float[N,10] y) {
      z = Mul(x, gain)
      c1 = Conv<pads=[1,1,1,1]>(z, w1)  r1 = Relu(c1)
      c2 = Conv<pads=[1,1,1,1]>(r1, w2)  r2 = Relu(c2)
      p = GlobalAveragePool(r2)  f = Flatten(p)  e = MatMul(f, w3)
      t = MatMul(table, w4)  tt = Transpose(t)  y = MatMul(e, tt)
    }"""
    weights = {
        "w1": low(rng, 32, 3, 3, 3),
        "w2": low(rng, 32, 32, 3, 3),
        "w3": low(rng, 32, 32).T,
        "w4": low(rng, 32, 16).T,
    }
    fixed = {
        "gain": np.array(1.5, np.float32),
        "table": rng.standard_normal((10, 16)).astype(np.float32),
    }
    kept = {"t": "its input 'table' of shape [10, 16] has no axis of"}
    return Network(text, weights, {"x": (3, 12, 12)}, fixed=fixed, kept=kept)


def _one() -> Network:
    rng = np.random.default_rng(9)
    text = """g (float[1,3,12,12] x) => (float[1,10] y) {
      c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1)  r1 = Relu(c1)
      c2 = Conv<pads=[1,1,1,1]>(r1, w2)  r2 = Relu(c2)
      c3 = Conv<pads=[1,1,1,1]>(r2, w3)  a = Add(c3, r1)  r3 = Relu(a)
      f = Reshape(r3, shape)  y = Gemm<transB=1>(f, w4)
    }"""
    weights = {
        "w1": low(rng, 32, 3, 3, 3),
        "w2": low(rng, 32, 32, 3, 3),
        "w3": low(rng, 32, 32, 3, 3),
        "w4": low(rng, 10, 32 * 36),
        "shape": np.array([1, 32 * 36]),
    }
    return Network(text, weights, {"x": (3, 12, 12)})


def _odd() -> Network:
    """A branch of zeros, one of NaN that is caught, and one without samples."""
    rng = np.random.default_rng(10)
    text = """g (float[N,3,8,8] x) => (float[N,10] y) {
      c1 = Conv<pads=[1,1,1,1]>(x, w1)  r1 = Relu(c1)
      n = Neg(r1)  dead = Relu(n)  c2 = Conv<pads=[1,1,1,1]>(dead, w2)
      log = Log(n)  c3 = Conv(log, w3)
      nan = IsNaN(c3)  inf = IsInf(c3)  bad = Or(nan, inf)
      zero = Constant<value = float {0.0}>()  caught = Where(bad, zero, c3)
      c4 = Conv<pads=[1,1,1,1]>(fixed, w4)
      a1 = Add(r1, c2)  a2 = Add(a1, caught)  a3 = Add(a2, c4)
      c5 = Conv<pads=[1,1,1,1]>(a3, w5)  r5 = Relu(c5)
      p = GlobalAveragePool(r5)  f = Flatten(p)  y = Gemm<transB=1>(f, w6)
    }"""
    weights = {
        "w1": low(rng, 32, 3, 3, 3),
        "w2": low(rng, 32, 32, 3, 3),
        "w3": low(rng, 32, 32, 1, 1),
        "w4": low(rng, 32, 8, 3, 3),
        "w5": low(rng, 32, 32, 3, 3),
        "w6": low(rng, 10, 32),
        "fixed": rng.standard_normal((1, 8, 8, 8)).astype(np.float32),
    }
    kept = {
        "c3": "NaN or Inf in its input 'log'",
        "c4": "its input 'fixed' of shape [1, 8, 8, 8] has no axis of",
    }
    return Network(text, weights, {"x": (3, 8, 8)}, kept=kept)


def _long_kernel() -> Network:
    """A first layer whose moments, of patches of 24576 entries, would take 4.5 GiB."""
    rng = np.random.default_rng(11)
    text = """g (float[N,48,576] x) => (float[N,10] y) {
      c1 = Conv<strides=[16]>(x, w1)  r1 = Relu(c1)
      c2 = Conv(r1, w2)  r2 = Relu(c2)
      p = GlobalAveragePool(r2)  f = Flatten(p)  y = Gemm<transB=1>(f, w3)
    }"""
    weights = {"w1": low(rng, 16, 48, 512), "w2": low(rng, 32, 16, 3), "w3": low(rng, 10, 32)}
    return Network(text, weights, {"x": (48, 576)})


NETWORKS: dict[str, Callable[[], Network]] = {
    "a Split, a Concat, a residual, two outputs": _split,
    "an If whose branches read from outside": _branches,
    "shared weights": _shared,
    "groups and a normalisation": _groups,
    "Conv1d": _sound,
    "Conv3d": _film,
    "open sizes": _open,
    "tokens": _tokens,
    "inputs without samples": _inputs,
    "a batch of exactly one": _one,
    "dead, NaN and constant inputs": _odd,
    "a kernel of 512": _long_kernel,
}
