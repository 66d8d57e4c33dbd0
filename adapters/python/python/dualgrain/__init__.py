"""Large language models with 4-bit weights and 8-bit activations: quantize, run, judge and price them.

>>> import dualgrain
>>> dualgrain.Quantizer("llama-3.2-1b", "llama-3.2-1b-w4a8").run()          # doctest: +SKIP
>>> engine = dualgrain.Engine("llama-3.2-1b-w4a8")                          # doctest: +SKIP
>>> engine.generate("The old captain", max_tokens=32).text                  # doctest: +SKIP

Long calls give Python's lock up, so other threads run meanwhile, and look for signals, so Ctrl-C ends them. Everything that goes
wrong is a :class:`DualgrainError` of one of the kinds in :mod:`dualgrain.errors`.
"""

from __future__ import annotations

from .engine import Engine, Generation, Piece, Stream, TokenLogprobs
from .errors import (
    ArgumentError,
    Cancelled,
    DeviceError,
    DualgrainError,
    InternalError,
    ModelError,
    OutOfMemoryError,
    QuantizationError,
)
from .evaluation import Divergence, Evaluation, Percentiles, Perplexity, TaskScore, evaluate
from .pricing import BatchCost, Cost, CostItem, Interval, Memory, Prediction, cost, machines, predict
from .quantizer import LinearReport, QuantReport, Quantizer

__all__ = [
    "ArgumentError",
    "BatchCost",
    "Cancelled",
    "Cost",
    "CostItem",
    "DeviceError",
    "Divergence",
    "DualgrainError",
    "Engine",
    "Evaluation",
    "Generation",
    "InternalError",
    "Interval",
    "LinearReport",
    "Memory",
    "ModelError",
    "OutOfMemoryError",
    "Percentiles",
    "Perplexity",
    "Piece",
    "Prediction",
    "QuantReport",
    "QuantizationError",
    "Quantizer",
    "Stream",
    "TaskScore",
    "TokenLogprobs",
    "cost",
    "evaluate",
    "machines",
    "predict",
]
