"""Latency and throughput of whole models against each other."""

from onnx_lowrank.measure.benchmarking.result import BenchReport, ContenderResult, SettingResult

__all__ = ["BenchReport", "ContenderResult", "SettingResult"]
