#!/usr/bin/env python3
"""Folders of every family as transformers saves them: a tiny random model, and a tokenizer of the class that AutoTokenizer takes for it.

    python make_folders.py OUT              tokenizers, families.jsonl and whole folders of models
    python make_folders.py OUT --small      without the folders of models: what tests/folders/saved has

    OUT/tokenizers/NAME/    the files that save_pretrained writes, and ids.json: texts, and the tokens that the tokenizer makes of them
    OUT/families.jsonl      a family a line: its tokenizer, the configurations that save_pretrained writes, and the tensors of the file by
                            name (`*` stands for a layer, `#` for an expert)
    OUT/models/FAMILY/      the folder itself; its tokenizer is what AutoTokenizer reads there, and has the tokens of ids.json

Vocabularies are trained on the first part of the bundled calibration text. The class says how a text is cut and what is put before it.
"""

import argparse
import json
import os
import shutil
import sys

import torch
import transformers
from make_config_fixtures import listed
from safetensors import safe_open
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    CohereTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    Qwen2Tokenizer,
    TokenizersBackend,
)

SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "models", "llama-tiny", "sample_calib.txt")
SAMPLE_LINES = 400
VOCAB = 448
TEXTS = [
    "The old captain said nothing, and nobody asked.",
    " A space before,  two between, and one behind ",
    "It's 1,234.5 metres; they'll have gone in 2026, won't they?",
    "tabs\tand\nlines\n\n  indented\r\nend",
    "Café, naïve, Straße: composed é and decomposed e\u0301.",
    "日本語のテキスト, русский текст, हिन्दी, \U0001f600\U0001f469\u200d\U0001f680",
    "def main(argv: list[str]) -> int:\n    return len(argv) ** 2  # x_1 != 0x7F",
    "<s> and </s>, <bos>, <|endoftext|>, [gMASK]<sop>, <BOS_TOKEN> written out",
    "ALLCAPS CamelCase snake_case " + "a" * 40 + " " * 9 + "!!!???...",
    "",
]

# How cl100k and o200k cut a text.
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ]
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


# --- tokenizers ---


def sample():
    with open(SAMPLE) as file:
        return [line.strip() for line in file if line.strip()][:SAMPLE_LINES]


