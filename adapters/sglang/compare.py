"""Asks a server through a router and alone, and compares every byte of the answers: compare.py --alone URL --through URL

Half of the requests are streamed. Seeds and prompts are counted, so that a second run asks the same. What may differ is left out: the
name of an answer, when it was made, and how much of its prompt a cache held. With --kill PID --after N the process PID (a server behind the router) gets a signal when N answers are
there; then it is told what became of the others. Only the standard library is needed. Exit code 1: an answer was wrong or, without --kill,
missing.
"""
import argparse
import collections
import http.client
import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

OPENINGS = ["Tell me of the sea", "What is a river", "Name three birds", "Why is the sky blue", "Write about a garden"]
# Fields that say which answer it is and what it took, not what it says.
OWN = {"id", "created", "prompt_tokens_details", "energy_j"}


def request(number, options):
    """The body of a request."""
    opening = OPENINGS[number % len(OPENINGS)]
    body = {
        "messages": [{"role": "user", "content": f"{opening}, and again {number // len(OPENINGS)}"}],
        "max_tokens": options.tokens,
        "temperature": 0.8,
        "seed": number,
        "stream": number % 2 == 1,
    }
    if options.model:
        body["model"] = options.model
    return body


def plain(answer):
    """What an answer, or a piece of one, says."""

    def kept(value):
        if isinstance(value, list):
            return [kept(inner) for inner in value]
        if isinstance(value, dict):
            return {name: kept(inner) for name, inner in value.items() if name not in OWN}
        return value

    return json.dumps(kept(answer), sort_keys=True)


def events(text):
    """The data of each event of a stream; comments, which keep a connection open, are left out."""
    blocks = (block.split("\n") for block in text.split("\n\n"))
    lines = (line for block in blocks for line in block if line.startswith("data:"))
    return [line.removeprefix("data:").strip() for line in lines]


def said(status, text, streamed):
    """What became of a request: a kind, and what was answered."""
    if status != 200:
        return f"status {status}", text
    if not streamed:
        return "answered", plain(json.loads(text))
    data = events(text)
    if not data or data[-1] != "[DONE]":
        return "stream cut off", "\n".join(data)
    pieces = [json.loads(piece) for piece in data[:-1]]
    if any("error" in piece for piece in pieces):
        begun = any(choice["delta"].get("content") for piece in pieces for choice in piece.get("choices", []))
        return "error in a stream" if begun else "error in a stream before its first text", text
    return "answered", "\n".join(plain(piece) for piece in pieces)


def ask(url, number, options):
    """Kind, text and seconds of an answer."""
    body, begin = request(number, options), time.monotonic()
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=options.timeout)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        try:
            text = response.read().decode()
        except http.client.IncompleteRead as cut:
            return "stream cut off" if body["stream"] else "answer cut off", cut.partial.decode(errors="replace"), time.monotonic() - begin
        kind, text = said(response.status, text, body["stream"])
    except (OSError, http.client.HTTPException) as error:
        kind, text = type(error).__name__, str(error)
    finally:
        connection.close()
    return kind, text, time.monotonic() - begin


def asked(url, options, at_once, after_each=lambda: None):
    """All requests; in order, whatever the order of their ends."""

    def one(number):
        answer = ask(url, number, options)
        after_each()
        return answer

    begin = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(one, range(options.requests)))
    return answers, time.monotonic() - begin


def killer(pid, after, name):
    """Counts answers and sends the process its signal at the right one."""
    lock, count = threading.Lock(), [0]

    def count_one():
        with lock:
            count[0] += 1
            if pid and count[0] == after:
                os.kill(pid, signal.Signals[f"SIG{name}"])
                print(f"{name} to {pid} after {after} answers")

    return count_one


def report(name, answers, seconds):
    kinds = collections.Counter((kind, "streamed" if number % 2 else "whole") for number, (kind, _, _) in enumerate(answers))
    times = sorted(time for _, _, time in answers)
    print(f"{name}: {len(answers)} requests in {seconds:.2f} s, the slowest {times[-1]:.2f} s")
    for (kind, way), count in sorted(kinds.items()):
        print(f"  {kind}, {way}: {count}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", required=True, help="one server, asked first")
    parser.add_argument("--through", required=True, help="the router")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=200, help="requests through the router at a time")
    parser.add_argument("--tokens", type=int, default=24, help="tokens of an answer")
    parser.add_argument("--model", help="the model's name; left out of the requests if not given")
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--kill", type=int, metavar="PID")
    parser.add_argument("--after", type=int, default=60)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL", help="TERM lets a server end what it began")
    options = parser.parse_args()
    wanted, seconds = asked(options.alone, options, at_once=8)
    report("alone", wanted, seconds)
    if any(kind != "answered" for kind, _, _ in wanted):
        sys.exit(f"the server alone failed: {next(answer for answer in wanted if answer[0] != 'answered')[:2]}")
    answers, seconds = asked(options.through, options, options.at_once, killer(options.kill, options.after, options.signal))
    report("through the router", answers, seconds)
    wrong = [number for number, answer in enumerate(answers) if answer[0] == "answered" and answer[1] != wanted[number][1]]
    failed = [number for number, answer in enumerate(answers) if answer[0] != "answered"]
    for number in wrong[:3]:
        print(f"request {number}\n  alone:   {wanted[number][1][:300]}\n  through: {answers[number][1][:300]}")
    for number in failed[:3]:
        print(f"request {number}: {answers[number][0]}: {answers[number][1][-300:]}")
    print(f"equal {len(answers) - len(wrong) - len(failed)}, different {len(wrong)}, failed {len(failed)}")
    sys.exit(bool(wrong or (failed and not options.kill)))


if __name__ == "__main__":
    main()
