"""Greedy continuations that transformers computes, chosen so that rounding decides no token.

A continuation is 64 tokens behind a prompt of 40, so it passes every window of the small models, the original length of every scaled rotary
embedding, and a page of the cache. The end of a text does not stop it. A random model has near ties: of the prompts that are drawn, one is
taken whose every step has a best token clearly before the second, and every router a last expert clearly before the next. Where greedy decoding
runs in a circle of few tokens, there is another one too, `apart`: each of its steps takes the best token that the last 24 are not.
"""

import torch

PROMPT = 40
STEPS = 64
# The nearest that the best and the second logit of a greedy step may be, as a part of the step's span.
GREEDY_MARGIN = 1e-3
# Tokens that a continuation should have, so that it is no short circle; the prompts that are tried for that, and for clear steps.
DISTINCT = 16
PROMPTS = 6
MOST_PROMPTS = 200
APART = 24


def rope_kind(config):
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    rope = next((value for value in rope.values() if isinstance(value, dict)), rope)
    return rope.get("rope_type", rope.get("type", "default"))


class Cached:
    """Logits of the last token, keys of earlier ones coming from transformers' own cache."""

    def __init__(self, model):
        self.model, self.cache = model, None

    def __call__(self, tokens, new):
        out = self.model(torch.tensor([tokens[-new:]]), past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        return out.logits[0, -1]


class Whole:
    """Logits of the last token of a sequence that has its whole length from the beginning (see `is_cached`)."""

    def __init__(self, model):
        self.model = model

    def __call__(self, tokens, _):
        padded = tokens + [0] * (PROMPT + STEPS - len(tokens))
        return self.model(torch.tensor([padded]), use_cache=False).logits[0, len(tokens) - 1]


def is_cached(config):
    """`dynamic` rotates by the length of the sequence, so a cache would hold keys that were rotated by others; and where Llama has a
    `sliding_window`, which it has no use for, transformers makes a cache that forgets and a mask that does not."""
    return rope_kind(config) != "dynamic" and not (config["model_type"] == "llama" and config.get("sliding_window") is not None)


def continuation(logits_of, prompt, apart):
    """The tokens behind a prompt, each other than the last `apart`; none where a step is not clear."""
    tokens, new = list(prompt), len(prompt)
    for _ in range(STEPS):
        logits = logits_of(tokens, new)
        span = (logits.max() - logits.min()).item()
        logits[tokens[len(tokens) - apart :]] = -torch.inf
        best, second = logits.topk(2).values.tolist()
        if best - second <= GREEDY_MARGIN * span:
            return None
        tokens.append(int(logits.argmax()))
        new = 1
    return tokens[len(prompt) :]


def distinct(found):
    return len(set(found["tokens"]))


def search(logits_of, prompt, apart, routers, router_margin):
    """A prompt whose continuation is clear at every step, of the first few the one with the most tokens."""
    most = None
    for number in range(MOST_PROMPTS):
        if most and (number >= PROMPTS or distinct(most) >= DISTINCT):
            return most
        routers.clear()
        tokens = continuation(logits_of(), prompt(number), apart)
        if tokens is None or min((margin for margin, _ in routers), default=1) <= router_margin:
            continue
        found = {"prompt": number, "tokens": tokens}
        most = max(most or found, found, key=distinct)
    return most


def of(model, config, prompt, routers, router_margin):
    """`greedy` and, where that runs in a circle, `apart`: the number of a prompt and 64 tokens each. `prompt` makes the tokens of a number."""
    logits_of = lambda: (Cached if is_cached(config) else Whole)(model)
    with torch.no_grad():
        found = {"greedy": search(logits_of, prompt, 0, routers, router_margin)}
        assert found["greedy"], "no prompt gives clear steps"
        if distinct(found["greedy"]) < DISTINCT:
            found["apart"] = search(logits_of, prompt, APART, routers, router_margin)
            assert found["apart"], "no prompt gives clear steps apart"
    return found
