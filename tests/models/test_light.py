from __future__ import annotations

from math import prod

import fetch
import light
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper


def original(name: str) -> onnx.ModelProto:
    network = fetch.NETWORKS[name]
    assert isinstance(network, fetch.Light)
    return onnx.load(fetch.light_folder() / network.file)


def materialised(name: str) -> onnx.ModelProto:
    return light.materialise(original(name), np.random.default_rng(light.SEED))


LIGHT = [name for name, network in fetch.NETWORKS.items() if isinstance(network, fetch.Light)]
# The other two, alexnet and vgg19, are chains of the same nodes as zfnet512, at up to 575 MB.
RUN = ["zfnet512", "squeezenet", "resnet50", "inception_v1", "inception_v2", "densenet121"]


@pytest.mark.parametrize("name", ["zfnet512", "resnet50"])
def test_the_bytes_depend_on_the_seed_alone(name: str) -> None:
    source = original(name)
    before = source.SerializeToString()
    first = light.materialise(source, np.random.default_rng(1)).SerializeToString()
    second = light.materialise(source, np.random.default_rng(1)).SerializeToString()
    assert first == second
    assert first != light.materialise(source, np.random.default_rng(2)).SerializeToString()
    assert source.SerializeToString() == before


@pytest.mark.parametrize("name", RUN)
def test_the_structure_stays(name: str) -> None:
    source, made = original(name), materialised(name)
    onnx.checker.check_model(made)
    assert made.ir_version == source.ir_version
    assert made.opset_import == source.opset_import
    kept = [node for node in source.graph.node if node.op_type != "ConstantOfShape"]
    assert list(made.graph.node) == kept
    assert made.graph.output == source.graph.output

    # Every filler has become an initializer of the shape that it filled.
    stored = {tensor.name: tensor for tensor in source.graph.initializer}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in made.graph.initializer}
    fillers = [node for node in source.graph.node if node.op_type == "ConstantOfShape"]
    assert fillers
    for node in fillers:
        wanted = tuple(numpy_helper.to_array(stored[node.input[0]]))
        assert shapes[node.output[0]] == wanted
        assert node.input[0] not in shapes
    # IR 3: every initializer is an input too, and the one other input is the image.
    names = [value.name for value in made.graph.input]
    assert len(names) == len(set(names))
    assert len(set(names) - set(shapes)) == 1
    assert set(shapes) <= set(names)


def test_weights_are_he_normal() -> None:
    made = materialised("zfnet512")
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    for node in made.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight, bias = (values[name] for name in node.input[1:3])
            expected = np.sqrt(2 / prod(weight.shape[1:]))
            # The deviation of a sample deviation of n normals is 1/sqrt(2n): five of them.
            assert np.std(weight) == pytest.approx(expected, rel=5 / np.sqrt(2 * weight.size))
            assert abs(np.mean(weight)) < 5 * expected / np.sqrt(weight.size)
            assert not bias.any()


@pytest.mark.parametrize("name", RUN)
def test_outputs_are_finite_and_tell_inputs_apart(name: str) -> None:
    model = materialised(name)
    for node in model.graph.node:
        if node.op_type == "Softmax":
            model.graph.output.append(onnx.ValueInfoProto(name=node.input[0]))
    options = ort.SessionOptions()
    options.log_severity_level = 3  # one unused initializer in the source
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    assert entry.shape == [1, 3, 224, 224]
    rng = np.random.default_rng(0)
    # Patches of 32 pixels: a network that ends in a global average cannot tell white noises apart.
    first, second = (
        session.run(None, {entry.name: np.kron(patches, np.ones((32, 32), np.float32))})
        for patches in rng.standard_normal((2, 1, 3, 7, 7), dtype=np.float32)
    )
    assert all(np.isfinite(output).all() for output in [*first, *second])
    # Unit inputs give scores of the order of one, far above rounding, and no saturated softmax.
    assert 0.1 < np.std(first[-1]) < 10
    assert np.std(first[-1] - second[-1]) > 0.01
    if len(first) == 2:
        assert first[0].max() < 0.99


def test_a_parameter_of_unknown_role_is_refused() -> None:
    graph = onnx.parser.parse_graph(
        "g (float[2] x) => (float[2] y) <int64[1] s = {2}> { w = ConstantOfShape(s) y = Pow(x, w) }"
    )
    model = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)]
    )
    with pytest.raises(ValueError, match="'w' of Pow has no known role"):
        light.materialise(model, np.random.default_rng(0))


def test_an_initializer_is_no_input_from_ir_4_on() -> None:
    source = original("squeezenet")
    source.ir_version = 8
    stored = {tensor.name for tensor in source.graph.initializer}
    inputs = [value for value in source.graph.input if value.name not in stored]
    del source.graph.input[:]
    source.graph.input.extend(inputs)
    made = light.materialise(source, np.random.default_rng(0))
    assert [value.name for value in made.graph.input] == ["data_0"]


def test_all_light_networks_are_listed() -> None:
    assert set(LIGHT) == {*RUN, "alexnet", "vgg19"}
