"""How good a model is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Callable, Optional, Sequence, Union

from . import _native
from .records import record

Path = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Perplexity:
    """Perplexity on a text."""

    perplexity: float
    """exp of the mean negative log-likelihood of a token."""
    perplexity_stderr: float
    """Its standard error."""
    mean_nll: float
    """Mean negative log-likelihood of a token, in nats."""
    mean_nll_stderr: float
    """Its standard error."""
    tokens: int
    """Predictions."""
    windows: int
    """Windows of the text."""
    context: int
    """Tokens of a window."""


@dataclass(frozen=True)
class Percentiles:
    """How a quantity is spread over positions."""

    median: float
    p90: float
    p95: float
    p99: float
    p99_9: float
    max: float


@dataclass(frozen=True)
class Divergence:
    """A model beside the original it was made from."""

    perplexity: float
    perplexity_stderr: float
    perplexity_reference: float
    """Of the original."""
    perplexity_reference_stderr: float
    perplexity_ratio: float
    """The model's perplexity by the original's."""
    perplexity_ratio_stderr: float
    """From paired predictions: far smaller than those of the two perplexities."""
    kl_divergence: float
    """Mean KL(original || model) over all positions, in nats."""
    kl_divergence_stderr: float
    kl_percentiles: Percentiles
    top1_agreement: float
    """Share of positions where both find the same token likeliest."""
    top1_agreement_stderr: float
    tokens: int
    windows: int
    context: int


@dataclass(frozen=True)
class TaskScore:
    """A model's result on a task."""

    task: str
    """Name of the file without its ending."""
    form: str
    """``choices``, ``contexts``, ``letters`` or ``continuation``."""
    items: int
    accuracy: float
    """Share of items whose right option is the likeliest; of ``continuation`` whose continuation is the greedy one."""
    accuracy_stderr: float
    accuracy_byte_normalized: Optional[float]
    """The same with log-likelihoods divided by the bytes of their options (``choices`` only)."""
    accuracy_byte_normalized_stderr: Optional[float]
    perplexity: Optional[float]
    """exp of the mean negative log-likelihood of a continuation (``continuation`` only)."""
    perplexity_stderr: Optional[float]
    cut_items: int
    """Items of which a context had to be cut."""


@dataclass(frozen=True)
class Evaluation:
    """Quality of a model, as far as it was asked for."""

    bits_per_weight: float
    """Stored bits of the blocks' linears over their weights."""
    file_bytes: int
    """Bytes of the folder's tensors."""
    perplexity: Optional[Perplexity]
    """On the text."""
    divergence: Optional[Divergence]
    """From the original, on the first windows of the text."""
    tasks: list[TaskScore]
    """The tasks, in the order they were named."""
    tasks_reference: list[TaskScore]
    """The same tasks by the original."""


def evaluate(
    model: Path,
    *,
    reference: Optional[Path] = None,
    text: Optional[Path] = None,
    tasks: Sequence[Path] = (),
    context: Optional[int] = None,
    windows: Optional[int] = None,
    divergence_windows: int = 40,
    limit: Optional[int] = None,
    kv_cache: Optional[str] = None,
    device: str = "cpu",
    threads: int = 0,
    progress: Optional[Callable[[str, int, int], Optional[bool]]] = None,
) -> Evaluation:
    """Judges the model in a folder, as ``dualgrain eval`` does.

    :param reference: folder of the original: divergence from it, and the tasks by it too.
    :param text: file to measure perplexity on; without it and without ``tasks`` the bundled prose.
    :param tasks: task files in JSONL form.
    :param context: tokens in a window; windows do not overlap.
    :param windows: only the first windows of the text.
    :param divergence_windows: windows of the divergence, the first ones.
    :param limit: only the first items of each task.
    :param kv_cache: ``f32``, ``f16`` or ``int8`` instead of the folder's own.
    :param device: ``auto``, ``cpu`` or ``cuda:N``.
    :param threads: threads of the CPU; 0 takes all cores. No number depends on them.
    :param progress: is told what is being done, how much of it is done and of how much; ``False`` ends the run.
    """
    arguments = {
        "model": model,
        "reference": reference,
        "text": text,
        "tasks": [tasks] if isinstance(tasks, (str, os.PathLike)) else list(tasks),
        "context": context,
        "windows": windows,
        "divergence_windows": divergence_windows,
        "limit": limit,
        "kv_cache": kv_cache,
        "device": device,
        "threads": threads,
    }

    def scores(all: list[dict[str, object]]) -> list[TaskScore]:
        return [record(TaskScore, each) for each in all]

    return record(
        Evaluation,
        json.loads(_native.evaluate(arguments, progress)),
        perplexity=lambda values: record(Perplexity, values),
        divergence=lambda values: record(Divergence, values, kl_percentiles=lambda each: record(Percentiles, each)),
        tasks=scores,
        tasks_reference=scores,
    )
