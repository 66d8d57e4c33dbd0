#!/usr/bin/env python3
"""Tiny random models of every supported family, with the logits transformers computes for them.

    python make_family_fixtures.py OUT [CASE ...]

One folder per case under OUT:

    config.json         as transformers 5 saves it (rope_parameters, dtype)
    config_v4.json      the same model as transformers 4 and older checkpoints spell it
    model.safetensors   random weights (the sharded case has shards and an index)
    golden.safetensors  ids I64 [T], logits F32 [T, vocab], greedy_prompt I64 [P], greedy I64 [G]

The golden numbers come from loading the saved folder back in fp32 with eager attention, so the files alone define
them. `greedy` is the argmax continuation of `greedy_prompt`, end-of-text tokens ignored.

Every case is run again with one feature switched off or done wrong; OUT/README.md records by how much the logits
move, which shows what the case can detect. A run over all cases fails when a case lacks sensitivity. Weights depend only
on the case and tensor names; logits may differ in the last bits between torch builds.
"""

import argparse
import copy
import json
import math
import os
import shutil
import sys
import tempfile
import zlib

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.bloom import modeling_bloom

GREEDY_PROMPT = 20
GREEDY_STEPS = 24
MIN_GREEDY_GAP = 0.05  # between the best and the second logit: no rounding flips a greedy step
MIN_SENSITIVITY = 0.1
MAX_FOLDER_BYTES = 150_000
V4_VERSION = "4.40.0"
# BLOOM's biases and normed embeddings drown weights of the usual spread, and greedy then repeats one token.
LINEAR_SPREAD = {"bloom": 1.5}
QK_NORM_MEAN = 1.7  # with 1.0 Qwen3's attention is nearly flat

ROPE_PLAIN = {"rope_type": "default", "rope_theta": 10000.0}


def llama_like(**changes):
    base = dict(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=56,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
        rope_parameters=dict(ROPE_PLAIN),
    )
    base.update(changes)
    return base


