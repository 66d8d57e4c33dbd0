"""One prompt, batches, streams, threads, logits."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import dualgrain

PROMPTS = ["The old captain", "In the middle of the night", "Once", "The sea was calm and"]


def test_one_prompt_gives_one_generation(engine: dualgrain.Engine) -> None:
    generation = engine.generate("The old captain", max_tokens=12)
    assert isinstance(generation, dualgrain.Generation)
    assert len(generation.tokens) == 12 and generation.finish_reason == "max_tokens"
    assert generation.text == engine.decode(generation.tokens)
    assert generation.prompt_tokens == len(engine.encode("The old captain"))
    assert generation.logprobs is None


def test_a_batch_gives_what_each_prompt_gives_alone(engine: dualgrain.Engine) -> None:
    # More prompts than run at once.
    prompts = [f"{prompt} {number}" for number in range(6) for prompt in PROMPTS]
    together = engine.generate(prompts, max_tokens=9, temperature=0.8, seed=3)
    assert len(together) == 24 > engine.max_sequences
    assert together == [engine.generate(prompt, max_tokens=9, temperature=0.8, seed=3) for prompt in prompts]
    assert engine.generate([]) == []


def test_prompts_may_be_tokens(engine: dualgrain.Engine) -> None:
    tokens = engine.encode(PROMPTS[0])
    expected = engine.generate(PROMPTS[0], max_tokens=5)
    assert engine.generate(tokens, max_tokens=5) == expected
    assert engine.generate(np.array(tokens), max_tokens=5) == expected
    assert engine.generate([tokens, PROMPTS[0]], max_tokens=5) == [expected, expected]


def test_the_original_gives_what_another_implementation_gives(model: Path) -> None:
    # Made by transformers in 32-bit floats (models/llama-tiny/README.md).
    golden = np.load(model / "golden.npz")
    engine = dualgrain.Engine(model, "cpu", context=128, max_sequences=1)
    assert engine.generate(golden["greedy_prompt"], max_tokens=64, ignore_eos=True).tokens == golden["greedy"].tolist()
    logits = engine.logits(golden["ids"])
    assert logits.shape == golden["logits"].shape and logits.dtype == np.float32
    # The bound of the engine's own test.
    assert np.abs(logits - golden["logits"]).max() < 2e-3


def test_logits_are_an_array_without_a_copy(engine: dualgrain.Engine) -> None:
    tokens = engine.encode("The old captain looked at the sea")
    logits = engine.logits(tokens)
    assert logits.shape == (len(tokens), engine.vocab_size)
    # The memory belongs to what the engine wrote, not to numpy.
    assert not logits.flags.owndata and type(logits.base).__name__ == "PySliceContainer"
    assert logits.flags.writeable and logits.flags.c_contiguous
    assert np.array_equal(engine.logits(tokens, first=2), logits[2:])
    assert np.array_equal(engine.logits(tokens, first=-1), logits[-1:])
    assert engine.generate(tokens, max_tokens=1).tokens == [int(logits[-1].argmax())]


def test_loglikelihoods_are_those_of_the_logits(engine: dualgrain.Engine) -> None:
    tokens = engine.encode("The old captain looked at the sea")
    rows = engine.logits(tokens).astype(np.float64)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    start = 3
    expected = sum(rows[at - 1, tokens[at]] for at in range(start, len(tokens)))
    greedy = engine.generate(tokens, max_tokens=4).tokens
    [(total, is_greedy), (_, follows)] = engine.loglikelihoods([(tokens, start), (tokens + greedy, len(tokens))])
    assert total == pytest.approx(expected, abs=1e-4) and not is_greedy
    assert follows


def test_a_stream_gives_the_same_text_in_pieces(engine: dualgrain.Engine) -> None:
    expected = engine.generate(PROMPTS, max_tokens=10)
    with engine.stream(PROMPTS, max_tokens=10) as stream:
        assert stream.generations == [None] * len(PROMPTS)
        pieces = list(stream)
        assert stream.generations == expected
    for index, generation in enumerate(expected):
        mine = [piece for piece in pieces if piece.index == index]
        assert "".join(piece.text for piece in mine) == generation.text
        assert [piece.token for piece in mine if piece.token is not None] == generation.tokens
    # Prompts of a batch take turns.
    assert {piece.index for piece in pieces[: 2 * len(PROMPTS)]} == set(range(len(PROMPTS)))


def test_a_stream_that_is_left_ends_what_it_ran(engine: dualgrain.Engine) -> None:
    stream = engine.stream(PROMPTS[0], max_tokens=None, ignore_eos=True)
    assert next(stream).token is not None
    stream.close()
    assert list(stream) == [] or stream.generations == [None]
    del stream
    with engine.stream([PROMPTS[0]] * engine.max_sequences, max_tokens=None, ignore_eos=True) as stream:
        next(stream)
    started = time.monotonic()
    engine.generate(PROMPTS[1], max_tokens=4)
    assert time.monotonic() - started < 10, "what was left still runs"


def test_streams_and_calls_of_several_threads_share_an_engine(engine: dualgrain.Engine) -> None:
    expected = engine.generate(PROMPTS, max_tokens=30)
    results: dict[int, object] = {}

    def streamed(index: int) -> None:
        results[index] = "".join(piece.text for piece in engine.stream(PROMPTS[index], max_tokens=30))

    def whole(index: int) -> None:
        results[index] = engine.generate(PROMPTS[index], max_tokens=30).text

    threads = [threading.Thread(target=[streamed, whole][index % 2], args=(index,)) for index in range(len(PROMPTS))]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert [results[index] for index in range(len(PROMPTS))] == [generation.text for generation in expected]


def test_a_stream_comes_evenly_beside_a_batch_of_another_thread(engine: dualgrain.Engine) -> None:
    batch = threading.Thread(target=engine.generate, args=(PROMPTS * 2,), kwargs={"max_tokens": 600, "ignore_eos": True})
    batch.start()
    pieces = list(engine.stream(PROMPTS[0], max_tokens=20, ignore_eos=True))
    assert len([piece for piece in pieces if piece.token is not None]) == 20
    assert batch.is_alive(), "the stream waited for the batch of the other thread"
    batch.join()


def test_other_threads_run_while_the_engine_works(engine: dualgrain.Engine) -> None:
    counted = 0
    over = threading.Event()

    def count() -> None:
        nonlocal counted
        while not over.is_set():
            counted += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    started = time.monotonic()
    engine.generate([PROMPTS[0]] * 8, max_tokens=150, ignore_eos=True)
    took, before = time.monotonic() - started, counted
    over.set()
    thread.join()
    assert before > 20 * took, f"{before} turns in {took} s"


def test_options_reach_the_engine(engine: dualgrain.Engine) -> None:
    prompt = PROMPTS[0]
    greedy = engine.generate(prompt, max_tokens=8, logprobs=3)
    assert greedy.logprobs is not None and len(greedy.logprobs) == 8
    for token, told in zip(greedy.tokens, greedy.logprobs):
        assert len(told.top) == 3 and told.top[0] == (token, told.logprob)
    stopped = engine.generate(prompt, max_tokens=8, stop=engine.decode(greedy.tokens[3:5]))
    assert stopped.finish_reason == "stop_string" and greedy.text.startswith(stopped.text)
    other = engine.generate(prompt, max_tokens=1, logit_bias={greedy.tokens[0]: -1000.0})
    assert other.tokens != greedy.tokens[:1]
    drawn = [engine.generate(prompt, max_tokens=8, temperature=2.0, seed=seed).tokens for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert engine.generate(prompt, max_tokens=8, temperature=2.0, top_k=1).tokens == greedy.tokens
    assert engine.generate(prompt, max_tokens=0).tokens == []


def test_the_context_bounds_prompt_and_answer(quantized: Path) -> None:
    small = dualgrain.Engine(quantized, "cpu", context=16, max_sequences=2, threads=1)
    generation = small.generate("Once", max_tokens=None, ignore_eos=True)
    # The last token of an answer need not be run.
    assert generation.finish_reason == "context" and 16 <= generation.prompt_tokens + len(generation.tokens) <= 17
    with pytest.raises(dualgrain.ArgumentError, match="context holds 16"):
        small.generate("word " * 40)


def test_conversations_are_written_by_the_template_of_the_folder(quantized: Path, model: Path, tmp_path: Path) -> None:
    for file in quantized.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    told = json.loads((model / "tokenizer_config.json").read_text())
    told.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    with pytest.raises(dualgrain.ModelError, match="no chat template"):
        dualgrain.Engine(tmp_path, "cpu", context=64).chat_prompt(messages)
    template = "{% for m in messages %}{% if not m.role %}{{ raise_exception('who?') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(template)
    engine = dualgrain.Engine(tmp_path, "cpu", context=64)
    assert engine.chat_prompt(messages) == "<user>Hi<assistant>Ho"
    with pytest.raises(dualgrain.ArgumentError, match="who"):
        engine.chat_prompt([{"content": "Hi"}])


def test_an_engine_says_what_it_is(engine: dualgrain.Engine, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    assert engine.vocab_size == config["vocab_size"] and engine.max_positions == config["max_position_embeddings"]
    assert engine.end_tokens == [config["eos_token_id"]] and engine.first_token == config["bos_token_id"]
    assert "CPU" in engine.device and repr(engine).startswith("Engine(")
    text = "A text, with signs: naïve ☃."
    assert engine.decode(engine.encode(text)) == text
