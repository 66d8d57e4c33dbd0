"""What goes wrong at the edges of a fleet, and the words for it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import asking
from processes import LOOPBACK, MODEL_NAME, Fleet, get

TEXT = Path(__file__).resolve().parent / "../../../models/llama-tiny/sample_eval.txt"
ALONE = {"model": MODEL_NAME, "prompt": "The sea", "max_tokens": 4, "temperature": 0.0}

UNFOLLOWED = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}


def trial(arguments, folder: Path, stack):
    fleet = Fleet(arguments, folder, stack)
    fleet.start_frontend()
    yield from without_workers(fleet)
    worker = fleet.start_worker("--device", "cpu", "--threads", "1")
    fleet.wait_until_served(1)
    yield from refused_by_name(fleet)
    yield from health(worker)
    yield from other_folder(arguments, folder, fleet)
    yield from wrong_command_lines(arguments, fleet)
    yield from lost_discovery(arguments, folder / "lost", stack)


def without_workers(fleet: Fleet):
    begun = time.monotonic()
    answer = asking.ask(fleet.port, "/v1/completions", ALONE)
    quick = time.monotonic() - begun < 10
    yield "a frontend without workers", f"{answer.status}: {answer.text[:80]}", "404 or 503 at once", answer.status in (404, 503) and quick


def refused_by_name(fleet: Fleet):
    for name, extra in (
        ("n", {"n": 2}),
        ("guided_decoding.regex", {"guided_regex": "a*"}),
        ("uniqueItems", {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": UNFOLLOWED}}}),
        ("context", {"max_tokens": 1_000_000}),
    ):
        body = {key: value for key, value in ALONE.items() if key != "prompt"}
        body |= {"messages": [{"role": "user", "content": "The sea"}]} | extra
        answer = asking.ask(fleet.port, "/v1/chat/completions", body)
        yield f"{name} refused", f"{answer.status}: {answer.text[:120]}", "400 with the name", answer.status == 400 and name in answer.text
    answer = asking.ask(fleet.port, "/v1/completions", ALONE)
    yield "the worker answers after refusals", answer.status, "200", answer.status == 200


def health(worker):
    status, _ = get(f"http://{LOOPBACK}:{worker.port}/health")
    yield "health of the worker", status, "200", status == 200
    _, text = get(f"http://{LOOPBACK}:{worker.port}/metrics")
    named = all(name in text for name in ("vllm:generation_tokens_total", "dynamo_component_"))
    yield "metrics of the worker and of the runtime", named, "True", named


def other_folder(arguments, folder: Path, fleet: Fleet):
    """The same name and other weights."""
    other = folder / Path(arguments.model).resolve().name
    shutil.copytree(arguments.model, other)
    weights = next(other.glob("*.safetensors"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    yield from not_beside(fleet, "a worker with other weights", "SHA-256 of weights", model=other)
    yield from not_beside(fleet, "a worker with another context", "--context", "--context", "1024")


def not_beside(fleet: Fleet, what: str, words: str, *options: str, model: Path | None = None):
    worker = fleet.start_worker("--device", "cpu", "--threads", "1", *options, model=model)
    code = worker.child.wait(timeout=60)
    yield what, f"code {code}", f"an error that says {words}", code != 0 and f"its {words}" in worker.said()


def wrong_command_lines(arguments, fleet: Fleet):
    for what, options, words in (
        ("no such folder", [], "no such model folder"),
        ("a role that it does not have", ["--disaggregation-mode", "prefill"], "takes agg alone"),
        ("a context that the model does not have", ["--context", "1000000"], "has positions for"),
        ("a card that is not there", ["--device", "cuda:7"], "cuda:7"),
        ("an endpoint that it does not have", ["--endpoint-types", "embeddings"], "expected chat"),
    ):
        model = Path("no-such-folder") if what == "no such folder" else None
        worker = fleet.start_worker(*options, model=model)
        code = worker.child.wait(timeout=60)
        yield what, f"code {code}", words, code != 0 and words in worker.said()


def lost_discovery(arguments, folder: Path, stack):
    """etcd dies under a worker: what was admitted ends, and the worker says so or goes on."""
    folder.mkdir()
    fleet = Fleet(arguments, folder, stack, "etcd")
    fleet.start_frontend()
    worker = fleet.start_worker("--device", "cpu", "--threads", "1")
    fleet.wait_until_served(1)
    requests = asking.mixed(TEXT, 600)

    def on_done(done: int) -> None:
        if done == 10:
            fleet.etcd.signal(9)

    answers = asking.ask_all(fleet.port, requests, at_once=4, on_done=on_done)
    # Ten were answered and four were under way when etcd died.
    begun = [answer.status for answer in answers[:14]]
    yield "requests that were begun when etcd died", f"{begun.count(200)} answered", "14", begun.count(200) == 14
    others = {answer.status for answer in answers[14:]}
    yield "requests that came later", f"status {sorted(others)}", "200 or 503", others <= {200, 503}
    code = worker.child.wait(timeout=60)
    told = "it has lost discovery" in worker.said()
    yield "then the worker ends", f"code {code}", "code 1, with words", code == 1 and told
