"""The last latency model of this machine, for those who want to know it without timing anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx_lowrank.cache import Cache, key_of
from onnx_lowrank.estimation.latency_model import LatencyModel
from onnx_lowrank.rewriting.form import Form
from onnx_lowrank.rewriting.forms import find_form
from onnx_lowrank.runtime.doctor import cpu_name

FORMAT = 1  # of the key: a higher one where other layers are timed, or other features taken


def keep_latencies(store: Cache, model: LatencyModel, forms: Sequence[Form]) -> None:
    """Keep a latency model and the forms that it is of."""
    names = [form.name for form in forms]
    store.put_data(_key(), {"model": model.to_dict(), "forms": names})


def last_latencies(store: Cache) -> tuple[LatencyModel, tuple[Form, ...]] | None:
    """Return the model that was kept last, and its forms; None without one."""

    def decode(data: Any) -> tuple[LatencyModel, tuple[Form, ...]]:
        return LatencyModel.from_dict(data["model"]), tuple(map(find_form, data["forms"]))

    return store.data(_key(), decode)


def _key() -> str:
    return key_of("last latency model", FORMAT, cpu_name())
