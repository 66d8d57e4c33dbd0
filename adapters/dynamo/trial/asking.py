"""Requests that anybody can repeat, and their answers."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import http.client
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

from processes import LOOPBACK, MODEL_NAME


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    text: str
    finish_reason: str | None
    #: Tokens of prompt and answer, where they are told.
    prompt_tokens: int | None = None
    tokens: int | None = None


def mixed(text: Path, count: int, seed: int = 1) -> list[tuple[str, dict]]:
    """Paths and bodies: completions and chats, greedy and drawn, whole and streamed."""
    prose, draw = text.read_text(), random.Random(seed)
    made = []
    for index in range(count):
        begin = draw.randrange(len(prose) - 600)
        words = prose[begin : begin + draw.randrange(20, 600)]
        body = {"model": MODEL_NAME, "max_tokens": draw.randrange(1, 48), "seed": index, "stream": draw.random() < 0.5}
        body["temperature"] = draw.choice([0.0, 0.7, 1.0])
        if draw.random() < 0.3:
            body |= {"top_p": 0.9}
        if draw.random() < 0.2:
            body |= {"stop": ["the", "\n"]}
        if draw.random() < 0.5:
            made.append(("/v1/completions", body | {"prompt": words}))
        else:
            made.append(("/v1/chat/completions", body | {"messages": [{"role": "user", "content": words}]}))
    return made


def under_schema(count: int, seed: int = 3) -> list[tuple[str, dict]]:
    """Chats whose answers follow a JSON Schema."""
    draw = random.Random(seed)
    fields = {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}, "at sea": {"type": "boolean"}}
    made = []
    for index in range(count):
        names = draw.sample(sorted(fields), k=draw.randrange(1, 4))
        schema = {"type": "object", "properties": {name: fields[name] for name in names}, "required": names}
        schema["additionalProperties"] = False
        form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        body = {"model": MODEL_NAME, "messages": [{"role": "user", "content": f"Captain {index}?"}], "max_tokens": 120}
        made.append(("/v1/chat/completions", body | {"seed": index, "temperature": draw.choice([0.0, 1.0]), "response_format": form}))
    return made


def even(text: Path, count: int, tokens: int, seed: int = 5) -> list[tuple[str, dict]]:
    """Completions of one length, for times."""
    prose, draw = text.read_text(), random.Random(seed)
    begins = [draw.randrange(len(prose) - 300) for _ in range(count)]
    body = {"model": MODEL_NAME, "max_tokens": tokens, "temperature": 0.0, "ignore_eos": True}
    return [("/v1/completions", body | {"prompt": prose[begin : begin + 300]}) for begin in begins]


def with_prefixes(text: Path, groups: int, each: int, prefix_chars: int, seed: int = 2) -> list[tuple[str, dict]]:
    """Completions whose prompts begin alike within a group, in random order."""
    prose, draw = text.read_text(), random.Random(seed)
    made = []
    for group in range(groups):
        prefix = prose[group * prefix_chars : (group + 1) * prefix_chars]
        for index in range(each):
            prompt = f"{prefix} {group}-{index}"
            made.append(("/v1/completions", {"model": MODEL_NAME, "prompt": prompt, "max_tokens": 4, "temperature": 0.0}))
    draw.shuffle(made)
    return made


def tokenized(port: int, path: str, body: dict) -> tuple[str, dict]:
    """The same request with tokens for a text; a plain server on `port` makes them."""
    if "prompt" not in body:
        return path, body
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    try:
        connection.request("POST", "/tokenize", json.dumps({"prompt": body["prompt"]}), {"Content-Type": "application/json"})
        return path, body | {"prompt": json.loads(connection.getresponse().read())["tokens"]}
    finally:
        connection.close()


def ask(port: int, path: str, body: dict, timeout_s: float = 120.0) -> Answer:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        return Answer(answer.status, raw, None)
    if not body.get("stream"):
        whole = json.loads(raw)
        choice = whole["choices"][0]
        text = choice["text"] if "text" in choice else choice["message"]["content"] or ""
        used = whole["usage"]
        return Answer(200, text, choice["finish_reason"], used["prompt_tokens"], used["completion_tokens"])
    return streamed(raw)


def cached_tokens(port: int, body: dict) -> tuple[int, int]:
    """Tokens of a completion's prompt that were in the cache already, and all of them."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=30)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        used = json.loads(connection.getresponse().read())["usage"]
        return used["prompt_tokens_details"]["cached_tokens"], used["prompt_tokens"]
    finally:
        connection.close()


def streamed(raw: str) -> Answer:
    text, reason = "", None
    for line in raw.splitlines():
        if line.startswith("event: error") or '"error"' in line[:20]:
            return Answer(500, raw[-500:], None)
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        for choice in json.loads(line[6:]).get("choices", []):
            text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            reason = choice.get("finish_reason") or reason
    # A stream says how many tokens it had only where it is asked to.
    return Answer(200, text, reason)


def ask_all(
    port: int, requests: list[tuple[str, dict]], at_once: int = 16, on_done: Callable[[int], None] = lambda _: None
) -> list[Answer]:
    """All answers in the order of the requests; `on_done` hears how many have ended."""
    done, lock = 0, threading.Lock()

    def one(request: tuple[str, dict]) -> Answer:
        nonlocal done
        try:
            answer = ask(port, *request)
        except (OSError, http.client.HTTPException) as error:
            answer = Answer(0, repr(error), None)
        with lock:
            done += 1
            on_done(done)
        return answer

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, requests))


def differing(got: list[Answer], expected: list[Answer]) -> list[int]:
    """Where answers are not the same. Tokens of an answer are not compared: programs count those of a stop string in their own ways."""

    def shown(answer: Answer) -> tuple:
        return answer.status, answer.text, answer.finish_reason, answer.prompt_tokens

    return [index for index, (a, b) in enumerate(zip(got, expected, strict=True)) if shown(a) != shown(b)]
