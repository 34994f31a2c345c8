from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")
networks = pytest.importorskip("networks")

SIDES = {"zf": 56, "vgg": 28}
BLOCK = "Conv BatchNormalization Relu "
OPS = {
    "zf": 2 * "Conv Relu LRN MaxPool " + 2 * "Conv Relu " + "Flatten Gemm Relu Gemm",
    "vgg": BLOCK + 2 * ("MaxPool " + 2 * BLOCK) + "MaxPool Flatten Gemm Relu Gemm",
}


@pytest.fixture(params=SIDES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def randomised(name: str):  # type: ignore[no-untyped-def]
    """A network whose every parameter and statistic is random."""
    torch.manual_seed(1)
    network = networks.NETWORKS[name]().eval()
    with torch.no_grad():
        for module in network:
            if isinstance(module, torch.nn.BatchNorm2d):
                for value in (module.weight, module.running_var):
                    value.uniform_(0.5, 2)
                module.running_mean.normal_()
            if getattr(module, "bias", None) is not None and not isinstance(module, networks.LRN):
                module.bias.normal_()
    return network


def test_onnxruntime_computes_what_torch_does(name: str) -> None:
    network = randomised(name)
    model = networks.export(network, name, side=SIDES[name])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch in (1, 5):
        inputs = rng.uniform(-2, 2, (batch, 3, SIDES[name], SIDES[name])).astype(np.float32)
        (found,) = session.run(["scores"], {"image": inputs})
        with torch.inference_mode():
            expected = network(torch.from_numpy(inputs)).numpy()
        assert found.shape == (batch, 10)
        assert expected.std() > 0.1  # it does compute something
        # Sums of at most 2048 float32 terms in another order: an error of about sqrt(2048) eps =
        # 5e-6 of a layer's values a layer, and of these there are 7.
        np.testing.assert_allclose(found, expected, rtol=0, atol=4e-5 * np.abs(expected).max())


def test_graph_is_as_documented(name: str) -> None:
    network = networks.NETWORKS[name]()
    model = networks.export(network, name, side=SIDES[name])
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 13)
    nodes = model.graph.node
    assert [node.op_type for node in nodes] == OPS[name].split()
    assert [node.name for node in nodes] == [key for key, _ in network.named_children()]
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param == "N"
    assert [dim.dim_value for dim in shape][1:] == [3, SIDES[name], SIDES[name]]
    # BatchNormalization reads scale, bias, mean and variance in this order.
    for node in nodes:
        keys = [text.removeprefix(f"{node.name}.") for text in node.input[1:]]
        if node.op_type == "BatchNormalization":
            assert keys == ["weight", "bias", "running_mean", "running_var"]
        elif node.op_type == "Conv" and name == "vgg":
            assert keys == ["weight"]
        elif node.op_type in ("Conv", "Gemm"):
            assert keys == ["weight", "bias"]
        else:
            assert keys == []


def test_lrn_is_that_of_torch() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (2, 9, 4, 3))).float()
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    found = networks.LRN(9)(ours)
    expected = torch.nn.functional.local_response_norm(theirs, 5, alpha=1.0, beta=0.75, k=1.0)
    # A few roundings each: sums of 5, a power.
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=2e-6)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)


def test_weights_are_seeded_and_he_normal(name: str) -> None:
    first, again, other = (
        torch.manual_seed(seed) and networks.NETWORKS[name]() for seed in (0, 0, 1)
    )
    for one, two, three in zip(
        first.parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one, two)
        if one.ndim > 1:
            assert not torch.equal(one, three)
            deviation = (2 / one[0].numel()) ** 0.5
            # Standard error of a deviation from n values: deviation / sqrt(2 n).
            assert one.std().item() == pytest.approx(deviation, rel=5 / (2 * one.numel()) ** 0.5)


def test_an_unknown_layer_is_refused() -> None:
    network = torch.nn.Sequential()
    network.add_module("act", torch.nn.GELU())
    with pytest.raises(TypeError, match="act: no ONNX node for GELU"):
        networks.export(network, "odd", side=8)
