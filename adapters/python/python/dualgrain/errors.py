"""What can go wrong, by kind. Messages say what happened, where, what was expected and what to do.

Ctrl-C raises ``KeyboardInterrupt``, as everywhere in Python; what was under way has ended then.
"""

from __future__ import annotations


class DualgrainError(Exception):
    """The base of all errors of this package."""


class ModelError(DualgrainError):
    """A folder or a file of a model is missing, damaged or unsupported."""


class ArgumentError(DualgrainError, ValueError):
    """An argument is of the wrong kind, outside its range, or does not fit the model or the text."""


class DeviceError(DualgrainError):
    """A device is not there, can not be opened, or failed."""


class OutOfMemoryError(DualgrainError, MemoryError):
    """A model does not fit the memory; the message says what would."""


class QuantizationError(DualgrainError):
    """A model could not be quantized: its output can not be written, or an earlier run stands in the way."""


class Cancelled(DualgrainError):
    """A run was ended from inside the program: its ``progress`` gave back ``False``, or its stream was closed."""


class InternalError(DualgrainError):
    """A fault of this package. An engine that raised it while it generated is not used any more."""
