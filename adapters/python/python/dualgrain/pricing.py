"""What a language model, or one matrix product, will cost in time, power and energy before it runs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Union

from . import _native
from .records import record

Path = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Interval:
    """A prediction with the interval that holds nine of ten measurements."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Memory:
    """Memory that a model holds while it runs."""

    weights_bytes: int
    cache_bytes: int
    workspace_bytes: int
    total_bytes: int
    machine_bytes: int
    fits: bool


@dataclass(frozen=True)
class CostItem:
    """Something that costs time."""

    name: str
    phase: str
    """``prompt`` or ``decode``."""
    count: int
    """How often the whole run does it."""
    shape: Optional[list[int]]
    """M, N and K of a product; ``None`` for estimates."""
    kernel: str
    config: str
    estimate: bool
    """No measured product stands behind it, and its interval is a pair of bounds."""
    extrapolated: bool
    """It lies outside what was measured: its interval promises nothing."""
    time_s: Interval
    share: float
    """Of the whole time."""
    energy_j: Optional[Interval]


@dataclass(frozen=True)
class BatchCost:
    """The cost of one batch size."""

    batch: int
    time_to_first_token_s: Interval
    decode_tokens_per_s: Optional[Interval]
    """Of all sequences together."""
    total_time_s: Interval
    joules_per_token: Optional[Interval]
    """While generating."""
    prompt_joules_per_token: Optional[Interval]
    total_joules_per_token: Optional[Interval]
    memory: Memory
    products: list[CostItem]
    """The most expensive products, first the worst."""
    estimates: list[CostItem]
    """What is no product."""
    estimated_share: float
    extrapolated_share: float


@dataclass(frozen=True)
class Cost:
    """What a language model will cost on a machine."""

    model: str
    machine: str
    threads: Optional[int]
    """Of a CPU."""
    scheme: str
    head_scheme: str
    prompt_tokens: int
    generate_tokens: int
    step_tokens: int
    batches: list[BatchCost]
    """One for each batch size."""
    assumptions: list[str]
    """What was assumed, in sentences."""


@dataclass(frozen=True)
class Prediction:
    """What a product costs in one configuration of a kernel. Power and energy are there where the machine's rows had them."""

    kernel: str
    config: str
    output: str
    """Type of D."""
    time_s: Interval
    power_w: Optional[Interval]
    energy_j: Optional[Interval]
    ops_per_s: Interval
    ops_per_j: Optional[Interval]
    extrapolated: bool
    """It lies outside what was measured: the intervals promise nothing."""


def machines() -> list[str]:
    """Machines whose fitted models come with the package; ``cpu`` is another name of the CPU among them."""
    return _native.machines()


def cost(
    model: Path,
    *,
    machine: str = "h200",
    fitted: Optional[Path] = None,
    batch: Union[int, Sequence[int]] = (1, 8, 32),
    prompt_tokens: Optional[int] = None,
    generate_tokens: int = 64,
    step_tokens: Optional[int] = None,
    scheme: str = "w4a8",
    lm_head: Optional[str] = None,
    kv_cache: Optional[str] = None,
    by: str = "time",
    threads: Optional[int] = None,
) -> Cost:
    """Prices the model in a folder, or in a config.json: no weights are needed.

    :param machine: one of :func:`machines`.
    :param fitted: another fitted model, a file of ``dualgrain fit``.
    :param batch: sequences at once; each number is priced on its own.
    :param prompt_tokens: tokens of each prompt; by default 512, or what the model's positions leave.
    :param step_tokens: tokens that a step of the prompts runs at most; by default as many as models run with.
    :param scheme: ``w4a8``, ``w8a8`` or ``bf16``.
    :param lm_head: the output layer: ``float``, ``int8`` or ``w4a8``; by default as the folder says.
    :param kv_cache: ``int8``, ``int8-static`` or ``f16``; by default as the folder says.
    :param by: what each product's kernel makes least: ``time``, ``energy`` or ``edp``.
    :param threads: of a CPU; by default the most that were measured.
    """
    arguments = {
        "model": model,
        "machine": machine,
        "fitted": fitted,
        "batch": [batch] if isinstance(batch, int) else list(batch),
        "prompt_tokens": prompt_tokens,
        "generate_tokens": generate_tokens,
        "step_tokens": step_tokens,
        "scheme": scheme,
        "lm_head": lm_head,
        "kv_cache": kv_cache,
        "by": by,
        "threads": threads,
    }
    return record(Cost, json.loads(_native.cost(arguments)), batches=lambda all: [_batch(each) for each in all])


def predict(
    m: int,
    n: int,
    k: int,
    *,
    kernel: str = "w4a8",
    config: Optional[str] = None,
    machine: str = "h200",
    fitted: Optional[Path] = None,
    group_size: int = 128,
    layout: str = "nt",
    alpha: float = 1.0,
    beta: float = 0.0,
    output: Optional[str] = None,
    threads: Optional[int] = None,
) -> list[Prediction]:
    """Predicts the product ``D[M,N] = alpha * A[M,K] * B + beta * D`` in every configuration that was measured, the fastest first.

    :param kernel: a kernel, or the types of all that are asked for (``w4a8``, ``bf16``, ``int8``).
    :param config: one configuration only.
    :param machine: one of :func:`machines`.
    :param fitted: another fitted model, a file of ``dualgrain fit``.
    :param group_size: weights along K that share a group scale; 0 means none, or one a row.
    :param layout: which operands are stored transposed; the first letter is A's.
    :param output: type of D; by default for each kernel what it was mostly measured with.
    :param threads: of a CPU; by default every number that was measured.
    """
    arguments = {
        "m": m,
        "n": n,
        "k": k,
        "kernel": kernel,
        "config": config,
        "machine": machine,
        "fitted": fitted,
        "group_size": group_size,
        "layout": layout,
        "alpha": alpha,
        "beta": beta,
        "output": output or "",
        "threads": threads,
    }
    intervals = dict.fromkeys(("time_s", "power_w", "energy_j", "ops_per_s", "ops_per_j"), _interval)
    return [record(Prediction, each, **intervals) for each in json.loads(_native.predict(arguments))]


def _interval(values: dict[str, Any]) -> Interval:
    return record(Interval, values)


def _items(all: list[dict[str, Any]]) -> list[CostItem]:
    return [record(CostItem, each, time_s=_interval, energy_j=_interval) for each in all]


def _batch(values: dict[str, Any]) -> BatchCost:
    names = (
        "time_to_first_token_s",
        "decode_tokens_per_s",
        "total_time_s",
        "joules_per_token",
        "prompt_joules_per_token",
        "total_joules_per_token",
    )
    intervals = dict.fromkeys(names, _interval)
    memory = lambda each: record(Memory, each)  # noqa: E731
    return record(BatchCost, values, memory=memory, products=_items, estimates=_items, **intervals)
