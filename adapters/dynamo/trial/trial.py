#!/usr/bin/env python3
"""Tries a fleet on this machine, each bar with a line of CSV:

    cargo build --release                     (here, in adapters/dynamo, and in the root)
    trial/trial.py --frontend "PYTHON -m dynamo.frontend" --server ../../target/release/dualgrain --model FOLDER

`PYTHON` has ai-dynamo 1.6.1. Every program listens at 127.0.0.1 and ends with the trial. `equal`, `kill`, `drain` and `prefix` compare or count;
`speed` times and wants a machine that does nothing else, two cores for workers and a heavier model. Ends with code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asking
import bad_input
import processes
from processes import Fleet

HERE = Path(__file__).resolve().parent
TEXT = HERE / "../../../models/llama-tiny/sample_eval.txt"
MIGRATIONS = "dynamo_frontend_model_migration_total"
COLUMNS = ["trial", "what", "value", "bar", "met"]


def main() -> int:
    arguments = parse()
    rows: list[list[object]] = []
    for name in arguments.trials:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            begun = time.monotonic()
            for what, value, bar, met in TRIALS[name](arguments, Path(folder), stack):
                rows.append([name, what, value, bar, "yes" if met else "NO"])
                print(*rows[-1], sep="  ", flush=True)
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
    return int(any(row[-1] == "NO" for row in rows))


def with_answers(arguments, folder, more=()):
    """Requests, and what one plain server answers. Prompts of completions are tokens: Dynamo's frontend puts no first token before texts."""
    with contextlib.ExitStack() as stack:
        port = processes.start_server(arguments, folder, stack, "--device", "cpu", "--queue", "4096", "--threads", "1")
        requests = [asking.tokenized(port, *request) for request in [*asking.mixed(TEXT, arguments.requests), *more]]
        return requests, asking.ask_all(port, requests)


def start(arguments, folder, stack, workers: int, *frontend: str, discovery: str = "file", worker: tuple[str, ...] = ()):
    fleet = Fleet(arguments, folder, stack, discovery)
    fleet.start_frontend(*frontend)
    started = [fleet.start_worker("--device", "cpu", "--threads", "1", *worker) for _ in range(workers)]
    fleet.wait_until_served(workers)
    return fleet, started


def report_equal(got, expected, what: str):
    wrong = asking.differing(got, expected)
    for index in wrong[:3]:
        print(f"request {index}: got {got[index]}, expected {expected[index]}", file=sys.stderr)
    yield what, len(wrong), f"0 of {len(expected)}", not wrong
    refused = sum(answer.status != 200 for answer in got)
    yield "requests without an answer", refused, "0", refused == 0


def equal(arguments, folder, stack):
    """Two workers answer what one server answers, also under schemas."""
    requests, expected = with_answers(arguments, folder, asking.under_schema(50))
    fleet, workers = start(arguments, folder, stack, 2)
    got = asking.ask_all(fleet.port, requests)
    yield from report_equal(got, expected, "answers other than the single server's")
    whole = [answer for answer in got[-50:] if answer.finish_reason == "stop"]
    followed = sum(isinstance(json.loads(answer.text), dict) for answer in whole)
    yield "answers under schemas that are JSON", f"{followed} of {len(whole)}", "all that were not cut, some", 0 < followed == len(whole)
    shares = [processes.metric(worker.port, "vllm:request_success_total") for worker in workers]
    yield "requests of the two workers", "/".join(f"{share:.0f}" for share in shares), "both work", min(shares) > 0


def killed(arguments, folder, stack):
    """One of two workers is killed in the middle; its requests go on at the other."""
    requests, expected = with_answers(arguments, folder)
    fleet, workers = start(arguments, folder, stack, 2, "--migration-limit", "3", discovery="etcd")
    kill_at = len(requests) // 3

    def on_done(done: int) -> None:
        if done == kill_at:
            processes.kill(workers[0])

    got = asking.ask_all(fleet.port, requests, on_done=on_done)
    yield from report_equal(got, expected, "answers other than the single server's")
    yield "the worker was killed", workers[0].child.wait(), "-9", workers[0].child.returncode == -9
    migrations = processes.metric(fleet.port, MIGRATIONS)
    yield "requests that went on at the other worker", f"{migrations:.0f}", "at least 1", migrations >= 1


def drained(arguments, folder, stack):
    """A third worker joins under load and the first one leaves."""
    requests, expected = with_answers(arguments, folder)
    fleet, workers = start(arguments, folder, stack, 2, "--migration-limit", "3")
    join_at, leave_at = len(requests) // 5, len(requests) // 2

    def on_done(done: int) -> None:
        if done == join_at:
            workers.append(fleet.start_worker("--device", "cpu", "--threads", "1"))
        if done == leave_at:
            processes.drain(workers[0])

    got = asking.ask_all(fleet.port, requests, on_done=on_done)
    yield from report_equal(got, expected, "answers other than the single server's")
    migrations = processes.metric(fleet.port, MIGRATIONS)
    yield "requests that a worker did not end itself", f"{migrations:.0f}", "at most 2, refused at the door", migrations <= 2
    code = workers[0].child.wait(timeout=60)
    yield "exit code of the worker that left", code, "0", code == 0
    joined = processes.metric(workers[2].port, "vllm:request_success_total")
    yield "requests of the worker that joined", f"{joined:.0f}", "at least 1", joined > 0


