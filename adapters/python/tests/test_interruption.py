"""Ctrl-C and progress that says no: what is under way ends soon, and what is left can be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest

import dualgrain

SOON_S = 20.0
"""Far more than an end takes on a busy machine, far less than what is ended would take."""


def interrupted(call: Callable[[], Any], after_s: float = 0.3) -> None:
    """Ctrl-C while ``call`` runs must end it as ``KeyboardInterrupt``, soon."""
    timer = threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        assert time.monotonic() - started < SOON_S
    finally:
        timer.cancel()
        timer.join()


def long_work(engine: dualgrain.Engine) -> dict[str, Any]:
    return {"prompts": ["Once upon a time"] * 4000, "max_tokens": 500, "ignore_eos": True}


def test_generating_ends_and_the_engine_goes_on(engine: dualgrain.Engine) -> None:
    expected = engine.generate("The old captain", max_tokens=6)
    threads = threading.active_count()
    interrupted(lambda: engine.generate(**long_work(engine)))
    started = time.monotonic()
    assert engine.generate("The old captain", max_tokens=6) == expected
    assert time.monotonic() - started < SOON_S, "what was interrupted still runs"
    assert threading.active_count() == threads


def test_a_stream_ends(engine: dualgrain.Engine) -> None:
    def read() -> None:
        with engine.stream(**long_work(engine)) as stream:
            for _ in stream:
                pass

    interrupted(read)
    assert len(engine.generate("The old captain", max_tokens=6).tokens) == 6


def test_a_stream_that_somebody_keeps_ends_too_where_a_step_is_interrupted(model: Path) -> None:
    # One thread takes some 200 ms for the first piece after so long a prompt.
    engine = dualgrain.Engine(model, device="cpu", threads=1)
    kept = engine.stream([list(range(2, 2002))] * 4, max_tokens=8)
    interrupted(lambda: next(kept), after_s=0.05)
    with pytest.raises(dualgrain.Cancelled, match="before it was done"):
        kept._running.finished(3)


def test_scoring_ends(engine: dualgrain.Engine) -> None:
    sequences = [(list(range(2, 1002)), 1)] * 2000
    interrupted(lambda: engine.loglikelihoods(sequences))


def test_quantizing_ends_and_leaves_no_folder(model: Path, tmp_path: Path) -> None:
    interrupted(lambda: dualgrain.Quantizer(model, tmp_path / "out").run())
    assert not (tmp_path / "out").exists()


def test_evaluating_ends(model: Path, quantized: Path) -> None:
    text = model / "sample_calib.txt"
    interrupted(lambda: [dualgrain.evaluate(quantized, text=text, context=64, reference=model) for _ in range(100)])


def test_progress_is_told_and_may_end_a_run(model: Path, quantized: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def stop(phase: str, done: int, total: int) -> bool:
        told.append((phase, done, total))
        return len(told) < 3

    with pytest.raises(dualgrain.Cancelled, match="progress gave back False"):
        dualgrain.Quantizer(model, tmp_path / "out").run(stop)
    assert len(told) == 3 and all(0 <= done <= total for _, done, total in told)
    assert not (tmp_path / "out").exists()
    told.clear()
    with pytest.raises(dualgrain.Cancelled):
        dualgrain.evaluate(quantized, context=64, progress=lambda *_: False)

    def fail(*_: Any) -> None:
        raise LookupError("a fault of the caller's")

    with pytest.raises(LookupError, match="caller"):
        dualgrain.evaluate(quantized, context=64, progress=fail)
    with pytest.raises(LookupError):
        dualgrain.Quantizer(model, tmp_path / "out").run(fail)
    with pytest.raises(TypeError):
        dualgrain.evaluate(quantized, context=64, progress=lambda: None)
    with pytest.raises(TypeError):
        dualgrain.evaluate(quantized, context=64, progress=3)


def test_an_interrupted_program_ends(quantized: Path) -> None:
    program = (
        "import sys, dualgrain\n"
        "engine = dualgrain.Engine(sys.argv[1], 'cpu')\n"
        "print('begins', flush=True)\n"
        "engine.generate(['Once'] * 4000, max_tokens=500, ignore_eos=True)\n"
    )
    command = [sys.executable, "-c", program, str(quantized)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "begins\n"
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            _, words = process.communicate(timeout=SOON_S)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT, words
    assert "KeyboardInterrupt" in words and "panicked" not in words


def test_a_program_that_ends_while_a_thread_generates_does_not_hang(quantized: Path) -> None:
    program = (
        "import sys, threading, time, dualgrain\n"
        "engine = dualgrain.Engine(sys.argv[1], 'cpu')\n"
        "work = lambda: engine.generate(['Once'] * 4000, max_tokens=500, ignore_eos=True)\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.5)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(quantized)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "panicked" not in done.stderr, done.stderr
