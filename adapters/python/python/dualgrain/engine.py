"""Running a model: one prompt, batches, streams, logits."""

from __future__ import annotations

import inspect
import json
import os
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping, Optional, Sequence, TypedDict, Union, overload

import numpy as np
import numpy.typing as npt

from . import _native
from .errors import ArgumentError, Cancelled

if TYPE_CHECKING:
    from typing_extensions import Unpack

Prompt = Union[str, Sequence[int]]
"""A text, or its tokens."""

Progress = Callable[[str, int, int], Optional[bool]]
"""Is told what is being done, how much of it is done, and of how much. ``False`` ends the run with :class:`Cancelled`."""


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of probabilities, before temperature, penalties and cuts."""

    logprob: float
    """Of the token that was chosen."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens with theirs, the likeliest first."""


@dataclass(frozen=True)
class Generation:
    """What was generated for one prompt."""

    text: str
    """The text, without what a stop string cuts off."""
    tokens: list[int]
    """The tokens, without an end token; those of a stop string are among them."""
    finish_reason: str
    """``eos``, ``stop_string``, ``max_tokens`` or ``context``."""
    prompt_tokens: int
    """Tokens of the prompt."""
    logprobs: Optional[list[TokenLogprobs]]
    """One for each token, where they were asked for."""


@dataclass(frozen=True)
class Piece:
    """A part of an answer, as it comes."""

    index: int
    """Which prompt it belongs to."""
    text: str
    """Text that follows the last piece's: often empty, because a token alone is not always a text."""
    token: Optional[int]
    """The token; ``None`` for text that was held back until the end."""
    logprobs: Optional[TokenLogprobs]
    """Where they were asked for."""


class Options(TypedDict, total=False):
    """How answers are generated; :meth:`Engine.stream` says what each means."""

    max_tokens: Optional[int]
    stop: Union[str, Sequence[str]]
    ignore_eos: bool
    temperature: Optional[float]
    top_k: Optional[int]
    top_p: Optional[float]
    min_p: Optional[float]
    repetition_penalty: Optional[float]
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Optional[Mapping[int, float]]
    logprobs: Optional[int]
    seed: int
    ignore_defaults: bool
    special_tokens: bool


class Stream(Iterator[Piece]):
    """Answers as they come. Each step of the engine is run when a piece is asked for, and what is left ends with the stream."""

    def __init__(self, running: _native.Running, prompt_tokens: list[int]) -> None:
        self._running = running
        self._prompt_tokens = prompt_tokens

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Piece:
        piece = self._running.next()
        if piece is None:
            raise StopIteration
        index, text, token, logprobs = piece
        return Piece(index, text, token, None if logprobs is None else _logprobs(logprobs))

    def close(self) -> None:
        """Ends the answers that are not done."""
        self._running.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    @property
    def generations(self) -> list[Optional[Generation]]:
        """What was generated for each prompt; ``None`` for one that is under way or was ended before it was done."""
        return [self._generation(index) for index in range(len(self._prompt_tokens))]

    def _generation(self, index: int) -> Optional[Generation]:
        try:
            return _generation(self._running, index, self._prompt_tokens[index])
        except Cancelled:
            return None


