"""The model of lm-evaluation-harness."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import dualgrain

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402

from dualgrain.lm_eval import DualgrainLM  # noqa: E402


@pytest.fixture(scope="module")
def lm(quantized: Path) -> DualgrainLM:
    return DualgrainLM(str(quantized), device="cpu", batch_size=4)


def instances(kind: str, *arguments: tuple) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=each, idx=index) for index, each in enumerate(arguments)]


def test_it_is_registered_by_name(quantized: Path) -> None:
    assert get_model("dualgrain") is DualgrainLM
    lm = DualgrainLM.create_from_arg_string(f"path={quantized},max_length=64", {"device": "cpu", "batch_size": "auto"})
    assert lm.max_length == 64 and lm.engine.max_sequences == 16


def test_log_likelihoods_are_those_of_the_tokens(lm: DualgrainLM) -> None:
    engine = lm.engine
    context, continuation = "The old captain", " looked at the sea"
    whole, start = engine.encode(context + continuation), len(engine.encode(context))
    [expected] = engine.loglikelihoods([(whole, start)])
    pairs = [(context, continuation), (context + " ", continuation[1:]), ("", context)]
    answers = lm.loglikelihood(instances("loglikelihood", *pairs), disable_tqdm=True)
    assert answers[0] == expected and answers[1] == expected
    alone = [lm.prefix_token_id, *engine.encode(context, special_tokens=False)]
    assert answers[2] == engine.loglikelihoods([(alone, 1)])[0]
    greedy = engine.generate(context, max_tokens=3)
    [(_, follows)] = lm.loglikelihood(instances("loglikelihood", (context, greedy.text)), disable_tqdm=True)
    assert follows


def test_long_contexts_are_cut_on_the_left(quantized: Path, lm: DualgrainLM) -> None:
    short = DualgrainLM(str(quantized), device="cpu", max_length=8)
    context, continuation = "the sea " * 40 + "and the", " captain"
    whole = lm.engine.encode(context + continuation)
    [expected] = lm.engine.loglikelihoods([(whole[-9:], 9 - (len(whole) - len(lm.engine.encode(context))))])
    assert short.loglikelihood(instances("loglikelihood", (context, continuation)), disable_tqdm=True) == [expected]


def test_whole_texts_are_predicted_token_by_token(quantized: Path, lm: DualgrainLM) -> None:
    text = "The old captain looked at the sea, and the sea looked back."
    tokens = lm.engine.encode(text, special_tokens=False)
    [expected] = lm.engine.loglikelihoods([([lm.prefix_token_id, *tokens], 1)])
    [whole] = lm.loglikelihood_rolling(instances("loglikelihood_rolling", (text,)), disable_tqdm=True)
    assert whole == expected[0]
    short = DualgrainLM(str(quantized), device="cpu", max_length=6)
    [rolled, again] = short.loglikelihood_rolling(instances("loglikelihood_rolling", (text,), (text,)), disable_tqdm=True)
    # As many predictions, each with less context.
    assert rolled == again and rolled != whole and abs(rolled - whole) < 3 * len(tokens)


def test_texts_are_generated_until_they_end(lm: DualgrainLM) -> None:
    context = "The old captain"
    greedy = lm.engine.generate(context, max_tokens=12, ignore_defaults=True, temperature=0.0)
    stop = lm.engine.decode(greedy.tokens[5:7])
    requests = instances(
        "generate_until",
        (context, {"until": [stop], "max_gen_toks": 12, "do_sample": False, "temperature": 1.0}),
        ("Once", {"until": "\n\n\n", "max_gen_toks": 5}),
        (context, {"until": ["", stop], "max_gen_toks": 12, "do_sample": False, "temperature": 1.0}),
    )
    cut, other, also = lm.generate_until(requests, disable_tqdm=True)
    assert cut == also == greedy.text[: greedy.text.index(stop)]
    assert other == lm.engine.generate("Once", max_tokens=5, temperature=0.0).text
    with pytest.raises(dualgrain.ArgumentError, match="asks for num_return_sequences"):
        lm.generate_until(instances("generate_until", (context, {"num_return_sequences": 2})), disable_tqdm=True)


def test_the_harness_runs_a_task(lm: DualgrainLM, quantized: Path, tmp_path: Path) -> None:
    items = [
        {"query": "The captain went to", "choices": ["sea", "the table of a small machine"], "gold": 0},
        {"query": "Once upon a\n", "choices": ["house of gold", "time"], "gold": 0},
        {"query": "It was a dark and", "choices": ["stormy night", "bread"], "gold": 1},
    ]
    file = tmp_path / "own_task.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    task = {
        "task": "own_task",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "query",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_bytes"}],
    }
    results = lm_eval.simple_evaluate(model=lm, tasks=[task], verbosity="ERROR", bootstrap_iters=0)
    scores = results["results"]["own_task"]
    expected = dualgrain.evaluate(quantized, tasks=[file]).tasks[0]
    assert scores["acc,none"] == pytest.approx(expected.accuracy, abs=1e-12)
    assert scores["acc_bytes,none"] == pytest.approx(expected.accuracy_byte_normalized, abs=1e-12)
    # Scores that any fault would give as well would say nothing.
    assert 0 < expected.accuracy < 1 and expected.accuracy_byte_normalized not in (0, 1)


def test_the_harness_runs_from_a_terminal(quantized: Path, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"context": "The old", "continuation": "captain"}\n')
    (tmp_path / "told.yaml").write_text(
        "task: told\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/items.jsonl}}, cache_dir: {tmp_path}/cache}}\n"
        "test_split: test\n"
        "output_type: loglikelihood\n"
        "doc_to_text: context\n"
        "doc_to_target: \"{{' ' + continuation}}\"\n"
        "metric_list: [{metric: perplexity}]\n"
    )
    # The command of the README, with a task that needs no download.
    command = [sys.executable, "-m", "dualgrain.lm_eval", "run", "--model", "dualgrain", "--model_args", f"path={quantized}"]
    command += ["--tasks", "told", "--include_path", str(tmp_path), "--device", "cpu", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    [file] = (tmp_path / "out").rglob("results_*.json")
    told = json.loads(file.read_text())["results"]["told"]["perplexity,none"]
    expected = dualgrain.evaluate(quantized, tasks=[tmp_path / "items.jsonl"]).tasks[0].perplexity
    assert told == pytest.approx(expected, rel=1e-9)
