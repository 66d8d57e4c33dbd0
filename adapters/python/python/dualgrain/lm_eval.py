"""The model ``dualgrain`` of lm-evaluation-harness.

Importing this module registers it. From a terminal, with all options of ``lm_eval``::

    python -m dualgrain.lm_eval run --model dualgrain --model_args path=DIR --tasks piqa

In a program::

    import lm_eval
    from dualgrain.lm_eval import DualgrainLM
    lm_eval.simple_evaluate(model=DualgrainLM(path="DIR"), tasks=["piqa"])

Log-likelihoods are those of ``dualgrain eval``: texts get the special tokens that the tokenizer puts around them.
"""

from __future__ import annotations

from typing import Any, Optional

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from .engine import Engine
from .errors import ArgumentError, ModelError

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens")
"""How tasks call the length of an answer."""
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
"""What tasks may say of sampling."""


@register_model("dualgrain")
class DualgrainLM(TemplateLM):
    """A model folder, original or quantized, that runs on dualgrain."""

    def __init__(
        self,
        path: str,
        device: Optional[str] = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        max_length: Optional[int] = None,
        max_gen_toks: int = 256,
        threads: int = 0,
        kv_cache: Optional[str] = None,
    ) -> None:
        """Loads the model in the folder ``path``.

        :param device: ``auto`` (also where nothing is said), ``cpu`` or ``cuda:N``; ``cuda`` is the first card.
        :param batch_size: prompts that run at once when texts are generated; scores do not depend on it. ``auto`` is 16.
        :param max_batch_size: not used: batches are not searched for.
        :param max_length: tokens of a context at most; by default what the model has positions for.
        :param max_gen_toks: tokens of an answer where a task does not say.
        :param threads: threads of the CPU; 0 takes all cores.
        :param kv_cache: ``f32``, ``f16`` or ``int8`` instead of the folder's own.
        """
        super().__init__()
        self.engine = Engine(
            path,
            {None: "auto", "cuda": "cuda:0"}.get(device, device or "auto"),
            threads=int(threads),
            max_sequences=_sequences(batch_size),
            kv_cache=kv_cache,
        )
        self.max_length = int(max_length or self.engine.max_positions)
        self.max_gen_toks = int(max_gen_toks)
        if not self.engine.end_tokens:
            raise ModelError(f"{path}: the model names no token that ends a text, which the harness asks for")

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.engine.end_tokens[0]

    @property
    def prefix_token_id(self) -> int:
        """What an empty context is: the token that a text begins with, else the one that ends it."""
        first = self.engine.first_token
        return self.eot_token_id if first is None else first

    @property
    def tokenizer_name(self) -> str:
        """What the harness calls its cache of requests by."""
        return self.engine.path.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt for a conversation, by the folder's own template."""
        return self.engine.chat_prompt(chat_history, add_generation_prompt=add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: Optional[bool] = None, **kwargs: Any) -> list[int]:
        """Tokens of a text. What begins with the first token already, as chat templates write it, gets no second one."""
        tokens = self.engine.encode(string, special_tokens=add_special_tokens is not False)
        first = self.engine.first_token
        doubled = add_special_tokens is None and first is not None and tokens[:2] == [first, first]
        return tokens[1:] if doubled else tokens

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        before, scored = super()._encode_pair(context, continuation)
        # A tokenizer may join the end of the context with the continuation: at least the last token is scored.
        whole = self.tok_encode(context + continuation) if not scored else []
        return (whole[:-1], whole[-1:]) if whole else (before, scored)

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        sequences = [self._scored(context, continuation) for _, context, continuation in requests]
        answers = self._score(sequences, disable_tqdm)
        for (pair, _, _), answer in zip(requests, answers):
            if pair is not None:
                self.cache_hook.add_partial("loglikelihood", pair, answer)
        return answers

    def _scored(self, context: list[int], continuation: list[int]) -> tuple[list[int], int]:
        """Tokens to run, cut off on the left where they are too many, and the index of the first scored one."""
        if len(continuation) > self.max_length:
            raise ArgumentError(f"a continuation of {len(continuation)} tokens: expected at most max_length {self.max_length}")
        tokens = (context + continuation)[-(self.max_length + 1) :]
        return tokens, len(tokens) - len(continuation)

    def _score(self, sequences: list[tuple[list[int], int]], disable_tqdm: bool) -> list[tuple[float, bool]]:
        if not sequences:
            return []
        with tqdm(total=len(sequences), desc="Running loglikelihood requests", disable=disable_tqdm) as bar:

            def show(_: str, done: int, total: int) -> None:
                # Tokens are counted, requests are shown.
                bar.update(done * len(sequences) // total - bar.n)

            return self.engine.loglikelihoods(sequences, progress=show)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts; each of their tokens is predicted once, with as much context as fits."""
        sequences: list[tuple[list[int], int]] = []
        owners: list[int] = []
        for owner, (text,) in enumerate(request.args for request in requests):
            tokens = self.tok_encode(text, add_special_tokens=False)
            windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, 1)
            for context, continuation in map(make_disjoint_window, windows):
                sequences.append(self._scored(context, continuation))
                owners.append(owner)
        sums = [0.0] * len(requests)
        for owner, (loglikelihood, _) in zip(owners, self._score(sequences, disable_tqdm)):
            sums[owner] += loglikelihood
        for request, loglikelihood in zip(requests, sums):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, loglikelihood)
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts that follow contexts, each up to where its task says that it ends."""
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(index)
        answers = [""] * len(requests)
        with tqdm(total=len(requests), desc="Running generate_until requests", disable=disable_tqdm) as bar:
            for indices in groups.values():
                texts = self._generate([requests[index].args[0] for index in indices], requests[indices[0]].args[1])
                for index, text in zip(indices, texts):
                    answers[index] = text
                    self.cache_hook.add_partial("generate_until", requests[index].args, text)
                bar.update(len(indices))
        return answers

    def _generate(self, contexts: list[str], asked: dict[str, Any]) -> list[str]:
        options = _options(asked, self.max_gen_toks)
        room = min(self.engine.context, self.max_length) - options["max_tokens"]
        if room < 1:
            raise ArgumentError(
                f"{options['max_tokens']} tokens to generate leave no room for a prompt in a context of {self.engine.context}"
            )
        prompts = [self.tok_encode(context)[-room:] for context in contexts]
        return [generation.text for generation in self.engine.generate(prompts, **options)]


def _sequences(batch_size: Any) -> int:
    """Prompts at once, of what the harness says."""
    return int(batch_size) if str(batch_size).isdigit() and int(batch_size) > 0 else 16


def _options(asked: dict[str, Any], usual_length: int) -> dict[str, Any]:
    """Options of :meth:`Engine.stream` for those of a task; what would change answers and is not known is refused."""
    left = dict(asked)
    until = left.pop("until", None) or []
    lengths = [left.pop(name) for name in _LENGTHS if name in left]
    samples = left.pop("do_sample", None)
    sampling = {name: left.pop(name) for name in _SAMPLING if left.get(name) is not None}
    if samples is False or (samples is None and "temperature" not in sampling):
        sampling["temperature"] = 0.0
    elif samples and "temperature" not in sampling:
        sampling["temperature"] = 1.0
    if left.get("num_beams") == 1:
        del left["num_beams"]
    if left:
        raise ArgumentError(f"a task asks for {', '.join(sorted(left))}, which dualgrain does not know")
    return {
        **sampling,
        "max_tokens": int(lengths[0] if lengths else usual_length),
        "stop": [text for text in ([until] if isinstance(until, str) else until) if text],
        "ignore_defaults": True,
    }


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