def bloom_like(**changes):
    base = dict(
        vocab_size=112,
        hidden_size=32,
        n_layer=2,
        n_head=4,
        layer_norm_epsilon=1e-2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    base.update(changes)
    return base


# name: (model_type, configuration, sequence length, switches that must move the logits)
CASES = {
    # Multi-head attention, as many key/value heads as heads.
    "llama2": (
        "llama",
        llama_like(num_key_value_heads=4, rope_parameters=dict(ROPE_PLAIN)),
        64,
        ["rope off", "rope interleaved pairs", "causal mask off"],
    ),
    # theta and the original length put one frequency in the high band, two in the ramp and the rest in the low band.
    "llama3": (
        "llama",
        llama_like(
            vocab_size=112,
            head_dim=24,
            rms_norm_eps=1e-2,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 8000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
        80,
        ["rope scaling off", "rope scaling linear", "rope theta 10000", "kv heads swapped", "norm eps 1e-6"],
    ),
    "llama-bias": (
        "llama",
        llama_like(attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
        56,
        ["attention biases zero", "o_proj bias zero", "mlp biases zero", "kv heads swapped"],
    ),
    "llama-linear": (
        "llama",
        llama_like(
            num_key_value_heads=1,
            rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        ),
        72,
        ["rope scaling off"],
    ),
    "mistral": (
        "mistral",
        llama_like(head_dim=12, sliding_window=16, rope_parameters={"rope_type": "default", "rope_theta": 50000.0}),
        64,
        ["sliding window off", "sliding window 15", "sliding window 17", "rope theta 10000", "kv heads swapped"],
    ),
    "qwen2": (
        "qwen2",
        llama_like(
            tie_word_embeddings=True, rms_norm_eps=1e-6, rope_parameters={"rope_type": "default", "rope_theta": 1e6}
        ),
        64,
        ["attention biases zero", "rope theta 10000", "kv heads swapped", "sliding window 16 on"],
    ),
    "qwen2-window": (
        "qwen2",
        llama_like(
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=16,
            max_window_layers=2,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        64,
        [
            "sliding window off",
            "sliding window 15",
            "sliding window 17",
            "window on every layer",
            "window on the first layers",
            "attention biases zero",
        ],
    ),
    "qwen3": (
        "qwen3",
        llama_like(
            head_dim=16,
            rms_norm_eps=1e-2,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        64,
        ["q/k norm off", "q/k norm after rope", "norm eps 1e-6", "rope theta 10000", "kv heads swapped"],
    ),
    "opt": (
        "opt",
        dict(
            vocab_size=112,
            hidden_size=32,
            ffn_dim=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=96,
            pad_token_id=1,
            bos_token_id=2,
            eos_token_id=2,
        ),
        64,
        [
            "positions off",
            "position offset 0",
            "attention biases zero",
            "mlp biases zero",
            "norm biases zero",
            "final norm off",
            "gelu for relu",
        ],
    ),
    "bloom": (
        "bloom",
        bloom_like(),
        64,
        [
            "alibi off",
            "word_embeddings_layernorm off",
            "attention biases zero",
            "mlp biases zero",
            "norm biases zero",
            "norm eps 1e-6",
            "relu for gelu",
            "query_key_value split in thirds",
        ],
    ),
    # Six heads: four slopes by the rule for 4, two by the rule for 8. Tensor names as in the published BLOOM
    # checkpoints, which lack the "transformer." prefix.
    "bloom-6heads": (
        "bloom",
        bloom_like(hidden_size=36, n_head=6),
        64,
        ["alibi off", "alibi slopes 2^(-8(i+1)/heads)", "word_embeddings_layernorm off"],
    ),
}

# name: (case it repeats, what differs)
VARIANTS = {
    "llama3-sharded": ("llama3", "shards"),
    "llama2-f16": ("llama2", "float16"),
    "qwen3-f32": ("qwen3", "float32"),
}


# --- weights ---


def is_norm(name):
    return "norm" in name or name.split(".")[-2].startswith("ln_")


def random_tensor(case, name, shape, linear_std):
    """A seeded tensor whose spread depends on its role, never below 0.2 for weights and biases."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{case}/{name}".encode()))
    noise = torch.randn(shape, generator=generator)
    if is_norm(name):
        if name.endswith("bias"):
            return noise * 0.25
        mean = QK_NORM_MEAN if "q_norm" in name or "k_norm" in name else 1.0
        return mean + noise.clamp(-2.5, 2.5) * 0.3
    if name.endswith("bias"):
        return noise * 0.4
    if "embed" in name or "lm_head" in name:
        return noise * 0.5
    return noise * linear_std


def fill(model, case, dtype):
    spread = LINEAR_SPREAD.get(model.config.model_type, 1.0)
    for name, parameter in model.named_parameters():  # tied tensors come once, as the embedding
        wide = parameter.ndim == 2 and parameter.shape[1] > 1.5 * model.config.hidden_size
        values = random_tensor(case, name, parameter.shape, spread * (0.2 if wide else 0.28))
        parameter.data.copy_(values.to(dtype).float())
    return model.to(dtype)


# --- configurations as transformers 4 wrote them ---


def v4_config(case, v5):
    """Old spelling of a saved configuration, in the variants that real checkpoints show."""
    old = copy.deepcopy(v5)
    old["torch_dtype"] = old.pop("dtype")
    old["transformers_version"] = V4_VERSION
    old.pop("layer_types", None)
    rope = old.pop("rope_parameters", None)
    if rope is not None:
        old["rope_theta"] = rope["rope_theta"]
        kind = rope["rope_type"]
        scaling = {k: v for k, v in rope.items() if k not in ("rope_theta", "rope_type")}
        if kind == "default":
            old["rope_scaling"] = None
        elif kind == "linear":
            old["rope_scaling"] = {"type": "linear", **scaling}  # the spelling before 4.43
        else:
            old["rope_scaling"] = {"rope_type": kind, **scaling}
    if old["model_type"] in ("qwen2", "qwen3") and not old["use_sliding_window"]:
        # Published Qwen files keep a window here that use_sliding_window disables.
        old["sliding_window"] = 16
        old["max_window_layers"] = 0
    if case in ("llama2", "llama2-f16"):
        # As the first Llama checkpoints: everything at its default is missing.
        for key in ("head_dim", "num_key_value_heads", "attention_bias", "mlp_bias", "rope_theta", "rope_scaling"):
            old.pop(key)
    if old["model_type"] == "opt":
        old.pop("tie_word_embeddings", None)
        old["prefix"] = "</s>"
    if old["model_type"] == "bloom":
        old.pop("tie_word_embeddings", None)
        old.update(masked_softmax_fusion=True, bias_dropout_fusion=True, offset_alibi=100, seq_length=256)
    if case == "bloom":
        old["n_embed"] = old.pop("hidden_size")
        old["num_attention_heads"] = old.pop("n_head")
    return old


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.write("\n")


# --- forward passes ---


def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def forward(model, ids):
    with torch.no_grad():
        return model(ids[None], use_cache=False).logits[0]


def greedy(model, prompt, steps):
    """The argmax continuation and the smallest lead of a winner, without a cache."""
    ids, gap = prompt, math.inf
    for _ in range(steps):
        top = forward(model, ids)[-1].topk(2)
        gap = min(gap, (top.values[0] - top.values[1]).item())
        ids = torch.cat([ids, top.indices[:1]])
    return ids[len(prompt) :], gap


def greedy_cached(model, prompt, steps):
    cache, out, step_input = None, [], prompt
    with torch.no_grad():
        for _ in range(steps):
            result = model(step_input[None], past_key_values=cache, use_cache=True)
            cache, step_input = result.past_key_values, result.logits[0, -1].argmax()[None]
            out.append(step_input)
    return torch.cat(out)


def attention_entropy(model, ids):
    """Mean entropy of the attention rows in nats, and relative to a flat row over the keys that are not masked."""
    with torch.no_grad():
        attentions = model(ids[None], use_cache=False, output_attentions=True).attentions
    entropies, flats = [], []
    for weights in attentions:
        p = weights[0, :, 8:]
        h = -(p * p.clamp_min(1e-30).log()).sum(-1)
        entropies.append(h.mean().item())
        flats.append((p > 0).sum(-1).clamp_min(2).float().log().mean().item())
    return sum(entropies) / len(entropies), sum(entropies) / sum(flats)


# --- switches: each returns the logits with one feature off or wrong ---


def with_config(folder, ids, **changes):
    config = AutoConfig.from_pretrained(folder)
    for key, value in changes.items():
        setattr(config, key, value)
    model = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager"
    )
    return forward(model.eval(), ids)


def with_zeros(folder, ids, wanted):
    model = load(folder)
    touched = 0
    for name, parameter in model.named_parameters():
        if name.endswith(".bias") and wanted(name):
            parameter.data.zero_()
            touched += 1
    assert touched, "no such bias"
    return forward(model, ids)


def with_module(folder, ids, edit):
    model = load(folder)
    edit(model)
    return forward(model, ids)


def with_patch(folder, ids, module, name, replacement):
    original = getattr(module, name)
    setattr(module, name, replacement)
    try:
        return forward(load(folder), ids)
    finally:
        setattr(module, name, original)


def family_module(folder):
    kind = AutoConfig.from_pretrained(folder).model_type
    return sys.modules[f"transformers.models.{kind}.modeling_{kind}"]


def attention_bias_name(name):
    return ("attn" in name and "norm" not in name) or "self_attention." in name


def mlp_bias_name(name):
    return ".mlp." in name or ".fc1." in name or ".fc2." in name


def rope_parameters(folder, **changes):
    return {**AutoConfig.from_pretrained(folder).rope_parameters, **changes}


def interleaved(q, k, cos, sin, *_, **__):
    """Rotates neighbours (2i, 2i+1) where these families rotate (i, i + half)."""

    def turn(x):
        half = x.shape[-1] // 2
        c, s = cos[:, None, :, :half], sin[:, None, :, :half]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * c - odd * s, odd * c + even * s], -1).flatten(-2)

    return turn(q), turn(k)


def swap_kv_heads(model):
    config = model.config
    for layer in model.model.layers:
        for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
            for tensor in (projection.weight, projection.bias):
                if tensor is not None:
                    heads = tensor.data.view(config.num_key_value_heads, -1)
                    tensor.data.copy_(heads.flip(0).reshape(tensor.shape))


def drop_qk_norm(model):
    for layer in model.model.layers:
        layer.self_attn.q_norm = torch.nn.Identity()
        layer.self_attn.k_norm = torch.nn.Identity()


def norm_after_rope(folder, ids):
    """q/k norm applied to the rotated heads: wrong, since the norm's weight differs along the head."""
    module, model = family_module(folder), load(folder)
    rotate = module.apply_rotary_pos_emb
    norms = [(layer.self_attn.q_norm, layer.self_attn.k_norm) for layer in model.model.layers]
    drop_qk_norm(model)
    turn = iter(norms)

    def rotate_then_norm(q, k, *args, **kwargs):
        q, k = rotate(q, k, *args, **kwargs)
        q_norm, k_norm = next(turn)
        return q_norm(q), k_norm(k)

    module.apply_rotary_pos_emb = rotate_then_norm
    try:
        return forward(model, ids)
    finally:
        module.apply_rotary_pos_emb = rotate


def qkv_in_thirds(model):
    """Reads the fused rows as all queries, all keys, all values instead of q, k, v per head."""
    for block in model.transformer.h:
        attention = block.self_attention
        heads, size = attention.num_heads, attention.head_dim
        for tensor in (attention.query_key_value.weight, attention.query_key_value.bias):
            rest = tensor.shape[1:]
            thirds = tensor.data.view(3, heads, size, *rest)
            tensor.data.copy_(thirds.transpose(0, 1).reshape(tensor.shape))


def set_activation(function):
    def edit(model):
        if model.config.model_type == "opt":
            for layer in model.model.decoder.layers:
                layer.activation_fn = function
        else:
            for block in model.transformer.h:
                block.mlp.gelu_impl = function

    return edit


def shift_positions(model):
    table = model.model.decoder.embed_positions.weight.data
    table.copy_(table.roll(2, 0))  # position p then reads row p


def zero_positions(model):
    model.model.decoder.embed_positions.weight.data.zero_()


def final_norm_off(model):
    model.model.decoder.final_layer_norm = torch.nn.Identity()


def embedding_norm_off(model):
    model.transformer.word_embeddings_layernorm = torch.nn.Identity()


def simple_slopes(heads, device):
    return torch.tensor([2.0 ** (-8.0 * (i + 1) / heads) for i in range(heads)], device=device)


def set_norm_eps(value):
    def edit(model):
        for module in model.modules():
            for attribute in ("variance_epsilon", "eps"):
                if hasattr(module, attribute):
                    setattr(module, attribute, value)

    return edit


def window_layers(folder, ids, rule):
    config = AutoConfig.from_pretrained(folder)
    kinds = ["sliding_attention" if rule(i) else "full_attention" for i in range(config.num_hidden_layers)]
    return with_config(folder, ids, layer_types=kinds, use_sliding_window=True, sliding_window=16)


def window_off(folder, ids):
    config = AutoConfig.from_pretrained(folder)
    if config.model_type == "mistral":
        return with_config(folder, ids, sliding_window=None)
    return with_config(folder, ids, layer_types=["full_attention"] * config.num_hidden_layers, sliding_window=None)


def position_blind(model):
    model.model.rotary_emb.inv_freq.zero_()


def causal_off(folder, ids):
    with torch.no_grad():
        n = len(ids)
        return load(folder)(ids[None], attention_mask=torch.zeros(1, 1, n, n), use_cache=False).logits[0]


SWITCHES = {
    "causal mask off": causal_off,
    "rope off": lambda f, i: with_module(f, i, position_blind),
    "rope interleaved pairs": lambda f, i: with_patch(f, i, family_module(f), "apply_rotary_pos_emb", interleaved),
    "rope scaling off": lambda f, i: with_config(
        f, i, rope_parameters={"rope_type": "default", "rope_theta": rope_parameters(f)["rope_theta"]}
    ),
    "rope scaling linear": lambda f, i: with_config(
        f,
        i,
        rope_parameters={k: rope_parameters(f, rope_type="linear")[k] for k in ("rope_type", "rope_theta", "factor")},
    ),
    "rope theta 10000": lambda f, i: with_config(f, i, rope_parameters=rope_parameters(f, rope_theta=10000.0)),
    "norm eps 1e-6": lambda f, i: with_module(f, i, set_norm_eps(1e-6)),
    "kv heads swapped": lambda f, i: with_module(f, i, swap_kv_heads),
    "attention biases zero": lambda f, i: with_zeros(f, i, attention_bias_name),
    "o_proj bias zero": lambda f, i: with_zeros(f, i, lambda name: "o_proj" in name),
    "mlp biases zero": lambda f, i: with_zeros(f, i, mlp_bias_name),
    "norm biases zero": lambda f, i: with_zeros(f, i, is_norm),
    "sliding window off": window_off,
    "sliding window 15": lambda f, i: with_config(f, i, sliding_window=15),
    "sliding window 17": lambda f, i: with_config(f, i, sliding_window=17),
    "sliding window 16 on": lambda f, i: window_layers(f, i, lambda layer: True),
    "window on every layer": lambda f, i: window_layers(f, i, lambda layer: True),
    "window on the first layers": lambda f, i: window_layers(f, i, lambda layer: layer < 2),
    "q/k norm off": lambda f, i: with_module(f, i, drop_qk_norm),
    "q/k norm after rope": norm_after_rope,
    "positions off": lambda f, i: with_module(f, i, zero_positions),
    "position offset 0": lambda f, i: with_module(f, i, shift_positions),
    "final norm off": lambda f, i: with_module(f, i, final_norm_off),
    "gelu for relu": lambda f, i: with_module(f, i, set_activation(torch.nn.GELU())),
    "relu for gelu": lambda f, i: with_module(f, i, set_activation(torch.nn.ReLU())),
    "alibi off": lambda f, i: with_patch(
        f, i, modeling_bloom, "_get_alibi_slopes", lambda heads, device: torch.zeros(heads, device=device)
    ),
    "alibi slopes 2^(-8(i+1)/heads)": lambda f, i: with_patch(f, i, modeling_bloom, "_get_alibi_slopes", simple_slopes),
    "word_embeddings_layernorm off": lambda f, i: with_module(f, i, embedding_norm_off),
    "query_key_value split in thirds": lambda f, i: with_module(f, i, qkv_in_thirds),
}


# --- one case ---


def save_model(model, folder, parts=1):
    """Saves as transformers does, in exactly `parts` shards."""
    if parts == 1:
        model.save_pretrained(folder)
    else:
        total = sum(p.numel() * p.element_size() for p in model.parameters())
        for share in range(100, 30, -1):
            shutil.rmtree(folder, ignore_errors=True)
            model.save_pretrained(folder, max_shard_size=int(total * share / 100))
            if len([n for n in os.listdir(folder) if n.endswith(".safetensors")]) == parts:
                break
        else:
            raise RuntimeError(f"no shard size gives {parts} shards")
    os.remove(os.path.join(folder, "generation_config.json"))


def drop_prefix(folder, prefix):
    path = os.path.join(folder, "model.safetensors")
    tensors = {name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def choose_greedy(model, vocab, case):
    """The first seeded prompt whose continuation is decided by a clear margin and not one repeated token."""
    for attempt in range(500):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{case}/greedy{attempt}".encode()))
        prompt = torch.randint(4, vocab, (GREEDY_PROMPT,), generator=generator)
        tokens, gap = greedy(model, prompt, GREEDY_STEPS)
        if gap >= MIN_GREEDY_GAP and len(set(tokens.tolist())) >= GREEDY_STEPS // 4:
            assert torch.equal(tokens, greedy_cached(model, prompt, GREEDY_STEPS)), f"{case}: cache changes greedy"
            return prompt, tokens, gap
    raise RuntimeError(f"{case}: no prompt with a clear greedy continuation")


def check_v4(folder, ids, logits):
    """config_v4.json must describe the same model."""
    with tempfile.TemporaryDirectory() as copy_at:
        for name in os.listdir(folder):
            if name.startswith("model"):
                shutil.copy(os.path.join(folder, name), copy_at)
        shutil.copy(os.path.join(folder, "config_v4.json"), os.path.join(copy_at, "config.json"))
        assert torch.equal(forward(load(copy_at), ids), logits), f"{folder}: config_v4.json differs"


def make_case(out, case):
    source, change = VARIANTS.get(case, (case, None))
    kind, settings, length, switches = CASES[source]
    dtype = getattr(torch, change) if change in ("float16", "float32") else torch.bfloat16
    folder = os.path.join(out, case)
    shutil.rmtree(folder, ignore_errors=True)

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **copy.deepcopy(settings)), dtype=torch.float32)
    save_model(fill(model, source, dtype), folder, parts=3 if change == "shards" else 1)
    if case == "bloom-6heads":
        drop_prefix(folder, "transformer.")
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    write_json(os.path.join(folder, "config_v4.json"), v4_config(case, config))

    vocab = settings["vocab_size"]
    generator = torch.Generator().manual_seed(zlib.crc32(f"{source}/ids".encode()))
    ids = torch.randint(0, vocab, (length,), generator=generator)
    model = load(folder)
    logits = forward(model, ids)
    assert torch.isfinite(logits).all() and (logits.max() - logits.min()) > 5
    prompt, tokens, gap = choose_greedy(model, vocab, source)
    golden = {"ids": ids, "logits": logits.contiguous(), "greedy_prompt": prompt, "greedy": tokens}
    save_file(golden, os.path.join(folder, "golden.safetensors"))
    check_v4(folder, ids, logits)

    entropy, relative = attention_entropy(model, ids)
    exact = forward(copy.deepcopy(model).double(), ids)
    moved = {name: (SWITCHES[name](folder, ids) - logits).abs().max().item() for name in switches}
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o644)
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    assert size < MAX_FOLDER_BYTES, f"{case}: {size} bytes"
    weak = [name for name, value in moved.items() if not value > MIN_SENSITIVITY]
    print(
        f"{case:15} {size:7} B  T {length}  logits {logits.min():.1f}..{logits.max():.1f} std {logits.std():.2f}"
        f"  entropy {entropy:.2f} ({relative:.0%} of flat)  f64 {(exact - logits).abs().max():.1e}  gap {gap:.2f}"
        f"  greedy {tokens.tolist()}"
    )
    for name, value in moved.items():
        print(f"    {name:34} {value:8.3f}{'   WEAK' if name in weak else ''}")
    return {
        "case": case, "size": size, "length": length, "low": logits.min().item(), "high": logits.max().item(),
        "entropy": entropy, "relative": relative, "noise": (exact - logits).abs().max().item(), "gap": gap,
        "moved": moved, "weak": weak,
    }  # fmt: skip


def write_readme(out, rows):
    lines = [
        "# Tiny models of every family, with transformers' logits",
        "",
        f"Written by `make_family_fixtures.py` with torch {torch.__version__}, transformers {transformers.__version__}.",
        "Weights are random and mean nothing. Golden logits: fp32 arithmetic, eager attention, from the saved weights.",
        "",
        "- flat: attention entropy relative to uniform attention over the visible keys, 100 % would be flat.",
        "- f64: largest difference between the golden logits and the same forward in double precision.",
        "- gap: smallest lead of the chosen token over the runner-up in the greedy continuation.",
        "",
        "| case | bytes | T | logits | entropy (nats) | flat | f64 | gap |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['case']} | {r['size']} | {r['length']} | {r['low']:.1f} .. {r['high']:.1f} | {r['entropy']:.2f} "
            f"| {r['relative']:.0%} | {r['noise']:.0e} | {r['gap']:.2f} |"
        )
    lines += [
        "",
        "Largest change of a logit when one feature is off or wrong:",
        "",
        "| case | switch | max change |",
        "|---|---|---|",
    ]
    lines += [f"| {r['case']} | {name} | {value:.2f} |" for r in rows for name, value in r["moved"].items()]
    lines += [
        "",
        "Traps on purpose: `llama2/config_v4.json` leaves out everything at its default; `qwen2` and `qwen3` in v4",
        "spelling carry a `sliding_window` that `use_sliding_window: false` disables; `bloom/config_v4.json` says",
        "`n_embed` and `num_attention_heads`; `bloom-6heads` stores tensors without the `transformer.` prefix;",
        "`llama-linear/config_v4.json` says `type`, not `rope_type`; norm epsilons are large where they are configurable.",
        "",
    ]
    with open(os.path.join(out, "README.md"), "w") as file:
        file.write("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("cases", nargs="*", help="default: all, and the README")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows = [make_case(args.out, case) for case in args.cases or [*CASES, *VARIANTS]]
    if not args.cases:
        write_readme(args.out, rows)
    weak = [(row["case"], name) for row in rows for name in row["weak"]]
    if weak:
        sys.exit(f"not sensitive enough: {weak}")


if __name__ == "__main__":
    main()
