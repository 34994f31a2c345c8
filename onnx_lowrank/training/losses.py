"""What training minimises: the error of labels, the distance from the original model, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.nn import functional

from onnx_lowrank.data.dataset import rows_of
from onnx_lowrank.errors import DataError, ModelError
from onnx_lowrank.runtime import model_inputs
from onnx_lowrank.training.classes import class_output, class_scores, score_tensor
from onnx_lowrank.training.executor import Network
from onnx_lowrank.training.parameters import shared_features
from onnx_lowrank.training.settings import LossName
from onnx_lowrank.types import Feeds

Labels = NDArray[np.int64]

# Softer than the models' own: the order of the wrong classes tells how the original sees an image.
TEMPERATURE = 2.0


@dataclass(frozen=True)
class Outcome:
    """A loss over some images.

    Attributes
    ----------
    loss : torch.Tensor
        Mean over the images; a scalar.
    right : int or None
        Number of images whose highest score is at their label.
    agreeing : int or None
        Number of images whose highest score is where the original has it.
    """

    loss: torch.Tensor
    right: int | None
    agreeing: int | None


class Loss:
    """The loss of a compressed model on some images.

    Labels: the cross-entropy. Distillation: the Kullback-Leibler divergence from the original's
    class probabilities at `TEMPERATURE`, times its square (Hinton et al. 2015), plus the mean over
    the replaced layers of their output's squared error, relative to the original's squared output.
    Outputs that hold no scores of classes are among the latter.

    Parameters
    ----------
    original, compressed : onnx.ModelProto
        The models.
    kind : {"labels", "distill", "both"}
        Which of them.
    network : Network
        The compressed model in torch.
    feeds : dict of str to ndarray
        Inputs that tell whether it is a classifier.

    Raises
    ------
    ModelError
        It is none, and labels are wanted.
    """

    def __init__(
        self,
        original: onnx.ModelProto,
        compressed: onnx.ModelProto,
        kind: LossName,
        network: Network,
        feeds: Feeds,
    ) -> None:
        self.kind, self._network = kind, network
        self._teacher = Network(original, device=network.device)
        self._features = [] if kind == "labels" else shared_features(original, compressed)
        self._scores: tuple[str, str] | None = None
        self._others: list[str] = list(network.outputs)
        try:
            with torch.no_grad():
                found = network.run(feeds, network.outputs)
            output = class_output(found, rows_of(model_inputs(original), feeds))
            self._scores = (score_tensor(original, output), score_tensor(compressed, output))
            self._others = [name for name in network.outputs if name != output]
        except ModelError:
            if kind != "distill":
                raise

    def __call__(self, feeds: Feeds, labels: Labels | None, *, agreement: bool = False) -> Outcome:
        """Compute the loss over a batch, with gradients where torch's mode asks for them.

        Parameters
        ----------
        feeds : dict of str to ndarray
            Inputs.
        labels : ndarray of int64, shape (N,), or None
            Classes.
        agreement : bool
            Whether to ask the original where the loss does not.

        Raises
        ------
        DataError
            Labels are wanted and missing, or out of range.
        """
        if labels is None and self.kind != "distill":
            raise DataError(
                f"the loss '{self.kind}' needs labels, but the data have none; take 'distill'"
            )
        # Tensors whose squared error counts, and those of scores, if there are.
        features = [*self._features, *self._others]
        theirs, ours = [[name] for name in self._scores] if self._scores else ([], [])
        found = self._network.run(feeds, [*features, *ours])
        expected: dict[str, torch.Tensor] = {}
        if self.kind != "labels" or agreement:
            with torch.no_grad():
                expected = self._teacher.run(feeds, [*features, *theirs])
        loss = torch.zeros((), device=self._network.device)
        if self.kind != "labels":
            loss = loss + _feature_error(found, expected, features)
        if not self._scores:
            return Outcome(loss, None, None)
        scores = class_scores(found[ours[0]])
        best, right, agreeing = scores.detach().argmax(dim=1), None, None
        if expected:
            teacher = class_scores(expected[theirs[0]])
            agreeing = int((best == teacher.argmax(dim=1)).sum())
            if self.kind != "labels":
                loss = loss + _divergence(scores, teacher)
        if labels is not None:
            target = torch.from_numpy(labels).to(scores.device)
            if int(target.max()) >= scores.shape[1]:
                raise DataError(
                    f"label {int(target.max())} is not one of {scores.shape[1]} classes; "
                    "check the labels"
                )
            right = int((best == target).sum())
            if self.kind != "distill":
                loss = loss + functional.cross_entropy(scores, target)
        return Outcome(loss, right, agreeing)


def _divergence(scores: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    ours = functional.log_softmax(scores / TEMPERATURE, dim=1)
    theirs = functional.log_softmax(teacher / TEMPERATURE, dim=1)
    divergence = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return TEMPERATURE**2 * divergence


def _feature_error(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], names: Sequence[str]
) -> torch.Tensor:
    errors = [
        (found[name] - expected[name]).square().sum()
        / expected[name].square().sum().clamp_min(torch.finfo(torch.float32).tiny)
        for name in names
    ]
    return torch.stack(errors).mean() if errors else torch.zeros(())
