"""Exceptions of this package; every message names the cause and says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OnnxLowRankError(Exception):
    """Base of all errors raised on purpose; the command line prints the message and exits 2."""


class ModelError(OnnxLowRankError):
    """A model cannot be read, is invalid, or has nothing to work on."""


class OutputError(OnnxLowRankError):
    """A result cannot be written where it was asked for."""


class PlanError(OnnxLowRankError):
    """A plan names an unknown layer, or a scheme that a layer cannot take."""


class SchemeError(OnnxLowRankError):
    """A scheme specification is malformed, or does not apply to a layer."""


class DataError(OnnxLowRankError):
    """Input data cannot be read or do not fit the model."""


class ProviderError(OnnxLowRankError):
    """An engine is missing or does not work, or onnxruntime did not use the provider asked for."""


class ClusterError(OnnxLowRankError):
    """A cluster cannot be reached, or cannot do the work."""


class CacheWarning(UserWarning):
    """Results kept on disk cannot be used, and are computed again."""


class UsageError(OnnxLowRankError):
    """The command line cannot be read."""


def describe_error(error: BaseException) -> str:
    """Return the class of an error and what it says, for one that was raised by others' code."""
    try:
        text = str(error)
    except Exception:  # its own code may fail too
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for names near `name`, else ``""``.

    Parameters
    ----------
    name : str
        The name that was not found.
    known : iterable of str
        The names that exist.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if not near and name:
        near = [other for other in names if name.lower() in other.lower()][:3]
    if not near:
        return ""
    return "; did you mean " + " or ".join(f"'{n}'" for n in near) + "?"
