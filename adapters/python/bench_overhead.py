#!/usr/bin/env python3
"""What a batch costs through Python, by what it costs in the library alone:

    cargo build --release -p dualgrain-python --example batch_rounds
    bench_overhead.py --library target/release/examples/batch_rounds --model DIR

Both load the model once and take turns, so that a busy machine disturbs them alike. Each round gives a ratio of wall times and one of times
on a processor, summed over all threads; other programs hardly change the second. Ends with code 1 where the median of the second is
above --most. Linux alone says what threads have used.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import dualgrain


def main() -> int:
    arguments = parse()
    context = arguments.prompt + arguments.generate
    engine = dualgrain.Engine(
        arguments.model, "cpu", threads=arguments.threads, context=context, max_sequences=arguments.batch
    )
    numbers = [arguments.batch, arguments.prompt, arguments.generate, arguments.threads]
    command = [str(arguments.library), str(arguments.model), *map(str, numbers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as library:
        assert library.stdin is not None and library.stdout is not None
        library.stdout.readline()

        def alone() -> None:
            library.stdin.write("\n")
            if not library.stdout.readline():
                sys.exit("the library's part ended early")

        rows = rounds(arguments, (library.pid, alone), (os.getpid(), lambda: generate(engine, arguments)))
        library.stdin.close()
    return report(arguments, rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True, help="the example batch_rounds")
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--batch", type=int, default=16, help="prompts at once")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each")
    parser.add_argument("--generate", type=int, default=64, help="tokens to generate for each")
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU")
    parser.add_argument("--rounds", type=int, default=30, help="rounds, after one that warms up")
    parser.add_argument("--most", type=float, default=1.02, help="largest median of ratios")
    parser.add_argument("--csv", type=Path, help="file to write the rounds to")
    return parser.parse_args()


def generate(engine: dualgrain.Engine, arguments: argparse.Namespace) -> None:
    tokens = [
        [(sequence * 7919 + position * 104_729) % engine.vocab_size for position in range(arguments.prompt)]
        for sequence in range(arguments.batch)
    ]
    answers = engine.generate(tokens, max_tokens=arguments.generate, ignore_eos=True, ignore_defaults=True)
    assert sum(len(answer.tokens) for answer in answers) == arguments.batch * arguments.generate


Part = tuple[int, Callable[[], None]]
"""A process, and what it does in a round."""


def rounds(arguments: argparse.Namespace, library: Part, python: Part) -> list[dict[str, float]]:
    """Seconds of every round; who is first changes from round to round."""
    rows = []
    for number in range(arguments.rounds + 1):
        first_library = number % 2 == 0
        taken = [measured(part) for part in ((library, python) if first_library else (python, library))]
        (wall, cpu), (wall_python, cpu_python) = taken if first_library else reversed(taken)
        row = {"library_wall_s": wall, "python_wall_s": wall_python, "library_cpu_s": cpu, "python_cpu_s": cpu_python}
        if number > 0:
            rows.append(row)
    return rows


def measured(part: Part) -> tuple[float, float]:
    """Seconds by the clock, and on processors."""
    process, run = part
    used, started = cpu_s(process), time.perf_counter()
    run()
    return time.perf_counter() - started, cpu_s(process) - used


def cpu_s(process: int) -> float:
    """Seconds that a process's threads have been on a processor."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def report(arguments: argparse.Namespace, rows: list[dict[str, float]]) -> int:
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    ratios = {kind: [row[f"python_{kind}_s"] / row[f"library_{kind}_s"] for row in rows] for kind in ("wall", "cpu")}
    for kind, values in ratios.items():
        low, median, high = statistics.quantiles(values, n=4)
        library = statistics.median(row[f"library_{kind}_s"] for row in rows)
        print(f"{kind:<4}  library {library:.4f} s   Python by library: median {median:.4f}, quartiles {low:.4f} to {high:.4f}")
    median = statistics.median(ratios["cpu"])
    print(f"{len(rows)} rounds of {arguments.batch} prompts; median on processors {median:.4f}, allowed {arguments.most}")
    return 0 if median <= arguments.most else 1


if __name__ == "__main__":
    sys.exit(main())
