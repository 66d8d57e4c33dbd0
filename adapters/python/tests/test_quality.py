"""Quantizing, judging and pricing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dualgrain

TEXT = "The old captain looked at the sea, and the sea looked back. Nobody spoke. " * 60


def test_a_quantizer_makes_a_folder_and_reports(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told: list[str] = []
    quantizer = dualgrain.Quantizer(
        model, out, texts=[TEXT], method="two-phase", group_size=64, schemes=["down=w8"], windows=2, window_tokens=128
    )
    report = quantizer.run(lambda phase, done, total: told.append(phase))
    assert isinstance(report, dualgrain.QuantReport)
    assert report.num_windows == 2 and report.window_tokens == 128 and report.num_resumed == 0
    assert report.options["search"] == "two-phase" and report.options["group size"] == "64"
    assert [linear.role for linear in report.linears[:4]] == ["qkv", "out", "up", "down"]
    assert len(report.linears) == 6 * 4 and all(0 < linear.weight_nmse < 0.1 for linear in report.linears)
    assert report.linears[3].scheme == "w8" and any("block 6/6" in phase for phase in told)
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "dualgrain"
    with pytest.raises(dualgrain.QuantizationError):
        quantizer.run()


def test_bytes_do_not_depend_on_threads(model: Path, tmp_path: Path) -> None:
    for name, threads in (("one", 1), ("two", 2)):
        dualgrain.Quantizer(model, tmp_path / name, method="rtn", windows=1, window_tokens=64, threads=threads).run()
    weights = [next((tmp_path / name).glob("*.safetensors")).read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]


def test_an_evaluation_compares_with_the_original(model: Path, quantized: Path) -> None:
    result = dualgrain.evaluate(quantized, reference=model, context=128, windows=3, divergence_windows=2)
    assert result.perplexity is not None and result.divergence is not None
    assert result.perplexity.windows == 3 and result.perplexity.tokens == 3 * 127
    assert result.divergence.windows == 2 and 0 < result.divergence.kl_divergence < 1
    assert 0.5 < result.divergence.top1_agreement <= 1
    assert result.divergence.kl_percentiles.median <= result.divergence.kl_percentiles.max
    assert 4 < result.bits_per_weight < 5 and result.tasks == []
    itself = dualgrain.evaluate(model, reference=model, context=128, windows=1)
    assert itself.divergence is not None and itself.divergence.kl_divergence == 0


def test_tasks_are_scored_as_log_likelihoods_say(quantized: Path, engine: dualgrain.Engine, tmp_path: Path) -> None:
    items = [
        {"query": "The captain went to", "choices": ["sea", "the table of a small machine"], "gold": 0},
        {"query": "Once upon a", "choices": ["house", "time"], "gold": 1},
    ]
    task = tmp_path / "tiny.jsonl"
    task.write_text("".join(json.dumps(item) + "\n" for item in items))
    score = dualgrain.evaluate(quantized, tasks=[task], device="cpu").tasks[0]
    assert (score.task, score.form, score.items, score.perplexity) == ("tiny", "choices", 2, None)
    right = 0
    for item in items:
        start = len(engine.encode(item["query"]))
        options = [engine.encode(f"{item['query']} {choice}") for choice in item["choices"]]
        sums = [total for total, _ in engine.loglikelihoods([(tokens, start) for tokens in options])]
        right += sums.index(max(sums)) == item["gold"]
    assert score.accuracy == right / 2


def test_a_model_is_priced_from_its_configuration_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    cost = dualgrain.cost(tmp_path, batch=[1, 4], prompt_tokens=64, generate_tokens=16)
    assert [batch.batch for batch in cost.batches] == [1, 4] and cost.scheme == "w4a8" and "H200" in cost.machine
    one, four = cost.batches
    assert one.decode_tokens_per_s is not None and four.decode_tokens_per_s is not None
    assert one.decode_tokens_per_s.value < four.decode_tokens_per_s.value
    assert one.time_to_first_token_s.low < one.time_to_first_token_s.value < one.time_to_first_token_s.high
    assert one.memory.fits and one.memory.total_bytes > one.memory.weights_bytes
    assert all(item.shape is not None for item in one.products) and all(item.estimate for item in one.estimates)
    by_file = dualgrain.cost(tmp_path / "config.json", batch=[1, 4], prompt_tokens=64, generate_tokens=16)
    assert by_file == cost
    on_cpu = dualgrain.cost(model, machine="cpu", batch=1)
    assert on_cpu.threads is not None and on_cpu.batches[0].joules_per_token is None


def test_a_product_is_predicted() -> None:
    assert dualgrain.machines() == ["h200", "xeon-amx"]
    predictions = dualgrain.predict(16, 4096, 4096)
    times = [prediction.time_s.value for prediction in predictions]
    assert len(times) > 10 and times == sorted(times)
    best = predictions[0]
    assert best.kernel.startswith("gemm_w4a8") and best.power_w is not None and best.energy_j is not None
    one = dualgrain.predict(16, 4096, 4096, config=best.config)
    assert best in one and all(prediction.config == best.config for prediction in one)
    on_cpu = dualgrain.predict(16, 4096, 4096, machine="cpu", threads=1)
    assert on_cpu == dualgrain.predict(16, 4096, 4096, machine="xeon-amx", threads=1)
    assert on_cpu and all(prediction.power_w is None and "sm90" not in prediction.kernel for prediction in on_cpu)
    with pytest.raises(dualgrain.ArgumentError, match="measured with 999 threads"):
        dualgrain.predict(16, 4096, 4096, machine="cpu", threads=999)
