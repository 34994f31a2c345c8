"""The graph in torch: real networks against onnxruntime, functions, gradients, writing back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import initializers, text_model, without

torch = pytest.importorskip("torch", reason="torch is not installed: extra finetune")

from onnx_lowrank import compress
from onnx_lowrank.errors import ModelError
from onnx_lowrank.graph.io import load_model
from onnx_lowrank.training.check import TOLERANCE, check_forward
from onnx_lowrank.training.executor import Network, write_back

NET = """
net (float[N,3,8,8] x) => (float[N,4] y)
{
    [conv] a = Conv<pads=[1,1,1,1]>(x, w, b)
    [relu] c = Relu(a)
    [mean] d = GlobalAveragePool(c)
    [flat] e = Flatten(d)
    [fc] y = Gemm<transB=1>(e, v, u)
}
"""


def small() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    shapes = {"w": (5, 3, 3, 3), "b": (5,), "v": (4, 5), "u": (4,)}
    values = {k: rng.standard_normal(shape).astype(np.float32) for k, shape in shapes.items()}
    return text_model(NET, values)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


NETWORKS = {
    "vgg16": ("input", (1, 240, 240, 3), "*block2_conv2*=tucker2:R1=50%,R2=50%"),
    "zfnet512": ("gpu_0/data_0", (1, 3, 224, 224), "n4=channel:R=64"),
    "mnist": ("image", (3, 1, 28, 28), "conv3=bicluster-svd:G=2,H=2,K1=10,K2=16"),
    "cifar10": ("image", (3, 3, 32, 32), "conv1=mono:C=8"),
    "squeezenet": ("data_0", (1, 3, 224, 224), "n0=spatial:R=6"),
    "craft": ("image", (1, 3, 64, 96), "*slice1.3/Conv=cp:R=32"),
}


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_and_their_compressed_forms(name: str) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
    import fetch

    key, shape, rule = NETWORKS[name]
    model = load_model(fetch.network(name))
    feeds = {key: np.abs(images(*shape))}
    check_forward(Network(model), model, feeds)
    rewritten = compress(model, plan=[rule], verification=False).model
    assert len(rewritten.graph.node) > len(model.graph.node)
    check_forward(Network(rewritten), rewritten, feeds)


@pytest.mark.parametrize(
    "scheme",
    [
        "mono:C=4",
        "bicluster-svd:G=2,H=2,K1=6,K2=6",
        "bicluster-outer:G=2,H=2,K=6",
        "tucker2:R1=8,R2=8",
        "cp:R=20",
        "spatial:R=12",
        "channel:R=12",
    ],
)
def test_every_lowering_is_computed(residual_net, scheme: str) -> None:  # type: ignore[no-untyped-def]
    layer = "conv1" if scheme.startswith("mono") else "conv2"
    model = compress(
        residual_net(2), plan=[f"{layer}={scheme}", "fc1=svd:R=9"], verification=False
    ).model
    assert check_forward(Network(model), model, {"image": images(2, 3, 32, 32)}) <= TOLERANCE


def test_a_difference_from_onnxruntime_is_found() -> None:
    model = small()
    network = Network(model)
    network.weights["u"] += 0.01
    with pytest.raises(ModelError, match=r"output 'y' in torch is .* off that of onnxruntime"):
        check_forward(network, model, {"x": images(2, 3, 8, 8)})


def test_functions_are_computed_through_their_bodies() -> None:
    plain = small()
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    function = onnx.parser.parse_function(
        '<opset_import: ["" : 13], domain: "custom">\n'
        "block (x, w, b) => (y) { a = Conv<pads=[1,1,1,1]>(x, w, b) y = Relu(a) }"
    )
    model.functions.append(function)
    model.opset_import.append(onnx.helper.make_opsetid("custom", 1))
    del model.graph.node[1]
    model.graph.node[0].CopyFrom(
        onnx.helper.make_node("block", ["x", "w", "b"], ["c"], "block", domain="custom")
    )
    feeds = {"x": images(2, 3, 8, 8)}
    network = Network(model, trainable=["w"])
    expected = Network(plain, trainable=["w"])
    for each in (network, expected):
        each.run(feeds)["y"].square().sum().backward()
    assert torch.equal(network.weights["w"].grad, expected.weights["w"].grad)
    assert network.weights["w"].grad.abs().max() > 0
    del model.functions[:]
    with pytest.raises(ModelError, match=r"node 'block' \(block\) cannot be run in torch"):
        Network(model)


def test_gradients_are_those_of_finite_differences() -> None:
    network = Network(small(), trainable=["w", "v"], dtype=torch.float64)
    feeds = {"x": images(3, 3, 8, 8)}

    def loss() -> torch.Tensor:
        return network.run(feeds)["y"].square().sum()

    loss().backward()
    step = 1e-6
    for name in ("w", "v"):
        weight = network.weights[name]
        for index in [(0,) * weight.dim(), (1,) * weight.dim()]:
            with torch.no_grad():
                ends = []
                for sign in (1, -1):
                    weight[index] += sign * step
                    ends.append(loss().item())
                    weight[index] -= sign * step
            # Errors of a central difference: step^2 = 1e-12, and eps / step = 2e-10, times values
            # of about 100.
            expected = (ends[0] - ends[1]) / (2 * step)
            assert weight.grad[index].item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("features", [False, True])
def test_gradients_are_the_same_with_few_tensors_kept(residual_net, features: bool) -> None:  # type: ignore[no-untyped-def]
    """Bit by bit: one thread adds in one order, the second time too."""
    model = residual_net(2)
    names = [t.name for t in model.graph.initializer if len(t.dims) > 1]
    feeds = {"image": images(2, 3, 32, 32)}
    inner = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    wanted = [*inner[:2], model.graph.output[0].name] if features else None
    found = []
    for recompute in (False, True):
        network = Network(model, trainable=names, recompute=recompute)
        for _ in range(2):  # gradients of two batches add up
            outputs = network.run(feeds, wanted)
            torch.autograd.backward(sum(value.square().sum() for value in outputs.values()))
        found.append([network.weights[name].grad for name in names])
    assert found[0]
    for first, second in zip(*found, strict=True):
        assert first is not None
        assert bool(first.any())
        assert torch.equal(first, second)


def peak(recompute: bool, count: int) -> float:
    """Return the most MiB that tensors take in a step through Convs and ReLUs of 8 MiB outputs."""
    lines = (
        f"x{i + 1} = Conv<pads=[1,1,1,1]>(r{i}, w{i}) r{i + 1} = Relu(x{i + 1})"
        for i in range(count)
    )
    size = "float[N,8,128,128]"
    text = f"net ({size} r0) => ({size} r{count}) {{ {' '.join(lines)} }}"
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.standard_normal((8, 8, 3, 3)).astype(np.float32) for i in range(count)}
    network = Network(text_model(text, weights), trainable=list(weights), recompute=recompute)
    feeds = {"r0": images(16, 8, 128, 128)}
    with torch.profiler.profile(profile_memory=True) as profile:
        for value in network.run(feeds).values():
            value.sum().backward()
    recorded = profile.profiler.kineto_results.events()  # `events()` gives them summed by op
    changes = sorted((e.start_ns(), e.nbytes()) for e in recorded if e.name() == "[memory]")
    return float(np.cumsum([size for _, size in changes]).max() / 2**20)


def test_less_memory_is_taken() -> None:
    """24 Convs with ReLUs, outputs of 8 MiB: the ReLUs' are kept, 192 MiB.

    Six parts of 48 nodes keep five tensors between them, and those of one part, four, while it is
    computed again. Both need the input and the gradients of two outputs besides.
    """
    without_it, with_it = (peak(recompute, 24) for recompute in (False, True))
    assert without_it == pytest.approx((24 + 3) * 8, abs=1)
    assert with_it == pytest.approx((5 + 4 + 3) * 8, abs=1)


def test_inner_tensors_are_given_and_unknown_ones_refused() -> None:
    network = Network(small())
    found = network.run({"x": images(2, 3, 8, 8)}, ["c", "x"])
    assert found["c"].shape == (2, 5, 8, 8)
    assert found["c"].min() == 0
    with pytest.raises(ModelError, match="no tensor 'z'"):
        network.run({"x": images(2, 3, 8, 8)}, ["z"])
    with pytest.raises(ModelError, match="no floating-point initializer 'q'"):
        Network(small(), trainable=["q"])


def test_values_are_written_back_and_nothing_else() -> None:
    model = small()
    model.graph.initializer[1].doc_string = "kept"
    before, rest = initializers(model), without(model, "initializer")
    write_back(model, {"b": np.ones(5, np.float32)})
    after = initializers(model)
    assert without(model, "initializer") == rest
    assert [t.doc_string for t in model.graph.initializer] == ["", "kept", "", ""]
    assert list(after) == list(before)
    np.testing.assert_array_equal(after["b"], np.ones(5))
    for name in ("w", "v", "u"):
        np.testing.assert_array_equal(after[name], before[name])
    for name, shape in (("b", (4,)), ("q", (5,))):
        with pytest.raises(ValueError, match=f"no initializer '{name}'"):
            write_back(model, {name: np.ones(shape, np.float32)})


SPLIT = """
net (float[N,3,8,8] x) => (float[N,4] y)
{{
    a = Conv<pads=[1,1,1,1]>(x, w1)
    {split}
    s = Sigmoid(p)
    m = Mul(s, q)
    c = Concat<axis=1>(m, r)
    b = Conv(c, w2)
    g = GlobalAveragePool(b)
    f = Flatten(g)
    y = Gemm(f, w3)
}}
"""


# With the channels that it splits, and those that the Concat makes of its parts.
@pytest.mark.parametrize(
    ("split", "opset", "channels", "joined"),
    [
        ("p, q, r = Split<axis=1, split=[3,3,5]>(a)", 11, 11, 8),
        ("p, q, r = Split<axis=1>(a)", 11, 9, 6),
        ("p, q, r = Split<axis=-3>(a, sizes)", 13, 11, 8),
        ("p, q, r = Split<axis=1, num_outputs=3>(a)", 18, 11, 7),  # parts of 4, 4 and 3
        ("p, q, r, unused = Split<axis=1, split=[2,2,5,2]>(a)", 11, 11, 7),
    ],
)
@pytest.mark.parametrize("recompute", [False, True])
def test_parts_of_a_split_are_those_of_onnxruntime(
    split: str, opset: int, channels: int, joined: int, recompute: bool
) -> None:
    shapes = {"w1": (channels, 3, 3, 3), "w2": (8, joined, 3, 3), "w3": (8, 4)}
    rng = np.random.default_rng(0)
    weights = {k: rng.standard_normal(shape).astype(np.float32) for k, shape in shapes.items()}
    if "sizes" in split:
        weights["sizes"] = np.array([3, 3, 5])
    model = text_model(SPLIT.format(split=split), weights, opset=opset)
    feeds = {"x": images(2, 3, 8, 8)}
    network = Network(model, trainable=["w1"], recompute=recompute)
    check_forward(network, model, feeds)
    network.run(feeds)["y"].sum().backward()
    gradient = network.weights["w1"].grad
    assert gradient is not None
    reached = (gradient.abs().sum(dim=(1, 2, 3)) > 0).tolist()
    used = channels - 2 if "unused" in split else channels
    assert reached == [True] * used + [False] * (channels - used)
