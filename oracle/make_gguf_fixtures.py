#!/usr/bin/env python3
"""A tiny model in a GGUF file, with the floats that the package gguf reads from it and the logits of transformers for those.

    python make_gguf_fixtures.py OUT

    model.gguf          the architecture llama, a tensor of every small kind, frequencies of its own, a small tokenizer
    blocks.gguf         tensors of the kinds in blocks of 256, of random bytes
    expected.json       for each tensor, by its name in a folder, its shape, the FNV-1a hash of its floats and the first four of them
    golden.safetensors  ids I64 [T], logits F32 [T, vocab], greedy_prompt I64 [P], greedy I64 [G]

Needs gguf, numpy, torch, transformers and safetensors.
"""

import json
import os
import sys

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as Kind
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from make_foreign_fixtures import HEAD_DIM, HIDDEN, FFN, SHAPES, TOKENS, VOCAB, described_floats, rng

GREEDY_PROMPT, GREEDY_STEPS = 6, 8
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
KINDS = {"attn_q": Kind.Q8_0, "attn_k": Kind.Q4_0, "attn_v": Kind.Q4_1, "attn_output": Kind.Q5_0, "ffn_gate": Kind.Q5_1,
         "ffn_up": Kind.F16, "ffn_down": Kind.BF16, "output": Kind.Q8_0}
FACTORS = np.linspace(1, 4, HEAD_DIM // 2).astype(np.float32)


def in_pairs(rows):
    """Rows of heads whose pairs lie half a head apart, with each pair side by side."""
    heads = rows.reshape(-1, 2, HEAD_DIM // 2, *rows.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(rows.shape)


def halves(rows):
    heads = rows.reshape(-1, HEAD_DIM // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(rows.shape)


def model(out):
    writer = gguf.GGUFWriter(os.path.join(out, "model.gguf"), "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    letters = [chr(ord("a") + i) for i in range(26)] + list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123")
    tokens = ["<unk>", "<s>", "</s>", "\u2581", *letters, "\u2581a", "th", "the", "\u2581the"][:VOCAB]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_token_types([2, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0].content }}")
    expected = {}

    def put(name, folder, values, kind, permuted=False):
        values = in_pairs(values) if permuted else values
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
        floats = gguf.quants.dequantize(data, kind)
        expected[folder] = torch.from_numpy((halves(floats) if permuted else floats).astype(np.float32).copy())

    weights = lambda name, *shape: rng("gguf", name).normal(0, 0.3, shape).astype(np.float32)
    put("token_embd.weight", "model.embed_tokens.weight", weights("embedding", VOCAB, HIDDEN) * 3, Kind.F16)
    for name, (n, k) in SHAPES.items():
        short = "output" if name == "lm_head" else NAMES[name.split(".", 3)[-1]]
        file = "output.weight" if name == "lm_head" else f"blk.0.{short}.weight"
        put(file, name + ".weight", weights(name, n, k), KINDS[short], short in ("attn_q", "attn_k"))
    for file, folder in [("output_norm", "model.norm"), ("blk.0.attn_norm", "model.layers.0.input_layernorm"),
                         ("blk.0.ffn_norm", "model.layers.0.post_attention_layernorm")]:
        put(file + ".weight", folder + ".weight", 1 + weights(file, HIDDEN), Kind.F32)
    writer.add_tensor("rope_freqs.weight", FACTORS)
    finish(writer)
    return expected


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def blocks(out):
    """Codes are any bytes; scales in 16 bits must be numbers."""
    writer = gguf.GGUFWriter(os.path.join(out, "blocks.gguf"), "llama")
    expected = {}
    for kind, size, scales in [(Kind.Q4_K, 144, [0, 2]), (Kind.Q5_K, 176, [0, 2]), (Kind.Q6_K, 210, [208])]:
        data = rng("gguf", kind.name).integers(0, 256, (4, size), dtype=np.uint8)
        for place in scales:
            half = rng("gguf", kind.name, str(place)).normal(0, 0.1, 4).astype(np.float16)
            data[:, place:place + 2] = half.view(np.uint8).reshape(4, 2)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        expected[kind.name] = torch.from_numpy(gguf.quants.dequantize(data, kind))
    finish(writer)
    return expected


def golden(expected):
    factors = FACTORS.tolist()
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=HEAD_DIM, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": factors, "long_factor": factors,
                         "attention_factor": 1.0, "original_max_position_embeddings": 256, "factor": 1.0},
    )
    config._attn_implementation = "eager"
    llama = LlamaForCausalLM(config).float().eval()
    llama.load_state_dict(expected)
    ids = torch.from_numpy(rng("gguf", "ids").integers(3, VOCAB, TOKENS))
    with torch.no_grad():
        logits = llama(ids[None]).logits[0]
        tokens = ids[:GREEDY_PROMPT].tolist()
        for _ in range(GREEDY_STEPS):
            tokens.append(int(llama(torch.tensor([tokens])).logits[0, -1].argmax()))
    return {"ids": ids, "logits": logits.contiguous(), "greedy_prompt": torch.tensor(tokens[:GREEDY_PROMPT]),
            "greedy": torch.tensor(tokens[GREEDY_PROMPT:])}


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    expected = model(out)
    save_file(golden(expected), os.path.join(out, "golden.safetensors"))
    described = {name: described_floats(values) for name, values in {**expected, **blocks(out)}.items()}
    with open(os.path.join(out, "expected.json"), "w") as file:
        json.dump(described, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
