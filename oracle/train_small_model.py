#!/usr/bin/env python3
"""Trains a small model of any family that transformers has, to see what quantizing does to one with real weights.

    python train_small_model.py OUT TOKENS.npy --family gemma3_text [--steps 1500]

TOKENS.npy holds token ids (u16) of a text, cut by the tokenizer of models/llama-tiny; the last twentieth is held out. OUT gets config.json and
model.safetensors (bf16); copy tokenizer.json and tokenizer_config.json there. Sizes are those of models/llama-tiny: hidden 256, feed-forward 768, 6
layers, 4 heads, 2 key/value heads, contexts of 512. A model of the family `llama` is the one to compare with: the same text, the same number of steps.
"""

import argparse
import json
import math
import os
import time

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

CONTEXT = 512
BATCH = 32
HELD_OUT = 0.05
SIZES = dict(
    vocab_size=8192,
    hidden_size=256,
    intermediate_size=768,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
    bos_token_id=None,
    eos_token_id=0,
    pad_token_id=None,
    tie_word_embeddings=True,
)
# What a family needs beside sizes, small as they are.
SPECIAL = {
    "gemma2": dict(head_dim=64, query_pre_attn_scalar=64, sliding_window=128),
    "gemma3_text": dict(head_dim=64, query_pre_attn_scalar=64, sliding_window=128),
    "gpt_neox": dict(intermediate_size=1024, tie_word_embeddings=False),
    # A token goes through as many channels of feed-forwards as one of the llama does.
    "qwen3_moe": dict(head_dim=64, moe_intermediate_size=192, num_experts=12, num_experts_per_tok=4, norm_topk_prob=True),
    "mixtral": dict(intermediate_size=384, num_local_experts=8, num_experts_per_tok=2),
    "qwen2_moe": dict(
        moe_intermediate_size=128, num_experts=16, num_experts_per_tok=4, shared_expert_intermediate_size=256, norm_topk_prob=False
    ),
}


def batches(tokens, steps, seed):
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        starts = generator.integers(0, len(tokens) - CONTEXT - 1, BATCH)
        yield torch.from_numpy(np.stack([tokens[s : s + CONTEXT + 1] for s in starts]).astype(np.int64))


def loss_of(model, ids, balance=0.0):
    """Cross entropy, and `balance` times what the experts' loads differ by, where there are experts."""
    options = dict(output_router_logits=True) if balance and is_mixture(model.config) else {}
    out = model(ids[:, :-1], use_cache=False, **options)
    loss = torch.nn.functional.cross_entropy(out.logits.float().flatten(0, 1), ids[:, 1:].flatten())
    return loss + balance * out.aux_loss if options else loss


def is_mixture(config):
    return hasattr(config, "router_aux_loss_coef")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("tokens")
    parser.add_argument("--family", required=True)
    parser.add_argument("--steps", type=int, default=1500)
    args = parser.parse_args()
    torch.manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = np.load(args.tokens)
    split = int(len(tokens) * (1 - HELD_OUT))
    config = AutoConfig.for_model(args.family, **{**SIZES, **SPECIAL.get(args.family, {})})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    warm_up = min(100, args.steps // 10 + 1)
    rate = lambda step: min(1.0, (step + 1) / warm_up) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / args.steps)) / 2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    begun = time.time()
    for step, ids in enumerate(batches(tokens[:split], args.steps, 1)):
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = loss_of(model, ids.to(device), balance=0.01)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"{args.family} step {step} loss {loss.item():.3f} {time.time() - begun:.0f} s", flush=True)
    model = model.to(torch.bfloat16).eval()
    with torch.no_grad():
        held_out = [loss_of(model, ids.to(device)).item() for ids in batches(tokens[split:], 20, 2)]
    os.makedirs(args.out, exist_ok=True)
    model.save_pretrained(args.out)
    record = dict(family=args.family, steps=args.steps, held_out_loss=sum(held_out) / len(held_out))
    with open(os.path.join(args.out, "training.json"), "w") as file:
        json.dump(record, file)
    print(record, f"{time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
