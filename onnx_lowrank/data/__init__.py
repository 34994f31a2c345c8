"""Inputs for calibration, evaluation and verification."""

from onnx_lowrank.data.dataset import Batch, Dataset
from onnx_lowrank.data.open import open_dataset
from onnx_lowrank.data.options import DataOptions
from onnx_lowrank.data.preprocess import PRESETS, Preprocess
from onnx_lowrank.data.random import random_dataset

__all__ = [
    "PRESETS",
    "Batch",
    "DataOptions",
    "Dataset",
    "Preprocess",
    "open_dataset",
    "random_dataset",
]