class Engine:
    """A model that is loaded, original or quantized.

    Several threads may use one engine: their prompts share its steps.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        device: str = "auto",
        *,
        threads: int = 0,
        context: Optional[int] = None,
        max_sequences: int = 16,
        kv_cache: Optional[str] = None,
    ) -> None:
        """Loads the model in the folder ``path``.

        :param device: ``auto`` takes the first NVIDIA card where the model fits it, else the CPU; ``cpu``; ``cuda:N`` a card by number.
        :param threads: threads of the CPU; 0 takes all cores.
        :param context: tokens of a prompt and its answer together; by default 8192, or what the model has positions for.
        :param max_sequences: prompts that run at once; more than these wait for each other.
        :param kv_cache: ``f32``, ``f16`` or ``int8``; by default what the folder says.
        :raises ModelError: the folder is missing, damaged or unsupported.
        :raises DeviceError: the device is not there.
        :raises OutOfMemoryError: the model does not fit.
        """
        self._native = _native.Engine(
            {
                "path": path,
                "device": device,
                "threads": threads,
                "context": context,
                "max_sequences": max_sequences,
                "kv_cache": kv_cache,
            }
        )
        self.path = os.fspath(path)

    def __repr__(self) -> str:
        return f"Engine({self.path!r}, device={self.device!r}, context={self.context})"

    @overload
    def generate(self, prompts: str, **options: Unpack[Options]) -> Generation: ...  # type: ignore[overload-overlap]

    @overload
    def generate(self, prompts: Sequence[str], **options: Unpack[Options]) -> list[Generation]: ...

    @overload
    def generate(self, prompts: Sequence[int], **options: Unpack[Options]) -> Generation: ...

    @overload
    def generate(self, prompts: Sequence[Sequence[int]], **options: Unpack[Options]) -> list[Generation]: ...

    def generate(self, prompts: Any, **options: Unpack[Options]) -> Union[Generation, list[Generation]]:
        """Continues one prompt, or each of several, and returns when all are done.

        A prompt is a text or its tokens. Options are those of :meth:`stream`. Ctrl-C ends all of them.

        :returns: a :class:`Generation` for one prompt, a list of them for several, in their order.
        :raises ArgumentError: a prompt that is empty or too long, an option outside its range.
        """
        one, batch = _prompts(prompts)
        running, lengths = self._native.start(_options(batch, **options), False)
        running.wait()
        done = [_generation(running, index, length) for index, length in enumerate(lengths)]
        generations = [generation for generation in done if generation is not None]
        return generations[0] if one else generations

    def stream(
        self,
        prompts: Union[Prompt, Sequence[Prompt]],
        *,
        max_tokens: Optional[int] = 256,
        stop: Union[str, Sequence[str]] = (),
        ignore_eos: bool = False,
        temperature: Optional[float] = None,
        top_k: Optional[int] = None,
        top_p: Optional[float] = None,
        min_p: Optional[float] = None,
        repetition_penalty: Optional[float] = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Optional[Mapping[int, float]] = None,
        logprobs: Optional[int] = None,
        seed: int = 0,
        ignore_defaults: bool = False,
        special_tokens: bool = True,
    ) -> Stream:
        """As :meth:`generate`, but gives an iterator over the pieces of all answers as they come.

        What is ``None`` is as the model's generation_config.json says, else off: the likeliest token every time.

        :param max_tokens: tokens of an answer at most; ``None`` goes on to the end of the context.
        :param stop: texts that end an answer and do not belong to it.
        :param ignore_eos: go on after the model's end tokens.
        :param temperature: 0 takes the likeliest token every time.
        :param top_k: only so many of the likeliest tokens; 0 means all.
        :param top_p: only the likeliest tokens that together reach this probability.
        :param min_p: only tokens at least so many times as likely as the likeliest.
        :param repetition_penalty: divides the logits of tokens that occur already, in the prompt too.
        :param presence_penalty: taken off the logit of a token that was generated.
        :param frequency_penalty: taken off the logit of a token for every time it was generated.
        :param logit_bias: added to the logits of these tokens.
        :param logprobs: give log-probabilities of every token and of so many of the likeliest ones.
        :param seed: equal seeds give equal answers, on every device and beside any other prompts.
        :param ignore_defaults: use nothing of generation_config.json but its end tokens.
        :param special_tokens: put the tokens around a text that the tokenizer puts there.
        """
        _, batch = _prompts(prompts)
        options = _options(
            batch,
            max_tokens=max_tokens,
            stop=stop,
            ignore_eos=ignore_eos,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logit_bias=logit_bias,
            logprobs=logprobs,
            seed=seed,
            ignore_defaults=ignore_defaults,
            special_tokens=special_tokens,
        )
        return Stream(*self._native.start(options, True))

    def logits(self, prompt: Prompt, *, first: int = 0) -> npt.NDArray[np.float32]:
        """Logits ``[tokens, vocab_size]`` after the tokens of a prompt from ``first`` on, without a copy; a negative ``first`` counts from
        the end, so that -1 gives those of the next token alone."""
        tokens = self.encode(prompt) if isinstance(prompt, str) else _tokens(prompt)
        if not tokens:
            raise ArgumentError("the prompt is empty: expected at least one token")
        if not -len(tokens) <= first < len(tokens):
            raise ArgumentError(f"first: expected an index of the {len(tokens)} tokens of the prompt, got {first}")
        return self._native.logits(tokens, first % len(tokens))

    def loglikelihoods(
        self, sequences: Iterable[tuple[Sequence[int], int]], *, progress: Optional[Progress] = None
    ) -> list[tuple[float, bool]]:
        """Of each sequence of tokens: the sum of the log-probabilities of those from an index on, and whether each is the likeliest."""
        return self._native.loglikelihoods([(_tokens(tokens), start) for tokens, start in sequences], progress)

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """The prompt for a conversation, messages with ``role`` and ``content``, by the template in the model's folder. The template writes
        special tokens itself: generate with ``special_tokens=False``."""
        return self._native.chat_prompt(json.dumps(list(messages)), add_generation_prompt)

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """Tokens of a text."""
        return self._native.encode(text, special_tokens)

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of tokens."""
        return self._native.decode(_tokens(tokens), skip_special_tokens)

    @property
    def device(self) -> str:
        """What the device calls itself."""
        return self._native.device

    @property
    def device_reason(self) -> Optional[str]:
        """Which device ``auto`` took, and why."""
        return self._native.device_reason

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer together, at most."""
        return self._native.context

    @property
    def max_sequences(self) -> int:
        """Prompts that run at once."""
        return self._native.max_sequences

    @property
    def max_positions(self) -> int:
        """Positions that the model was made for."""
        return self._native.max_positions

    @property
    def vocab_size(self) -> int:
        """Entries of the logits."""
        return self._native.vocab_size

    @property
    def end_tokens(self) -> list[int]:
        """Tokens that end an answer."""
        return self._native.end_tokens

    @property
    def first_token(self) -> Optional[int]:
        """The token that a text begins with, where the model has one."""
        return self._native.first_token


def _usual() -> dict[str, Any]:
    """What :meth:`Engine.stream` takes where nothing is said."""
    parameters = inspect.signature(Engine.stream).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


_USUAL = _usual()


def _options(batch: list[Prompt], **given: Any) -> dict[str, Any]:
    """The arguments of the native part."""
    unknown = sorted(set(given) - set(_USUAL))
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}: expected {', '.join(_USUAL)}")
    options = {**_USUAL, **given}
    stop, bias = options["stop"], options["logit_bias"]
    options["stop"] = [stop] if isinstance(stop, str) else _listed("stop", stop if stop is not None else (), "a text or a list of texts")
    if bias is not None and not isinstance(bias, Mapping):
        raise ArgumentError(f"logit_bias: expected a mapping of tokens to numbers, got {type(bias).__name__}")
    options["logit_bias"] = list((bias or {}).items())
    options["prompts"] = batch
    return options


def _listed(name: str, values: Any, expected: str) -> list[Any]:
    try:
        return list(values)
    except TypeError as error:
        raise ArgumentError(f"{name}: expected {expected}, got {type(values).__name__}") from error


def _prompts(prompts: Any) -> tuple[bool, list[Prompt]]:
    """Whether it is one prompt, and the prompts as a list."""
    if isinstance(prompts, str):
        return True, [prompts]
    if not isinstance(prompts, Iterable) or isinstance(prompts, (bytes, Mapping)):
        raise ArgumentError(f"prompts: expected a text, tokens, or a list of either, got {type(prompts).__name__}")
    batch = _listed("prompts", prompts, "a text, tokens, or a list of either")
    if batch and all(_is_token(token) for token in batch):
        return True, [_tokens(batch)]
    return False, [prompt if isinstance(prompt, str) else _tokens(prompt) for prompt in batch]


def _is_token(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _tokens(tokens: Any) -> list[int]:
    """Tokens as a list of numbers."""
    if isinstance(tokens, Iterable) and not isinstance(tokens, (str, bytes, Mapping)):
        numbers = list(tokens)
        if all(_is_token(token) and 0 <= token < 1 << 32 for token in numbers):
            return [int(token) for token in numbers]
    raise ArgumentError(f"expected a text or tokens, whole numbers from 0 on, got {_short(tokens)}")


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else words[:60] + "..."


def _logprobs(logprobs: tuple[float, list[tuple[int, float]]]) -> TokenLogprobs:
    chosen, top = logprobs
    return TokenLogprobs(chosen, tuple(top))


def _generation(running: _native.Running, index: int, prompt_tokens: int) -> Optional[Generation]:
    """What became of a request; ``None`` while it is under way."""
    finished = running.finished(index)
    if finished is None:
        return None
    text, tokens, reason, logprobs = finished
    told = None if logprobs is None else [_logprobs(each) for each in logprobs]
    return Generation(text, tokens, reason, prompt_tokens, told)
