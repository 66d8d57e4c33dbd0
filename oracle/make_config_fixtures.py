#!/usr/bin/env python3
"""Configurations of public models, made small, with the logits that transformers computes for them.

    python make_config_fixtures.py OUT                               compute every row's tensors and logits again
    python make_config_fixtures.py OUT --add NAME SOURCE CONFIG.json    scale a configuration down and add it
    python make_config_fixtures.py OUT --refuse NAME SOURCE CONFIG.json WORD ...   add one that is refused, naming WORDs
    python make_config_fixtures.py OUT --greedy                      compute greedy continuations alone, where rows lack them

OUT/FAMILY.jsonl has a row for each configuration: its name, the public place its facts are from, the configuration, and either the
tensors of the model (`*` stands for a layer, `#` for an expert) with logits at two positions and a greedy continuation, or the words that
the refusal must have. Where the installed transformers no longer reads a spelling, `as` has the fields that it is given instead.

Continuations are those of continuations.py.

Weights are not stored: both sides make them from the tensor's name and the element's index (see `values`). Names and shapes are those of
published files: transformers joins the experts of a mixture in memory, so a mixture is written to a folder and read from there. Tensors
that some layers lack, as where dense layers are among sparse ones, are listed layer by layer.

Scaling keeps every field and spelling that carries meaning, and makes sizes small (see `scaled`):

    heads           4 where every head has keys of its own, 6 where their number is no power of two; else the ratio of queries to
                    keys is kept with 2 key heads (1 or 3 where there are as many, 1 where more than 8 share them)
    head size       an eighth, even, 4 to 32; a multiple of 16 where a quarter of it is rotated
    score factors   as many times larger as heads are smaller
    cap of scores   an eighth, so that small scores reach it
    hidden          heads times head size, or the original's ratio to that
    feed-forward    the original's ratio to hidden
    layers          2, or 3 where windows or feed-forwards differ by layer
    vocabulary      64; token ids beyond it are taken modulo 64
    windows         16; where every nth layer has none, every third at most
    positions       32 where a scaled rotary embedding was first trained, so that 72 tokens go beyond them; the ratio to
                    max_position_embeddings is kept; 128 at most elsewhere
    LongRoPE lists  as many of their factors, evenly spread, as the smaller head has

and of mixtures of experts:

    experts         as they are up to 4; else 8 where their number is a power of two, 6 elsewhere
    of a token      as they are up to 3, 2 of 4, 3 of more
    their size      the original's ratio to hidden, but 8 at least; so is the size of an expert that all tokens share
    dense layers    at the same part of the depth where they are listed; one layer of three stays sparse
    swiglu_limit    a quarter, so that small activations reach it
    head size       16 at least where YaRN has `truncate`, so that a frequency lies on its ramp
"""

import argparse
import json
import os
import re
import sys
import tempfile

import continuations
import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS = 72
ROWS = (39, 71)
VOCAB = 64
ORIGINAL = 32
WINDOW = 16
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
CHOICES = ("num_experts_per_tok", "experts_per_token")
# The nearest that the last expert chosen and the first one left out may be, so that rounding never exchanges them.
MARGIN = 1e-4
# Names, training, sampling: nothing that changes a forward pass.
DROPPED = """_name_or_path transformers_version initializer_range init_std use_cache attention_dropout hidden_dropout dropout
activation_dropout layerdrop embd_pdrop resid_pdrop tokenizer_class temperature top_k top_p do_sample output_attentions
output_hidden_states output_scores return_dict return_dict_in_generate torchscript use_bfloat16 num_beams num_beam_groups
num_return_sequences no_repeat_ngram_size encoder_no_repeat_ngram_size repetition_penalty length_penalty diversity_penalty
early_stopping max_length min_length id2label label2id pruned_heads bad_words_ids task_specific_params prefix_allowed
context_window_size prefill_chunk_size sequence_parallel_enabled selective_checkpoint_enabled move_model_to_device _commit_hash
begin_suppress_tokens suppress_tokens decoder_start_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
forced_eos_token_id problem_type remove_invalid_values tf_legacy_loss typical_p chunk_size_feed_forward add_cross_attention
cross_attention_hidden_size is_decoder is_encoder_decoder tie_encoder_decoder model_max_length tokenizer_model_max_length
tokenizer_padding_side _attn_implementation_autoset _flash_attn_2_enabled _attn_implementation attn_implementation output_router_logits
router_aux_loss_coef transformers.js_config""".split()


# --- weights: the same numbers as in crates/engine/tests/configs ---


