#!/usr/bin/env python3
"""Compares lm-evaluation-harness on dualgrain with `dualgrain eval`, item files and model being the same:

    compare_lm_eval.py --program target/release/dualgrain --model ../shared/models/llama-small --eval ../shared/eval

Data sets are not downloaded: tasks are made of the item files that `dualgrain eval --tasks` reads, so that the harness asks the same
questions. Needs the package with its extra lm-eval. Ends with code 1 where a score differs by more than --tolerance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lm_eval

from dualgrain.lm_eval import DualgrainLM

TASKS = ("arc_easy", "piqa", "lambada_openai")
"""Names of item files."""
CHOICES = {"accuracy": "acc,none", "accuracy_byte_normalized": "acc_bytes,none"}
CONTINUATION = {"accuracy": "acc,none", "perplexity": "perplexity,none"}
"""What `dualgrain eval` and the harness call the same score."""


def main() -> int:
    arguments = parse()
    files = {name: (arguments.eval / f"{name}.jsonl").resolve() for name in arguments.tasks}
    started = time.monotonic()
    expected = program_scores(arguments, list(files.values()))
    between = time.monotonic()
    got = harness_scores(arguments, files)
    print(f"dualgrain eval {between - started:.1f} s, the harness {time.monotonic() - between:.1f} s")
    print(f"{'task':<16} {'score':<26} {'dualgrain eval':>20} {'harness':>20} {'difference':>12}")
    worst = 0.0
    for name, scores in expected.items():
        for score, key in names(scores).items():
            difference = abs(scores[score] - got[name][key])
            worst = max(worst, difference)
            print(f"{name:<16} {score:<26} {scores[score]:>20.12f} {got[name][key]:>20.12f} {difference:>12.1e}")
    print(f"largest difference {worst:.1e}, allowed {arguments.tolerance:.1e}")
    return 0 if worst <= arguments.tolerance else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="the program dualgrain")
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--eval", type=Path, required=True, help="folder of the item files")
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(TASKS), help="their names, separated by commas")
    parser.add_argument("--limit", type=int, help="only the first items of each")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda:N")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="how much scores may differ")
    return parser.parse_args()


def program_scores(arguments: argparse.Namespace, files: list[Path]) -> dict[str, dict[str, Any]]:
    """What `dualgrain eval` says, by task."""
    command = [str(arguments.program), "eval", str(arguments.model), "--json", "--device", arguments.device]
    command += ["--tasks", ",".join(map(str, files))]
    if arguments.limit:
        command += ["--limit", str(arguments.limit)]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {task["task"]: task for task in report["tasks"]}


def harness_scores(arguments: argparse.Namespace, files: dict[str, Path]) -> dict[str, dict[str, float]]:
    """What the harness says, by task."""
    with tempfile.TemporaryDirectory() as cache:
        tasks = [task(name, path, cache) for name, path in files.items()]
        model = DualgrainLM(str(arguments.model), device=arguments.device)
        results = lm_eval.simple_evaluate(model=model, tasks=tasks, limit=arguments.limit, bootstrap_iters=0)
    return {name: results["results"][name] for name in files}


def task(name: str, path: Path, cache: str) -> dict[str, Any]:
    """The task of an item file. Options are joined to their contexts by a space, a lone continuation with its own."""
    with path.open(encoding="utf-8") as lines:
        fields = json.loads(lines.readline())
    common = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": cache},
        "test_split": "test",
        "target_delimiter": " ",
    }
    if "choices" in fields:
        asked = {"output_type": "multiple_choice", "doc_to_text": "query", "doc_to_choice": "choices", "doc_to_target": "gold"}
        return {**common, **asked, "metric_list": metrics(CHOICES)}
    if "continuation" in fields and "context" in fields:
        asked = {"output_type": "loglikelihood", "doc_to_text": "context", "doc_to_target": "{{' ' + continuation}}"}
        return {**common, **asked, "metric_list": metrics(CONTINUATION)}
    sys.exit(f"{path}: expected items with choices, or with a context and a continuation")


def metrics(scores: dict[str, str]) -> list[dict[str, str]]:
    return [{"metric": key.split(",")[0]} for key in scores.values()]


def names(scores: dict[str, Any]) -> dict[str, str]:
    return CONTINUATION if scores["form"] == "continuation" else CHOICES


if __name__ == "__main__":
    sys.exit(main())
