"""Turning a float model into a quantized one."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Callable, Optional, Sequence, Union

from . import _native
from .records import record

Path = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class LinearReport:
    """How one linear came out."""

    layer: int
    """The block; the number of blocks for the output layer."""
    role: str
    """``qkv``, ``out``, ``up``, ``down`` or ``head``."""
    expert: Optional[int]
    """Which expert it belongs to, in a mixture."""
    n: int
    """Output features."""
    k: int
    """Input features."""
    scheme: Optional[str]
    """How it is stored, where that differs from the run's usual four bits."""
    weight_nmse: float
    """Squared error of the output by the squared output, over the calibration tokens: rounded weights alone."""
    activation_nmse: float
    """The same for INT8 activations alone."""
    num_outliers: int
    """Input channels more than six times as loud as the median channel."""


@dataclass(frozen=True)
class QuantReport:
    """What a run did."""

    model: str
    """Name of the original's folder."""
    options: dict[str, str]
    """The options by name."""
    num_windows: int
    """Calibration windows."""
    window_tokens: int
    """Tokens in each."""
    notice: Optional[str]
    """What is to be known of the calibration text."""
    linears: list[LinearReport]
    """Every linear, in the order of execution."""
    num_resumed: int
    """Blocks that came from an earlier run."""


class Quantizer:
    """Turns the model in a Hugging Face folder into one with 4-bit weights and 8-bit activations."""

    def __init__(
        self,
        model: Path,
        out: Path,
        *,
        texts: Sequence[str] = (),
        files: Sequence[Path] = (),
        method: str = "compensate",
        group_size: Union[int, str] = 128,
        schemes: Sequence[str] = (),
        bits: Optional[float] = None,
        rotate: bool = False,
        hadamard_down: bool = False,
        smoothing: Optional[str] = None,
        activations: str = "per-token",
        kv_cache: str = "int8",
        lm_head: str = "int8",
        windows: Optional[int] = None,
        window_tokens: Optional[int] = None,
        device: str = "cpu",
        threads: int = 0,
        replace: bool = False,
        journal: str = "refuse",
        spill_above_gb: float = 1.0,
    ) -> None:
        """Quantizes ``model`` into the folder ``out``, which appears whole at the end.

        :param texts: calibration texts: a few thousand words of what the model will see; by default the bundled prose.
        :param files: calibration texts in files; of a ``.jsonl`` file each line is one, in its field ``text``.
        :param method: ``compensate``, ``two-phase`` (DGQ), ``exhaustive`` or ``rtn``.
        :param group_size: weights that share a group scale: 32, 64, 128 or ``"channel"``.
        :param schemes: other schemes for some linears, like ``"down=w8"`` or ``"3.down=w4/32"``.
        :param bits: bits a weight that the linears may take (from about 4.1 to 8.1): schemes are chosen under it.
        :param rotate: rotate the residual stream, so that no channel stands out.
        :param hadamard_down: transform the input of the feed-forward's last linear while the model runs.
        :param smoothing: ``auto``, ``off``, ``percentile:P`` or ``alpha:A``; by default ``auto``, with ``rotate`` ``off``.
        :param activations: ``per-token`` or ``static`` scales.
        :param kv_cache: ``int8``, ``int8-static`` or ``f16``.
        :param lm_head: the output layer: ``int8``, ``float`` or ``w4a8``.
        :param windows: calibration windows; by default 128 for ``compensate``, 32 for the other methods.
        :param window_tokens: tokens in each; by default 1024, or what the model has positions for.
        :param device: where the model runs meanwhile; the bytes of the result do not depend on it.
        :param threads: threads of the CPU; 0 takes all cores. The bytes of the result do not depend on them.
        :param replace: replace a quantized model at ``out``.
        :param journal: what to do about an earlier run that was not finished: ``refuse``, ``resume`` or ``restart``.
        :param spill_above_gb: calibration activations above so much are kept on disk.
        """
        self._arguments: dict[str, Any] = {
            "model": model,
            "out": out,
            "texts": [texts] if isinstance(texts, str) else list(texts),
            "files": [files] if isinstance(files, (str, os.PathLike)) else list(files),
            "method": method,
            "group_size": str(group_size),
            "schemes": [schemes] if isinstance(schemes, str) else list(schemes),
            "bits": bits,
            "rotate": rotate,
            "hadamard_down": hadamard_down,
            "smoothing": smoothing,
            "activations": activations,
            "kv_cache": kv_cache,
            "lm_head": lm_head,
            "windows": windows,
            "window_tokens": window_tokens,
            "device": device,
            "threads": threads,
            "replace": replace,
            "journal": journal,
            "spill_above_gb": spill_above_gb,
        }

    def run(self, progress: Optional[Callable[[str, int, int], Optional[bool]]] = None) -> QuantReport:
        """Quantizes, and returns when the folder is there.

        ``progress`` is told what is being done, how much of the work is done, and of how much; it ends the run by giving back ``False``
        or by raising. What is not finished changes nothing that existed; finished blocks wait for ``journal="resume"``.

        :raises ModelError: the original is missing, damaged, unsupported or quantized already.
        :raises ArgumentError: an option outside its range, a text without words.
        :raises QuantizationError: ``out`` can not be written, or something stands in the way.
        :raises Cancelled: ``progress`` gave back ``False``.
        """
        text, num_resumed = _native.quantize(self._arguments, progress)
        report = json.loads(text)
        report["num_resumed"] = num_resumed
        return record(QuantReport, report, options=dict, linears=lambda all: [record(LinearReport, each) for each in all])