def values(name, count):
    """`count` numbers in [-1, 1): FNV-1a of the name plus the index, mixed by splitmix64; its upper 24 bits less 2^23, over 2^23."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.int64) - 2**23).astype(np.float32) / np.float32(2**23)


def center_and_spread(name, shape):
    """What a weight is around, and how far from it: by role, so that every part shows in the logits."""
    is_bias = name.endswith("bias")
    if name.endswith("e_score_correction_bias"):
        return 0.0, 0.3
    if name.endswith("sinks"):
        return 0.0, 1.5
    if "norm" in name or "ln_f" in name:
        center = 1.7 if "q_norm" in name or "k_norm" in name else 1.0
        return (0.0, 0.4) if is_bias else (center, 0.5)
    if is_bias:
        return 0.0, 0.7
    if "embed" in name or "lm_head" in name:
        return 0.0, 0.9
    if name.endswith((".gate.weight", ".router.weight")):
        return 0.0, 4.0 / np.sqrt(shape[1])
    return 0.0, 2.6 / np.sqrt(shape[1])  # also of experts in one tensor, [experts, in, out]


def weight(name, shape):
    center, spread = center_and_spread(name, shape)
    drawn = values(name, int(np.prod(shape))) * np.float32(spread)
    return torch.from_numpy((drawn + np.float32(center)).reshape(shape))


def fill(model):
    for name, parameter in model.named_parameters():  # tied tensors come once, as the embedding
        parameter.data.copy_(weight(name, tuple(parameter.shape)))
    return model


# --- sizes ---


def first(config, *names):
    return next(((name, config[name]) for name in names if config.get(name) is not None), (names[0], None))


def small_heads(heads, kv_heads):
    if heads % kv_heads or heads < 4:
        return heads, kv_heads
    if kv_heads == heads:
        return (4, 4) if heads & (heads - 1) == 0 else (6, 6)
    kv = 1 if heads > 8 * kv_heads else min(kv_heads, 2) if kv_heads != 3 else 3
    return kv * heads // kv_heads, kv


def small_experts(experts):
    return experts if experts <= 4 else 8 if experts & (experts - 1) == 0 else 6


def small_choice(choice):
    return choice if choice <= 3 else 2 if choice == 4 else 3


def num_experts(config):
    return first(config, *EXPERTS)[1] or 0


def scale_experts(config, ratio):
    """Numbers and sizes of experts; `ratio` is that of the small hidden size to the original's."""
    for names, small in ((EXPERTS, small_experts), (CHOICES, small_choice)):
        for name in names:
            if config.get(name):
                config[name] = small(config[name])
    for name in ("moe_intermediate_size", "shared_expert_intermediate_size"):
        if config.get(name):
            config[name] = max(8, 4 * round(ratio * config[name] / 4))
    if config.get("swiglu_limit"):
        config["swiglu_limit"] /= 4


def scale_sizes(config):
    heads_name, heads = first(config, "num_attention_heads", "n_head")
    hidden_name, hidden = first(config, "n_embed", "hidden_size")
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    small, small_kv = small_heads(heads, kv_heads)
    small_dim = min(max(2 * round(head_dim / 16), 4), 32)
    if config.get("rotary_pct", 1) < 1:
        small_dim = 16 * max(1, round(small_dim / 16))
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if rope.get("truncate") is not None:
        small_dim = max(small_dim, 16)
    small_hidden = small * small_dim
    if hidden != heads * head_dim:
        small_hidden = max(8, 4 * round(small_hidden * hidden / (heads * head_dim) / 4))
    for name in ("intermediate_size", "ffn_dim", "n_inner"):
        if config.get(name):
            config[name] = 4 * max(1, round(small_hidden * config[name] / hidden / 4))
    scale_experts(config, small_hidden / hidden)
    config[heads_name], config[hidden_name] = small, small_hidden
    if config.get("num_key_value_heads"):
        config["num_key_value_heads"] = small_kv
    if config.get("head_dim"):
        config["head_dim"] = small_dim
    if config.get("word_embed_proj_dim"):
        config["word_embed_proj_dim"] = 4 * round(config["word_embed_proj_dim"] * small_hidden / hidden / 4)
    if config.get("attention_multiplier"):
        config["attention_multiplier"] *= head_dim / small_dim
    if config.get("query_pre_attn_scalar"):
        config["query_pre_attn_scalar"] = round(config["query_pre_attn_scalar"] * small_dim / head_dim)
    if config.get("attn_logit_softcapping"):
        config["attn_logit_softcapping"] /= 8
    config["vocab_size"] = VOCAB
    return small_dim


