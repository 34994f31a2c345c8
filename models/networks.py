"""The networks that `train.py` trains, in torch, and their way into ONNX.

A network is one chain of named layers; the nodes of the ONNX graph take the layers' names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import onnx
import torch
from convert import Array, Chain
from torch import nn

CLASSES = 10


class LRN(nn.Module):
    """Local response normalisation: ``x / (1 + sum of squares of 5 channels / 5) ** 0.75``.

    Alpha is 1, not the usual 1e-4, because activations here are about 1, not about 100 as with
    pixels up to 255. The same as torch's layer, in less than half of the time of a training step:
    the sum is a 1x1 Conv, the power two square roots.
    """

    size, alpha, beta, bias = 5, 1.0, 0.75, 1.0

    def __init__(self, channels: int) -> None:
        super().__init__()
        index = torch.arange(channels)
        near = (index[:, None] - index).abs() <= self.size // 2
        weight = near.float()[:, :, None, None] * (self.alpha / self.size)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the normalised values, of the shape of `values`, N x C x H x W."""
        sums = nn.functional.conv2d(values * values, self.get_buffer("weight"))
        root = (self.bias + sums).rsqrt()
        return values * (root * root.sqrt())


def zf() -> nn.Sequential:
    """Return the network of Zeiler and Fergus, scaled from 224 to 56 pixels and 10 classes.

    Kept are the 7x7 stride-2 first layer on colour, the 5x5 stride-2 second one, LRN and
    overlapping pools after both, and 3x3 layers above. Of its multiply-adds 26 % are in conv1 and
    36 % in conv2. Input 3 x 56 x 56.
    """
    return _chain(
        conv1=nn.Conv2d(3, 48, 7, stride=2, padding=3),  # 28 x 28
        relu1=nn.ReLU(),
        lrn1=LRN(48),
        pool1=nn.MaxPool2d(3, stride=2, padding=1),  # 14 x 14
        conv2=nn.Conv2d(48, 128, 5, stride=2, padding=2),  # 7 x 7
        relu2=nn.ReLU(),
        lrn2=LRN(128),
        pool2=nn.MaxPool2d(3, stride=2, padding=1),  # 4 x 4
        conv3=nn.Conv2d(128, 192, 3, padding=1),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(192, 128, 3, padding=1),
        relu4=nn.ReLU(),
        flatten=nn.Flatten(),
        fc1=nn.Linear(2048, 512),
        relu5=nn.ReLU(),
        fc2=nn.Linear(512, CLASSES),
    )


def vgg() -> nn.Sequential:
    """Return a small VGG: five Convs, each with BatchNormalization before its ReLU.

    Input 3 x 28 x 28.
    """
    return _chain(
        conv1=nn.Conv2d(3, 32, 5, padding=2, bias=False),
        bn1=nn.BatchNorm2d(32),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),  # 14 x 14
        conv2=nn.Conv2d(32, 64, 3, padding=1, bias=False),
        bn2=nn.BatchNorm2d(64),
        relu2=nn.ReLU(),
        conv3=nn.Conv2d(64, 64, 3, padding=1, bias=False),
        bn3=nn.BatchNorm2d(64),
        relu3=nn.ReLU(),
        pool3=nn.MaxPool2d(2),  # 7 x 7
        conv4=nn.Conv2d(64, 128, 3, padding=1, bias=False),
        bn4=nn.BatchNorm2d(128),
        relu4=nn.ReLU(),
        conv5=nn.Conv2d(128, 128, 3, padding=1, bias=False),
        bn5=nn.BatchNorm2d(128),
        relu5=nn.ReLU(),
        pool5=nn.MaxPool2d(2),  # 3 x 3
        flatten=nn.Flatten(),
        fc1=nn.Linear(1152, 256),
        relu6=nn.ReLU(),
        fc2=nn.Linear(256, CLASSES),
    )


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {"zf": zf, "vgg": vgg}


def _chain(**layers: nn.Module) -> nn.Sequential:
    """Return the chain with He-normal weights, drawn from torch's generator, and biases 0."""
    network = nn.Sequential(OrderedDict(layers))
    for module in network:
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


def export(network: nn.Sequential, name: str, *, side: int) -> onnx.ModelProto:
    """Return a network as ONNX for inference; the batch size is left open.

    Parameters
    ----------
    network : torch.nn.Sequential
        Made of the layers above; batch statistics are taken as they stand.
    name : str
        Name of the graph.
    side : int
        Height and width of its input, ``image``: float32, N x 3 x side x side.

    Returns
    -------
    onnx.ModelProto
        One node per layer, named as the layer; output ``scores``, float32, N x 10, before any
        softmax.

    Raises
    ------
    TypeError
        A layer is of a kind that this does not write.
    """
    chain = Chain((3, side, side))
    for layer, module in network.named_children():
        parameters = {
            key: value.detach().cpu().numpy().astype(np.float32)
            for key, value in module.state_dict().items()
            if key != "num_batches_tracked"
        }
        _add(chain, layer, module, parameters)
    model = chain.model(name, CLASSES)
    onnx.checker.check_model(model, full_check=True)
    return model


def _add(chain: Chain, name: str, module: nn.Module, parameters: dict[str, Array]) -> None:
    """Append one layer; its parameters stand in the order in which ONNX reads them."""
    if isinstance(module, nn.Conv2d):
        pads = [int(pad) for pad in module.padding] * 2
        chain.add("Conv", name, parameters, strides=list(module.stride), pads=pads)
    elif isinstance(module, nn.Linear):
        chain.add("Gemm", name, parameters, transB=1)
    elif isinstance(module, nn.BatchNorm2d):
        chain.add("BatchNormalization", name, parameters, epsilon=module.eps)
    elif isinstance(module, LRN):
        settings = {key: getattr(module, key) for key in ("size", "alpha", "beta", "bias")}
        chain.add("LRN", name, **settings)
    elif isinstance(module, nn.MaxPool2d):
        sizes = (module.kernel_size, module.stride, module.padding)
        kernel, stride, pad = (int(value) for value in sizes)  # type: ignore[arg-type]
        chain.add("MaxPool", name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)
    elif isinstance(module, nn.ReLU):
        chain.add("Relu", name)
    elif isinstance(module, nn.Flatten):
        chain.add("Flatten", name)
    else:
        raise TypeError(f"{name}: no ONNX node for {type(module).__name__}; add its case")
