"""Models that went wrong: one to three changes at random places of the message tree.

Mutants know the structure of a model: a change puts a value of the right kind in a wrong place, or
an extreme one in a right place, so that most of them get past the parser of protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import DecodeError

INTEGERS = [-1, 0, 1, 2, 3, 7, 255, 2**31 - 1, -(2**31), 2**32, 2**40, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e38, 1e-45]
TEXTS = [
    *("", "x", "Conv", "Relu", "If", "ai.onnx", "com.microsoft", "onnx_lowrank", "NOTSET", "axis"),
    *("[bold]red[/]", "[/x]", "a\x1b[31mb", "a\nb", "a\0b", "\u202eabc", "<script>", "a" * 300),
    *("../../etc/passwd", "/etc/passwd", "%s%n", "='a'", "é日本", "-o", "*", "\x9b31m", "$x$"),
]
DEEP = 24  # bodies inside bodies: protobuf ends at 100 messages


def mutants(models: list[onnx.ModelProto], count: int, seed: int) -> Iterator[bytes]:
    """Yield serialised mutants of models that are taken in turn.

    Parameters
    ----------
    models : list of ModelProto
        Not changed.
    count : int
        How many.
    seed : int
        Fixes them all.
    """
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        yield mutant(models[number % len(models)], rng, models)


def mutant(
    model: onnx.ModelProto, rng: np.random.Generator, others: list[onnx.ModelProto]
) -> bytes:
    """Return one mutant: of the messages, or at times of the bytes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(int(rng.integers(1, 4))):
        kind = rng.integers(0, 20)
        with suppress(DecodeError):  # nested too deeply for protobuf itself
            if kind == 0:
                _nest(copy, rng)
            elif kind == 1:
                _recurse(copy, rng)
            elif kind == 2:
                _externalise(copy, rng)
            else:
                _change(copy, rng, others)
    data = bytearray(copy.SerializeToString())
    if rng.integers(0, 30) == 0 and data:
        if rng.integers(0, 2):
            data = data[: int(rng.integers(1, len(data) + 1))]
        else:
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(0, 256)
    return bytes(data)


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE:
            for each in value if field.is_repeated else [value]:
                yield from _messages(each)


def _change(model: onnx.ModelProto, rng: np.random.Generator, others: list[Any]) -> None:
    """Change one field of one message."""
    found = list(_messages(model))
    message = found[rng.integers(0, len(found))]
    fields = [field for field, _ in message.ListFields()]
    if rng.integers(0, 4) == 0 or not fields:
        fields = list(message.DESCRIPTOR.fields)
    field = fields[rng.integers(0, len(fields))]
    name = field.name
    if field.is_repeated:
        _change_list(model, message, field, rng, others)
    elif rng.integers(0, 4) == 0:
        message.ClearField(name)
    elif field.type == Field.TYPE_MESSAGE:
        same = _others(field, rng, [model, *others])
        if same is not None:
            getattr(message, name).CopyFrom(same)
    else:
        setattr(message, name, _value(model, message, field, rng))


def _change_list(
    model: Any, message: Any, field: Any, rng: np.random.Generator, others: list[Any]
) -> None:
    items = getattr(message, field.name)
    kind = rng.integers(0, 5)
    place = int(rng.integers(0, len(items))) if len(items) else 0
    if kind == 0 and len(items):
        del items[place]
    elif kind == 1 and len(items):
        copied = [items[place]]
        items.extend(copied)
    elif kind == 2 and len(items) > 1:
        order = rng.permutation(len(items))
        values = list(items)
        if field.type == Field.TYPE_MESSAGE:
            values = [type(v).FromString(v.SerializeToString()) for v in values]
        del items[:]
        items.extend([values[i] for i in order])
    elif field.type == Field.TYPE_MESSAGE:
        same = _others(field, rng, [model, *others])
        if same is not None:
            items.add().CopyFrom(same)
    elif len(items) and kind == 3:
        items[place] = _value(model, message, field, rng)
    else:
        items.append(_value(model, message, field, rng))


def _others(field: Any, rng: np.random.Generator, models: list[Any]) -> Any:
    """Return a message of a field's type from any of the models, as a copy."""
    source = models[rng.integers(0, len(models))]
    same = [m for m in _messages(source) if m.DESCRIPTOR is field.message_type]
    if not same:
        return None
    chosen = same[rng.integers(0, len(same))]
    return type(chosen).FromString(chosen.SerializeToString())


def _value(model: Any, message: Any, field: Any, rng: np.random.Generator) -> Any:
    if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        return FLOATS[rng.integers(0, len(FLOATS))]
    if field.type == Field.TYPE_BYTES:
        old = getattr(message, field.name)
        old = old if isinstance(old, bytes) else b""
        return [b"", old[:-1], old + b"\0", b"\xff" * len(old), b"\xff\xfe"][rng.integers(0, 5)]
    if field.type == Field.TYPE_STRING:
        if rng.integers(0, 2):  # a name of another thing in the same model
            names = [n for node in model.graph.node for n in (node.name, *node.input, *node.output)]
            names += [node.op_type for node in model.graph.node]
            if names:
                return names[rng.integers(0, len(names))]
        return TEXTS[rng.integers(0, len(TEXTS))]
    value = INTEGERS[rng.integers(0, len(INTEGERS))]
    if field.type == Field.TYPE_ENUM:
        numbers = [value.number for value in field.enum_type.values]
        return numbers[rng.integers(0, len(numbers))]
    if field.type in (Field.TYPE_INT32, Field.TYPE_UINT32):
        value = max(min(value, 2**31 - 1), -(2**31))
    if field.type in (Field.TYPE_UINT32, Field.TYPE_UINT64):
        value = abs(value) if value > -(2**63) else 2**63
    return value


def _nest(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Put the graph's nodes into bodies inside bodies."""
    outputs = [value.name for value in model.graph.output]
    constant = [onnx.helper.make_node("Constant", [], [name], value_float=0.0) for name in outputs]
    other = onnx.helper.make_graph(constant, "other", [], model.graph.output)
    for _ in range(int(rng.integers(1, DEEP))):
        inner = onnx.GraphProto()
        inner.CopyFrom(model.graph)
        del inner.input[:]
        node = onnx.helper.make_node("If", ["c"], outputs, then_branch=inner, else_branch=other)
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.append(node)
    truth = onnx.helper.make_tensor("c", onnx.TensorProto.BOOL, [], [True])
    model.graph.initializer.append(truth)


def _recurse(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Add functions that call each other, and call one."""
    for name, called in (("F", "G"), ("G", "F" if rng.integers(0, 2) else "Relu")):
        body = [onnx.helper.make_node(called, ["a"], ["b"], domain="my")]
        opset = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("my", 1)]
        model.functions.append(onnx.helper.make_function("my", name, ["a"], ["b"], body, opset))
    if rng.integers(0, 2):
        model.opset_import.append(onnx.helper.make_opsetid("my", 1))
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "F", "my"


def _externalise(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Say of a tensor that its data are elsewhere."""
    if not model.graph.initializer:
        return
    tensor = model.graph.initializer[rng.integers(0, len(model.graph.initializer))]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    keys = ["location", "offset", "length", "checksum", "\0"]
    for key in keys[: int(rng.integers(0, 5))]:
        entry = tensor.external_data.add()
        entry.key = key
        text = [*TEXTS, "data.bin", str(2**63), "-1", "1e9", "99999999999999999999"]
        entry.value = text[rng.integers(0, len(text))]
    if rng.integers(0, 2):
        tensor.ClearField("raw_data")