def has_dense_layers(config):
    is_listed = config.get("mlp_only_layers") or config.get("first_k_dense_replace")
    return bool(num_experts(config) and (is_listed or config.get("decoder_sparse_step", 1) > 1))


def scale_dense_layers(config, small, layers):
    if config.get("mlp_only_layers"):
        config["mlp_only_layers"] = sorted({layer * small // layers for layer in config["mlp_only_layers"]})
    if config.get("decoder_sparse_step"):
        config["decoder_sparse_step"] = min(config["decoder_sparse_step"], 3)
    if config.get("first_k_dense_replace"):
        config["first_k_dense_replace"] = min(config["first_k_dense_replace"], small - 1)


def scale_layers(config):
    name, layers = first(config, "num_hidden_layers", "n_layer")
    differ = any(config.get(field) for field in ("use_sliding_window", "layer_types", "sliding_window_pattern"))
    differ = differ or config["model_type"] in ("gemma2", "gpt_oss") or has_dense_layers(config)
    config[name] = min(layers, 3 if differ else 2)
    scale_dense_layers(config, config[name], layers)
    if config.get("max_window_layers") is not None:
        config["max_window_layers"] = round(config["max_window_layers"] * config[name] / layers)
    if config.get("sliding_window_pattern"):
        config["sliding_window_pattern"] = min(config["sliding_window_pattern"], 3)
    if config.get("layer_types"):
        kinds = config["layer_types"]
        chosen = kinds[: config[name]]
        chosen[-1] = next((kind for kind in kinds if kind not in chosen), chosen[-1])
        config["layer_types"] = chosen
    if config.get("sliding_window"):
        config["sliding_window"] = WINDOW


def scale_positions(config, rotary_dim):
    name, positions = first(config, "max_position_embeddings", "seq_length", "max_sequence_length")
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    rope = next((value for value in rope.values() if isinstance(value, dict)), rope)
    kind = rope.get("rope_type", rope.get("type", "default"))
    original = first(rope, "original_max_position_embeddings")[1]
    original = config.get("original_max_position_embeddings", original)
    small = min(positions or 128, 128)
    if kind not in ("default", "mrope"):
        small = min(4096, max(1, round(ORIGINAL * positions / original))) if original else ORIGINAL
    if positions:
        config[name] = small
    for place in (config, rope):
        for name in ("original_max_position_embeddings", "initial_context_length"):
            if place.get(name):
                place[name] = ORIGINAL
    for name in ("short_factor", "long_factor"):
        if rope.get(name):
            step = len(rope[name]) / (rotary_dim // 2)
            rope[name] = [rope[name][int(step * i)] for i in range(rotary_dim // 2)]


def scale_tokens(config):
    small = lambda token: token % VOCAB if isinstance(token, int) and token >= VOCAB else token
    for name in [name for name in config if name.endswith("token_id")]:
        token = config[name]
        config[name] = [small(one) for one in token] if isinstance(token, list) else small(token)


def scaled(config):
    config = {name: value for name, value in config.items() if name not in DROPPED}
    head_dim = scale_sizes(config)
    scale_layers(config)
    scale_positions(config, int(head_dim * config.get("partial_rotary_factor", 1)))
    scale_tokens(config)
    return config


# --- logits ---


def write_config(config, folder):
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)


def load(config):
    with tempfile.TemporaryDirectory() as folder:
        write_config(config, folder)
        read = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return AutoModelForCausalLM.from_config(read, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False)


def load_from_file(config):
    """The model with its weights read from a file, and that file's shapes by name."""
    with tempfile.TemporaryDirectory() as folder:
        load(config).save_pretrained(folder)
        path = os.path.join(folder, "model.safetensors")
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        save_file({name: weight(name, shape) for name, shape in shapes.items()}, path, {"format": "pt"})
        write_config(config, folder)
        options = {"attn_implementation": "eager", "experts_implementation": "eager", "output_loading_info": True}
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, **options)
    assert not any(info.values()), info
    return model, shapes


def build(config):
    """The model with its weights, and their shapes by the names of a file."""
    if num_experts(config):
        model, shapes = load_from_file(config)
    else:
        model = fill(load(config))
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return model.eval(), shapes


def watch_routers(model):
    """Collects how far the last expert chosen is from the first one left out, and how many experts are chosen at all."""
    seen = []

    def watch(router, _, output):
        scores = output[0]
        if hasattr(router, "e_score_correction_bias"):
            scores = scores.sigmoid() + router.e_score_correction_bias
        ordered = scores.sort(dim=-1, descending=True).values
        margin = (ordered[:, router.top_k - 1] - ordered[:, router.top_k]).min().item()
        seen.append((margin, output[2].unique().numel()))

    for module in model.modules():
        if module.__class__.__name__.lower().endswith("topkrouter"):
            module.register_forward_hook(watch)
    return seen


def ids(name="ids", count=TOKENS):
    """The tokens of every row: their indices hashed as a tensor's would be."""
    return torch.from_numpy(((values(name, count) + 1) * (VOCAB / 2)).astype(np.int64))


def forward(config):
    model, shapes = build(config)
    routers = watch_routers(model)
    with torch.no_grad():
        logits = model(ids()[None], use_cache=False).logits[0]
    assert bool(routers) == bool(num_experts(config)), config["model_type"]
    if routers:
        margin, used = min(margin for margin, _ in routers), min(used for _, used in routers)
        print(f"  {len(routers)} routers, margin {margin:.0e}, {used} of {num_experts(config)} experts at least")
        assert margin > MARGIN, margin
    return shapes, logits


def listed(shapes, layers):
    """Shapes by name: experts as one, and layers as one where every layer has the tensor."""
    experts_as_one = {re.sub(r"\.experts\.\d+\.", ".experts.#.", name): list(shape) for name, shape in shapes.items()}
    tensors = {}
    for name, shape in experts_as_one.items():
        general = re.sub(r"\.\d+\.", ".*.", name, count=1)
        of_layers = [experts_as_one.get(general.replace("*", str(layer))) for layer in range(layers)]
        tensors[general if all(other == shape for other in of_layers) else name] = shape
    return tensors


def reference_config(row):
    """What transformers is given: `as` replaces fields that only an older version of it reads; null takes them away."""
    changed = {**row["config"], **row.get("as", {})}
    return {name: value for name, value in changed.items() if not (name in row.get("as", {}) and value is None)}


def add_greedy(row):
    config = reference_config(row)
    model, _ = build(config)
    prompt = lambda number: ids(f"prompt {number}", continuations.PROMPT).tolist()
    row.pop("apart", None)
    row.update(continuations.of(model, config, prompt, watch_routers(model), MARGIN))
    said = [f"{name}: prompt {row[name]['prompt']:3}, {len(set(row[name]['tokens'])):2} tokens" for name in ("greedy", "apart") if name in row]
    print(f"{row['name']:42} {'  '.join(said)}", flush=True)
    return row


def golden(row):
    config = reference_config(row)
    shapes, logits = forward(config)
    double = build(config)[0].double()
    with torch.no_grad():
        exact = double(ids()[None], use_cache=False).logits[0]
    span = (logits.max() - logits.min()).item()
    noise = (exact - logits).abs().max().item() / span
    row["tensors"] = listed(shapes, first(row["config"], "num_hidden_layers", "n_layer")[1])
    row["logits"] = [float(f"{value:.9g}") for row_idx in ROWS for value in logits[row_idx].tolist()]
    print(f"{row['name']:42} span {span:5.1f}  f64 {noise:.0e}  {logits.shape[1]} x {row['config'].get('hidden_size')}")
    assert torch.isfinite(logits).all() and span > 3 and noise < 5e-6, row["name"]
    return add_greedy(row)


# --- files ---


def path_of(out, config):
    family = (config.get("model_type") or "without_model_type").lower()
    return os.path.join(out, f"{family}.jsonl")


def read_rows(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file]


def write_rows(path, rows):
    with open(path, "w") as file:
        for row in rows:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")


def add(out, row):
    path = path_of(out, row["config"])
    rows = [other for other in read_rows(path) if other["name"] != row["name"]]
    write_rows(path, [*rows, row])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--add", nargs=3, metavar=("NAME", "SOURCE", "CONFIG"))
    parser.add_argument("--refuse", nargs="+", metavar="NAME SOURCE CONFIG WORD")
    parser.add_argument("--greedy", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if args.add or args.refuse:
        name, source, config, *words = args.add or args.refuse
        with open(config) as file:
            row = {"name": name, "source": source, "config": scaled(json.load(file))}
        return add(args.out, golden(row) if args.add else {**row, "refused": words})
    for file in sorted(name for name in os.listdir(args.out) if name.endswith(".jsonl")):
        path = os.path.join(args.out, file)
        renewed = add_greedy if args.greedy else golden
        is_done = lambda row: "refused" in row or (args.greedy and "greedy" in row)
        write_rows(path, [row if is_done(row) else renewed(row) for row in read_rows(path)])
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")


if __name__ == "__main__":
    sys.exit(main())