def prefixes(arguments, folder, stack):
    """Routing by what is cached finds more of it than routing in turn."""
    requests = asking.with_prefixes(TEXT, groups=24, each=16, prefix_chars=1500)
    rates = {}
    for mode in ("round-robin", "kv"):
        with contextlib.ExitStack() as inner, tempfile.TemporaryDirectory() as own:
            slots = ("--max-sequences", "16", "--context", "1024")
            fleet, workers = start(arguments, Path(own), inner, 2, "--router-mode", mode, worker=slots)
            got = asking.ask_all(fleet.port, requests, at_once=4)
            failed = sum(answer.status != 200 for answer in got)
            yield f"{mode}: requests without an answer", failed, "0", failed == 0
            hits = sum(processes.metric(worker.port, "vllm:prefix_cache_hits_total") for worker in workers)
            asked = sum(processes.metric(worker.port, "vllm:prefix_cache_queries_total") for worker in workers)
            rates[mode] = hits / max(asked, 1)
            yield f"{mode}: prompt tokens found in the cache", f"{rates[mode]:.3f}", "-", True
            if mode == "kv":
                yield from second_frontend(fleet)
    yield "kv over round-robin", f"{rates['kv'] / max(rates['round-robin'], 1e-9):.2f}", "above 1", rates["kv"] > rates["round-robin"]


def second_frontend(fleet):
    """A frontend that has routed nothing yet knows from the workers alone what they hold."""
    prose = TEXT.read_text()
    prompts = [prose[begin : begin + 1_000] for begin in range(60_000, 66_000, 1_000)]
    bodies = [{"model": processes.MODEL_NAME, "prompt": prompt, "max_tokens": 1, "temperature": 0.0} for prompt in prompts]
    for body in bodies:
        asking.ask(fleet.port, "/v1/completions", body)
    fleet.frontend.end()
    fleet.start_frontend("--router-mode", "kv")
    fleet.wait_until_served(2)
    found = [asking.cached_tokens(fleet.port, body) for body in bodies]
    shares = [cached / tokens for cached, tokens in found]
    shown = "/".join(f"{share:.2f}" for share in shares)
    yield "a new frontend: shares of six prompts in the cache", shown, "each above 0.7", min(shares) > 0.7


def speed(arguments, folder, stack):
    """Tokens a second of one worker on one core, and of two on one core each; they take turns."""
    requests = asking.even(TEXT, count=160, tokens=64)
    fleets = {}
    for workers in (1, 2):
        own = folder / str(workers)
        own.mkdir()
        fleet = Fleet(arguments, own, stack)
        fleet.start_frontend()
        for core in range(workers):
            fleet.start_worker("--device", "cpu", "--threads", "1", prefix=("taskset", "-c", str(core)))
        fleet.wait_until_served(workers)
        fleets[workers] = fleet
    ratios = []
    for _ in range(arguments.rounds):
        rate = {}
        for workers, fleet in fleets.items():
            begun = time.monotonic()
            answers = asking.ask_all(fleet.port, requests, at_once=32)
            took_s = time.monotonic() - begun
            if any(answer.tokens != 64 for answer in answers):
                raise RuntimeError("an answer is missing or too short")
            rate[workers] = 64 * len(answers) / took_s
        ratios.append(rate[2] / rate[1])
        yield "tokens/s of one worker, of two", f"{rate[1]:.1f} / {rate[2]:.1f}", "-", True
    median = statistics.median(ratios)
    yield "two workers by one, median", f"{median:.2f}", "1.90", median >= 1.9


TRIALS = {"equal": equal, "kill": killed, "drain": drained, "prefix": prefixes, "bad": bad_input.trial, "speed": speed}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)} [default: all but speed]")
    parser.add_argument("--frontend", type=shlex.split, default=["python3", "-m", "dynamo.frontend"])
    parser.add_argument("--worker", default=str(HERE / "../target/release/dualgrain-dynamo"))
    parser.add_argument("--server", default=str(HERE / "../../../target/release/dualgrain"))
    parser.add_argument("--model", type=Path, required=True, help="a quantized model folder")
    parser.add_argument("--etcd", default="etcd", help="etcd's program, for `kill`")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5, help="of `speed`")
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    arguments.trials = arguments.trials or [name for name in TRIALS if name != "speed"]
    unknown = [name for name in arguments.trials if name not in TRIALS]
    if unknown:
        parser.error(f"no such trial: {', '.join(unknown)}; there are {', '.join(TRIALS)}")
    for program in (arguments.worker, arguments.server):
        if shutil.which(program) is None:
            parser.error(f"{program}: no such program")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
