"""What is wrong is told in words, by kind, and nothing panics or hangs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Callable

import pytest

import dualgrain
from dualgrain import ArgumentError, DeviceError, DualgrainError, ModelError, OutOfMemoryError, QuantizationError


def test_kinds_are_also_pythons_own() -> None:
    assert issubclass(ArgumentError, (DualgrainError, ValueError)) and issubclass(ArgumentError, ValueError)
    assert issubclass(OutOfMemoryError, MemoryError)
    kinds = [getattr(dualgrain.errors, name) for name in dir(dualgrain.errors)]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) == 8 and all(issubclass(kind, DualgrainError) for kind in kinds)


WRONG_FOLDERS: list[Callable[[str], Any]] = [
    lambda path: dualgrain.Engine(path),
    lambda path: dualgrain.evaluate(path),
    lambda path: dualgrain.cost(path),
    lambda path: dualgrain.Quantizer(path, path + "-out").run(),
]


@pytest.mark.parametrize("call", WRONG_FOLDERS)
def test_a_wrong_folder_is_a_model_error(call: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere.*no such model folder"):
        call(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="config.json"):
        call(str(tmp_path / "empty"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="config.json"):
        call(str(tmp_path / "broken"))


def test_damaged_weights_are_a_model_error(quantized: Path, tmp_path: Path) -> None:
    for file in quantized.iterdir():
        if file.suffix != ".html":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="safetensors"):
        dualgrain.Engine(tmp_path, "cpu")


WRONG_ENGINES: list[tuple[dict[str, Any], str]] = [
    ({"device": "tpu"}, "device: expected auto, cpu, or cuda:N .* got \"tpu\""),
    ({"device": 3}, "device: got 3"),
    ({"threads": -1}, "threads: got -1"),
    ({"context": 1}, "context: expected 2 to 2048 .* got 1"),
    ({"context": 4096}, "context: expected 2 to 2048"),
    ({"max_sequences": 0}, "max_sequences: expected at least 1"),
    ({"kv_cache": "int4"}, "kv_cache: expected one of f32, f16, int8"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG_ENGINES)
def test_wrong_arguments_of_an_engine(quantized: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        dualgrain.Engine(quantized, **arguments)


def test_a_device_that_is_not_there_is_a_device_error(quantized: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        dualgrain.Engine(quantized, "cuda:77")
    with pytest.raises(DeviceError):
        dualgrain.evaluate(quantized, device="cuda:77")
    with pytest.raises(DeviceError):
        dualgrain.Quantizer(model, tmp_path / "out", device="cuda:77").run()
    assert not (tmp_path / "out").exists()


WRONG_PROMPTS: list[tuple[Any, str]] = [
    (3, "prompts: expected a text, tokens, or a list of either, got int"),
    (None, "got NoneType"),
    (b"bytes", "got bytes"),
    ([[]], "the prompt is empty"),
    ([3.5], "whole numbers"),
    ([-1], "whole numbers from 0 on"),
    (["a", None], "got None"),
    ([["a"]], "whole numbers"),
    ([10**9], "token id 1000000000 is outside the vocabulary"),
    ([1 << 40], "whole numbers"),
    ([True, False], "whole numbers"),
]


@pytest.mark.parametrize(("prompts", "words"), WRONG_PROMPTS)
def test_wrong_prompts(engine: dualgrain.Engine, prompts: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        engine.generate(prompts, max_tokens=2)
    with pytest.raises(ArgumentError, match=words):
        engine.stream(prompts, max_tokens=2)


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -1.0}, "temperature: expected a finite number >= 0"),
    ({"temperature": math.nan}, "temperature"),
    ({"temperature": "hot"}, "temperature: got 'hot'"),
    ({"top_p": 1.5}, "top_p: expected a number in"),
    ({"top_k": -1}, "top_k: got -1"),
    ({"max_tokens": -5}, "max_tokens: got -5"),
    ({"max_tokens": 1.5}, "max_tokens: got 1.5"),
    ({"stop": [""]}, "stop string 0 is empty"),
    ({"stop": [3]}, "stop: got"),
    ({"seed": -1}, "seed: got -1"),
    ({"logit_bias": {10**6: 1.0}}, "logit_bias: token id 1000000 is outside the vocabulary of 8192"),
    ({"logit_bias": {-1: 1.0}}, "logit_bias: got"),
]


@pytest.mark.parametrize(("options", "words"), WRONG_OPTIONS)
def test_wrong_options(engine: dualgrain.Engine, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        engine.generate("Once", **options)
    # What was refused left nothing behind.
    assert len(engine.generate("Once", max_tokens=3).tokens) == 3


def test_an_option_that_does_not_exist(engine: dualgrain.Engine) -> None:
    with pytest.raises(TypeError, match="unknown option 'max_token'.*max_tokens"):
        engine.generate("Once", max_token=3)


def test_wrong_tokens_to_score(engine: dualgrain.Engine) -> None:
    for sequences, words in [
        ([([1], 0)], "first scored token from 1"),
        ([([1, 2], 2)], "from 1 to 1, got 2"),
        ([([1, 10**6], 1)], "outside the vocabulary"),
        ([([1] * 3000, 1)], "at most 2048 tokens"),
    ]:
        with pytest.raises(ArgumentError, match=words):
            engine.loglikelihoods(sequences)
    assert engine.loglikelihoods([]) == []
    for prompt, first, words in [([], 0, "empty"), ([1, 2], 2, "first"), ([1, 2], -3, "first"), ([1] * 3000, 0, "2048")]:
        with pytest.raises(ArgumentError, match=words):
            engine.logits(prompt, first=first)


WRONG_QUANTIZERS: list[tuple[dict[str, Any], type[DualgrainError], str]] = [
    ({"method": "magic"}, ArgumentError, "method: expected one of compensate"),
    ({"group_size": 48}, ArgumentError, "group_size: expected 32, 64, 128"),
    ({"schemes": "down"}, ArgumentError, "schemes: .*no `=`"),
    ({"smoothing": "percentile:101"}, ArgumentError, "smoothing: expected auto"),
    ({"windows": 0}, ArgumentError, "windows: expected at least 1"),
    ({"texts": [""]}, ArgumentError, "calibration text is empty"),
    ({"files": ["nowhere.txt"]}, ArgumentError, "nowhere.txt"),
    ({"bits": 1.0}, ArgumentError, "budget of 1 bits"),
    ({"schemes": "99.down=w8"}, ArgumentError, "blocks 0 to 5"),
    ({"bits": 5.0, "windows": 1}, ArgumentError, "give windows=2, or leave bits out"),
    ({"spill_above_gb": -1.0}, ArgumentError, "spill_above_gb"),
]


@pytest.mark.parametrize(("arguments", "kind", "words"), WRONG_QUANTIZERS)
def test_wrong_arguments_of_a_quantizer(
    model: Path, tmp_path: Path, arguments: dict[str, Any], kind: type[DualgrainError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        dualgrain.Quantizer(model, tmp_path / "out", **arguments).run()
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_in_the_way(model: Path, quantized: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(QuantizationError):
        dualgrain.Quantizer(model, tmp_path, method="rtn", windows=1, window_tokens=32, replace=True).run()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(QuantizationError, match="replace=True"):
        dualgrain.Quantizer(model, quantized, method="rtn", windows=1, window_tokens=32).run()
    with pytest.raises(ModelError, match="quantized already"):
        dualgrain.Quantizer(quantized, tmp_path / "out").run()


def test_wrong_arguments_of_evaluations_and_prices(quantized: Path, tmp_path: Path) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text('{"query": "q"}\n')
    with pytest.raises(ArgumentError, match="task.jsonl:1: expected"):
        dualgrain.evaluate(quantized, tasks=[task])
    with pytest.raises(ArgumentError, match="nowhere.txt"):
        dualgrain.evaluate(quantized, text="nowhere.txt")
    with pytest.raises(ArgumentError, match="context"):
        dualgrain.evaluate(quantized, context=1)
    with pytest.raises(ArgumentError, match="no fitted model for abacus"):
        dualgrain.cost(quantized, machine="abacus")
    with pytest.raises(ArgumentError, match="^batch is 0, expected at least 1"):
        dualgrain.cost(quantized, batch=0)
    with pytest.raises(ArgumentError, match="batch: expected"):
        dualgrain.cost(quantized, batch=[])
    with pytest.raises(ArgumentError, match="unknown kernel"):
        dualgrain.predict(1, 2, 3, kernel="gemm_magic")
    with pytest.raises(ArgumentError, match="K is 0"):
        dualgrain.predict(1, 2, 0)
    with pytest.raises(ModelError, match="nowhere.dgm"):
        dualgrain.predict(1, 2, 3, fitted="nowhere.dgm")