def train(like, special, alphabet, words=None, size=VOCAB):
    """Vocabulary and merges of texts that are normalized and cut as `like` does it; `words` cuts them where it does not."""
    blank = Tokenizer(models.BPE())
    if like.normalizer is not None:
        blank.normalizer = like.normalizer
    blank.pre_tokenizer = words or like.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    blank.train_from_iterator(sample(), trainer)
    model = json.loads(blank.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def byte_level(cls, special, **options):
    """A class whose tokens are made of bytes."""
    return cls(**train(cls(**options).backend_tokenizer, special, pre_tokenizers.ByteLevel.alphabet()), **options)


def sentence_piece(cls, special, **options):
    """A class whose words begin with a bar, and which writes unknown letters as bytes."""
    bars = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    return cls(**train(cls(**options).backend_tokenizer, special + BYTES, [], bars), **options)


def backend(tokenizer, added, **options):
    """A tokenizer whose file alone says how it works."""
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return TokenizersBackend(tokenizer_object=tokenizer, **options)


def cut_by(pattern, before, **options):
    """As tiktoken's vocabularies are written: cut by a pattern, then bytes; special tokens behind the others, `before` before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trained = train(tokenizer, [], pre_tokenizers.ByteLevel.alphabet(), size=VOCAB - 8)
    tokenizer.model = models.BPE(**trained, ignore_merges=pattern != BLOOM)
    tokenizer.decoder = decoders.ByteLevel()
    added = [*dict.fromkeys([*before, *options.values()])]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    if before:
        pieces = [(token, tokenizer.token_to_id(token)) for token in before]
        tokenizer.post_processor = processors.TemplateProcessing(single=[*before, "$A"], special_tokens=pieces)
    return backend(tokenizer, added, **options)


def spm_backend():
    """A file of Llama's class that is read without it, as those of Mistral are."""
    inner = TOKENIZERS["llama"]().backend_tokenizer
    inner.post_processor = processors.TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", inner.token_to_id("<s>"))])
    return backend(inner, ["<unk>", "<s>", "</s>"], bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "llama": lambda: sentence_piece(LlamaTokenizer, ["<unk>", "<s>", "</s>"], add_bos_token=True),
    "mistral": spm_backend,
    "gemma": lambda: sentence_piece(GemmaTokenizer, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], add_bos_token=True),
    "qwen2": lambda: byte_level(Qwen2Tokenizer, ["<|endoftext|>"]),
    "cohere": lambda: byte_level(
        CohereTokenizer,
        ["<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"],
        add_bos_token=True,
    ),
    "gpt_neox": lambda: byte_level(GPTNeoXTokenizer, ["<|endoftext|>", "<|padding|>"]),
    "gpt2": lambda: byte_level(GPT2Tokenizer, ["<|endoftext|>"]),
    "opt": lambda: byte_level(
        GPT2Tokenizer,
        ["<s>", "<pad>", "</s>"],
        bos_token="</s>",
        eos_token="</s>",
        unk_token="</s>",
        pad_token="<pad>",
        add_bos_token=True,
    ),
    "bloom": lambda: cut_by(BLOOM, [], bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"),
    "cl100k": lambda: cut_by(CL100K, ["<|begin_of_text|>"], bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"),
    "glm": lambda: cut_by(CL100K, ["[gMASK]", "<sop>"], eos_token="<|endoftext|>", pad_token="<|endoftext|>"),
    "o200k": lambda: cut_by(O200K, [], bos_token="<|startoftext|>", eos_token="<|return|>", pad_token="<|endoftext|>"),
}


def tokens_of(tokenizer):
    rows = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        rows.append({"text": text, "ids": ids, "without_special": plain, "decoded": tokenizer.decode(plain)})
    return rows


def write_tokenizer(name, out):
    tokenizer = TOKENIZERS[name]()
    assert len(tokenizer) <= VOCAB, (name, len(tokenizer))
    tokenizer.save_pretrained(out)
    rows = tokens_of(AutoTokenizer.from_pretrained(out))
    with open(os.path.join(out, "ids.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "\n]\n")
    return rows


# --- models ---

USUAL = dict(
    vocab_size=VOCAB,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    pad_token_id=None,
)
HEADS = dict(head_dim=16)
WINDOW = dict(sliding_window=64)
YARN = dict(rope_type="yarn", rope_theta=150000.0, factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0, truncate=False)
MOE = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)

# A family's tokenizer, and what differs from the usual sizes. Everything else is as the family's class has it by itself.
FAMILIES = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {**HEADS, **WINDOW}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen2", HEADS),
    "phi3": ("mistral", WINDOW),
    "granite": ("cl100k", {"attention_multiplier": 0.25, "logits_scaling": 2.0}),
    "smollm3": ("cl100k", {"num_hidden_layers": 4}),
    "glm": ("glm", HEADS),
    "glm4": ("glm", HEADS),
    "cohere": ("cohere", {}),
    "cohere2": ("cohere", {**WINDOW, "num_hidden_layers": 4}),
    "starcoder2": ("gpt2", WINDOW),
    "gemma": ("gemma", HEADS),
    "gemma2": ("gemma", {**HEADS, **WINDOW, "query_pre_attn_scalar": 16}),
    "gemma3_text": ("gemma", {**HEADS, **WINDOW, "query_pre_attn_scalar": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    "olmo2": ("cl100k", {}),
    "olmo3": ("cl100k", {**WINDOW, "num_hidden_layers": 4}),
    "gpt_neox": ("gpt_neox", {}),
    "opt": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4, "seq_length": 128}),
    "mixtral": ("mistral", {"num_local_experts": 4}),
    "qwen2_moe": ("qwen2", {**MOE, "shared_expert_intermediate_size": 48}),
    "qwen3_moe": ("qwen2", {**HEADS, **MOE}),
    "olmoe": ("gpt_neox", {"num_experts": 4, "num_experts_per_tok": 2}),
    "glm4_moe": ("glm", {**HEADS, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 1, "topk_group": 1}),
    "gpt_oss": ("o200k", {**HEADS, **WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": YARN}),
}


def configuration(family, tokenizer):
    name, changes = FAMILIES[family]
    fields = {**USUAL, **changes}
    if family == "bloom":
        kept = ("vocab_size", "hidden_size", "n_layer", "n_head", "seq_length", "pad_token_id")
        fields = {field: fields[field] for field in kept}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return AutoConfig.for_model(family, dtype="bfloat16", **{**fields, **ends})


def write_model(family, tokenizer, out):
    torch.manual_seed(len(family))
    model = AutoModelForCausalLM.from_config(configuration(family, tokenizer), dtype=torch.bfloat16)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def read_json(*path):
    with open(os.path.join(*path)) as file:
        return json.load(file)


def row_of(family, folder):
    with safe_open(os.path.join(folder, "model.safetensors"), "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    config = read_json(folder, "config.json")
    layers = config.get("num_hidden_layers") or config["n_layer"]
    generation = os.path.join(folder, "generation_config.json")
    return {
        "family": family,
        "tokenizer": FAMILIES[family][0],
        "config": config,
        "generation_config": read_json(generation) if os.path.exists(generation) else None,
        "tensors": listed(shapes, layers),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    place = lambda *parts: os.path.join(args.out, *parts)
    expected = {name: write_tokenizer(name, place("tokenizers", name)) for name in TOKENIZERS}
    rows = []
    for family, (name, _) in FAMILIES.items():
        folder = place("models", family)
        write_model(family, AutoTokenizer.from_pretrained(place("tokenizers", name)), folder)
        read = AutoTokenizer.from_pretrained(folder)
        assert tokens_of(read) == expected[name], f"{family}: {type(read).__name__} makes other tokens there"
        rows.append(row_of(family, folder))
        print(f"{family:14} {name:10} {type(read).__name__}")
    with open(place("families.jsonl"), "w") as file:
        file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    if args.small:
        shutil.rmtree(place("models"))
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")


if __name__ == "__main__":
    sys.exit(main())
