#!/usr/bin/env python3
"""Tiny models as other programs quantize them, with the floats that their codes mean and the logits of transformers for those.

    python make_foreign_fixtures.py OUT [--check]

One folder per case under OUT:

    config.json         with the quantization_config of the program (or quantize_config.json beside it)
    model.safetensors   random codes, scales and zero points, packed as the format is defined
    expected.json       for each linear its shape, the FNV-1a hash of its floats (f32, little-endian) and the first four of them
    golden.safetensors  ids I64 [T], logits F32 [T, vocab], greedy_prompt I64 [P], greedy I64 [G]

A float is (code - zero point) * scale in f32, which is exact for scales of 16 bits: the programs round the product to the type of
the scale, and that of transformers' own classes is not asked for here. `--check` compares the cases of compressed-tensors with the
package of that name, rounded as it rounds. Needs numpy, torch, transformers and safetensors.
"""

import argparse
import json
import os
import zlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

HIDDEN, FFN, HEAD_DIM, VOCAB, TOKENS = 32, 64, 16, 64, 24
GREEDY_PROMPT, GREEDY_STEPS = 6, 8
BLOCK = "model.layers.0."
SIZES = dict(
    vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=1, head_dim=HEAD_DIM, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1,
    eos_token_id=2, tie_word_embeddings=False,
)
EXPERTS, CHOSEN = 4, 2
SHAPES = {
    BLOCK + "self_attn.q_proj": (32, HIDDEN),
    BLOCK + "self_attn.k_proj": (16, HIDDEN),
    BLOCK + "self_attn.v_proj": (16, HIDDEN),
    BLOCK + "self_attn.o_proj": (HIDDEN, 32),
    BLOCK + "mlp.gate_proj": (FFN, HIDDEN),
    BLOCK + "mlp.up_proj": (FFN, HIDDEN),
    BLOCK + "mlp.down_proj": (HIDDEN, FFN),
    "lm_head": (VOCAB, HIDDEN),
}


def rng(*words):
    return np.random.default_rng(zlib.crc32(" ".join(words).encode()))


def as_i32(words):
    return torch.from_numpy(np.ascontiguousarray(words.astype(np.uint32)).view(np.int32).copy())


def stream(codes, bits):
    """Codes along the last axis as words of 32 bits, one behind the other from the lowest bit."""
    places = codes.shape[-1] * bits
    lines = codes.reshape(-1, codes.shape[-1]).astype(np.uint64)
    words = np.zeros((lines.shape[0], -(-places // 32)), np.uint64)
    for index in range(codes.shape[-1]):
        for bit in range(bits):
            place = index * bits + bit
            words[:, place // 32] |= ((lines[:, index] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(place % 32)
    return words.reshape(*codes.shape[:-1], -1).astype(np.uint32)


def grid(random, name, groups, bits, symmetric, dtype):
    """Codes [n, k], scales [n, groups] and zero points [n, groups] of a linear whose floats look like weights."""
    n, k = SHAPES[name]
    codes = np.clip(np.rint(random.normal(2 ** (bits - 1), 2**bits / 5, (n, k))), 0, 2**bits - 1).astype(np.int64)
    middle = 2 ** (bits - 1)
    scales = random.uniform(0.6, 1.6, (n, groups)) * 1.2 / 2**bits
    scales = torch.from_numpy(scales).to(dtype)
    low, high = max(0, middle - 3), min(2**bits, middle + 4)
    zeros = np.full((n, groups), middle) if symmetric else random.integers(low, high, (n, groups))
    return codes, scales, zeros


def floats(codes, scales, zeros, groups_of):
    """(code - zero) * scale, each operation in f32. `groups_of` [k] is the group of each input."""
    zero = torch.from_numpy(zeros.astype(np.float32))[:, groups_of]
    return (torch.from_numpy(codes.astype(np.float32)) - zero) * scales.float()[:, groups_of]


class Folder:
    """What a case is made of."""

    model = LlamaForCausalLM

    def __init__(self, name):
        self.name, self.tensors, self.expected, self.files = name, {}, {}, {}
        random = rng(name, "rest")
        weights = lambda *shape: torch.from_numpy(random.normal(0, 0.9, shape).astype(np.float32)).half()
        self.tensors["model.embed_tokens.weight"] = weights(VOCAB, HIDDEN)
        for norm in ["model.norm", BLOCK + "input_layernorm", BLOCK + "post_attention_layernorm"]:
            self.tensors[norm + ".weight"] = weights(HIDDEN) * 0.2 + 1

    def plain(self, name):
        """A linear that stays in floats."""
        values = rng(self.name, name).normal(0, 0.3, SHAPES[name]).astype(np.float32)
        self.tensors[name + ".weight"] = torch.from_numpy(values).half()
        self.expected[name] = self.tensors[name + ".weight"].float()

    def put(self, name, expected, **parts):
        self.expected[name] = expected
        for part, tensor in parts.items():
            self.tensors[f"{name}.{part}"] = tensor.contiguous()

    def write(self, out, quantization=None):
        folder = os.path.join(out, self.name)
        os.makedirs(folder, exist_ok=True)
        config = self.config()
        described = config.to_dict()
        described.update(architectures=[self.model.__name__], dtype="float16")
        if quantization:
            described["quantization_config"] = quantization
        files = {"config.json": described, "expected.json": {n: described_floats(e) for n, e in self.expected.items()}}
        for file, value in {**files, **self.files}.items():
            with open(os.path.join(folder, file), "w") as opened:
                json.dump(value, opened, indent=1)
                opened.write("\n")
        save_file(self.tensors, os.path.join(folder, "model.safetensors"))
        save_file(self.golden(config), os.path.join(folder, "golden.safetensors"))
        size = sum(os.path.getsize(os.path.join(folder, file)) for file in os.listdir(folder))
        print(f"{self.name}: {size} bytes")

    def config(self):
        return LlamaConfig(**SIZES)

    def state(self, wanted):
        state = {name: tensor.float() for name, tensor in self.tensors.items() if name in wanted}
        state.update({name + ".weight": values for name, values in self.expected.items()})
        return state

    def golden(self, config):
        config._attn_implementation = "eager"
        model = self.model(config).float().eval()
        model.load_state_dict(self.state(model.state_dict().keys()))
        ids = torch.from_numpy(rng(self.name, "ids").integers(3, VOCAB, TOKENS))
        with torch.no_grad():
            logits = model(ids[None]).logits[0]
            tokens = ids[:GREEDY_PROMPT].tolist()
            for _ in range(GREEDY_STEPS):
                last = model(torch.tensor([tokens])).logits[0, -1]
                best = last.topk(2).values
                assert best[0] - best[1] > 0.01, f"{self.name}: two likeliest tokens are too near each other"
                tokens.append(int(last.argmax()))
        return {
            "ids": ids,
            "logits": logits.contiguous(),
            "greedy_prompt": torch.tensor(tokens[:GREEDY_PROMPT]),
            "greedy": torch.tensor(tokens[GREEDY_PROMPT:]),
        }


def described_floats(values):
    fnv = 0xCBF29CE484222325
    for byte in values.float().contiguous().numpy().tobytes():
        fnv = (fnv ^ byte) * 0x100000001B3 % 2**64
    return {"shape": list(values.shape), "fnv1a": f"{fnv:016x}", "first": values.flatten()[:4].tolist()}


def gptq_linear(folder, name, bits, group_size, desc_act, symmetric, less_one, with_g_idx=True):
    """qweight: codes along the inputs, a column an output. qzeros: codes along the outputs."""
    n, k = SHAPES[name]
    random = rng(folder.name, name)
    groups = -(-k // group_size)
    codes, scales, zeros = grid(random, name, groups, bits, symmetric, torch.float16)
    if not symmetric:
        zeros[: n // 2, 0] = 0  # borrowed from neighbours where it is stored less 1
    of = np.arange(k) // group_size
    if desc_act:
        of = of[random.permutation(k)]
    packed = stream(zeros.T, bits)
    if less_one and 32 % bits == 0:
        packed = packed - np.uint32(sum(1 << place for place in range(0, 32, bits)))
    elif less_one:
        packed = stream((zeros.T - 1) % 2**bits, bits)
    parts = {"qweight": as_i32(stream(codes, bits).T), "qzeros": as_i32(packed), "scales": scales.T}
    if with_g_idx:
        parts["g_idx"] = torch.from_numpy(of.astype(np.int32))
    folder.put(name, floats(codes, scales, zeros, of), **parts)


def gptq(out):
    """Everything at once: act order, zero points of their own stored less 1, other bits by `dynamic`, a linear in floats."""
    folder = Folder("gptq-act-order")
    bits = {"up_proj": 8, "gate_proj": 3, "down_proj": 2}
    for name in SHAPES:
        kind = name.rsplit(".")[-1]
        if kind == "o_proj":
            folder.plain(name)
        else:
            gptq_linear(folder, name, bits.get(kind, 4), 16, True, False, True)
    folder.write(out, {
        "quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True, "sym": False, "lm_head": True,
        "checkpoint_format": "gptq", "pack_dtype": "int32", "meta": {"quantizer": ["gptqmodel:7.7.0"]},
        "dynamic": {"-:.*o_proj.*": {}, "+:.*\\.up_proj": {"bits": 8}, ".*gate.*": {"bits": 3}, "+:.*down": {"bits": 2}},
    })


def gptq_older(out):
    """A folder whose config.json says nothing: quantize_config.json does. No list of groups, and biases of zeros."""
    folder = Folder("gptq-older")
    for name in SHAPES:
        if name == "lm_head":
            folder.plain(name)
            continue
        gptq_linear(folder, name, 4, 32, False, True, True, with_g_idx=False)
        folder.tensors[name + ".bias"] = torch.zeros(SHAPES[name][0], dtype=torch.float16)
    folder.files["quantize_config.json"] = {
        "bits": 4, "group_size": 32, "damp_percent": 0.01, "desc_act": False, "sym": True, "true_sequential": True,
    }
    folder.write(out)


def gptq_v2(out):
    """Zero points as they are, one group a row."""
    folder = Folder("gptq-v2")
    for name in SHAPES:
        if name == "lm_head":
            folder.plain(name)
        else:
            gptq_linear(folder, name, 4, SHAPES[name][1], False, False, False)
    folder.write(out, {
        "quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": False, "sym": False,
        "checkpoint_format": "gptq_v2",
    })


def awq(out):
    """Eight outputs in a word, in the order 0, 2, 4, 6, 1, 3, 5, 7 from its lowest bits."""
    folder = Folder("awq")

    def interleaved(codes):
        eights = codes.reshape(codes.shape[0], -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
        return as_i32(stream(eights.reshape(codes.shape), 4))

    for name, (n, k) in SHAPES.items():
        if name == "lm_head":
            folder.plain(name)
            continue
        codes, scales, zeros = grid(rng(folder.name, name), name, k // 16, 4, False, torch.float16)
        folder.put(
            name, floats(codes, scales, zeros, np.arange(k) // 16),
            qweight=interleaved(codes.T), qzeros=interleaved(zeros.T), scales=scales.T,
        )
    folder.write(out, {
        "quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm", "zero_point": True,
        "modules_to_not_convert": ["lm_head"],
    })


def weights_of(**changes):
    base = dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=16, block_structure=None,
                dynamic=False, actorder=None, observer="minmax", observer_kwargs={})
    base.update(changes)
    return base


def compressed(out, check):
    """Every way of storing that is read, one group of linears each; scales in bfloat16."""
    folder = Folder("compressed-tensors")
    schemes = {
        "qk": (["re:.*[qk]_proj$"], "pack-quantized", weights_of()),
        "v": ([BLOCK + "self_attn.v_proj"], "pack-quantized", weights_of(symmetric=False)),
        "o": (["re:.*o_proj"], "pack-quantized", weights_of(symmetric=False, strategy="channel", group_size=None)),
        "gate": (["re:.*gate"], "pack-quantized", weights_of(symmetric=False, actorder="group")),
        "up": (["re:.*up_proj"], "int-quantized",
               weights_of(num_bits=8, symmetric=False, strategy="channel", group_size=None)),
        "others": (["Linear"], "float-quantized",
                   weights_of(num_bits=8, type="float", strategy="tensor", group_size=None)),
    }
    for name, (n, k) in SHAPES.items():
        if name == "lm_head":
            folder.plain(name)
            continue
        kind = name.rsplit(".")[-1][:-5]
        kind = {"q": "qk", "k": "qk", "down": "others"}.get(kind, kind)
        _, form, weights = schemes[kind]
        linear = compressed_linear(folder, name, form, weights)
        folder.put(name, linear.pop("expected"), **linear)
    folder.tensors[BLOCK + "mlp.down_proj.input_scale"] = torch.tensor([0.01])
    folder.tensors[BLOCK + "self_attn.k_scale"] = torch.tensor([0.01])
    activations = weights_of(num_bits=8, strategy="token", group_size=None, dynamic=True)
    groups = {
        f"group_{index}": {"targets": targets, "weights": weights, "format": form,
                           "input_activations": activations if index == 0 else None, "output_activations": None}
        for index, (targets, form, weights) in enumerate(schemes.values())
    }
    folder.write(out, {
        "quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": groups, "ignore": ["lm_head"],
        "kv_cache_scheme": weights_of(num_bits=8, type="float", strategy="tensor", group_size=None),
        "quantization_status": "compressed", "global_compression_ratio": None, "sparsity_config": {},
        "transform_config": {}, "version": "0.12.0",
    })
    if check:
        check_compressed(folder, schemes)


def compressed_linear(folder, name, form, weights):
    n, k = SHAPES[name]
    random = rng(folder.name, name)
    bits, symmetric = weights["num_bits"], weights["symmetric"]
    if weights["type"] == "float":
        scale = torch.tensor([0.004])
        codes = torch.from_numpy(random.normal(0, 70, (n, k)).astype(np.float32)).to(torch.float8_e4m3fn)
        return dict(expected=codes.float() * scale, weight=codes, weight_scale=scale)
    groups = k // weights["group_size"] if weights["strategy"] == "group" else 1
    codes, scales, zeros = grid(random, name, groups, bits, symmetric, torch.bfloat16)
    of = np.arange(k) * groups // k
    linear = dict(weight_scale=scales)
    if weights["actorder"]:
        of = of[random.permutation(k)]
        linear["weight_g_idx"] = torch.from_numpy(of.astype(np.int32))
    linear["expected"] = floats(codes, scales, zeros, of)
    middle = 2 ** (bits - 1)
    if form == "pack-quantized":
        linear["weight_packed"] = as_i32(stream(codes, bits))
        linear["weight_shape"] = torch.tensor([n, k])
        if not symmetric:
            linear["weight_zero_point"] = as_i32(stream(zeros.T, bits).T)
    else:
        linear["weight"] = torch.from_numpy((codes - middle).astype(np.int8))
        if not symmetric:
            linear["weight_zero_point"] = torch.from_numpy((zeros - middle).astype(np.int8))
    return linear


def check_compressed(folder, schemes):
    """The package's own decompression, which rounds to the type of the scale. The version of today has no lists of groups."""
    import compressed_tensors
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    for kind, (targets, form, weights) in schemes.items():
        if weights["actorder"]:
            continue
        scheme = QuantizationScheme(targets=targets, weights=weights)
        compressor = BaseCompressor.get_value_from_registry(form)
        for name in SHAPES:
            short = name.rsplit(".")[-1][:-5]
            if {"q": "qk", "k": "qk", "down": "others"}.get(short, short) != kind:
                continue
            start = name + "."
            parts = {key[len(start):]: value for key, value in folder.tensors.items() if key.startswith(start)}
            theirs = compressor.decompress(parts, scheme)["weight"]
            ours = folder.expected[name].to(theirs.dtype)
            assert torch.equal(theirs, ours), f"{name} ({form}): another value than compressed-tensors'"
            print(f"  {name}: as compressed-tensors {compressed_tensors.__version__}, {form}, {theirs.dtype}")


def fp8(out):
    """Blocks that the matrix's ends cut."""
    folder = Folder("fp8")
    rows, columns = 24, 20
    for name, (n, k) in SHAPES.items():
        if name == "lm_head":
            folder.plain(name)
            continue
        random = rng(folder.name, name)
        codes = torch.from_numpy(random.normal(0, 70, (n, k)).astype(np.float32)).to(torch.float8_e4m3fn)
        scales = torch.from_numpy(random.uniform(0.002, 0.006, (-(-n // rows), -(-k // columns))).astype(np.float32))
        wide = scales.repeat_interleave(rows, 0)[:n].repeat_interleave(columns, 1)[:, :k]
        folder.put(name, codes.float() * wide, weight=codes, weight_scale_inv=scales)
    folder.write(out, {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [rows, columns],
        "modules_to_not_convert": ["lm_head"],
    })


class GptOss(Folder):
    """Experts that are stacked, with all that is around them in floats."""

    model = GptOssForCausalLM

    def __init__(self, name):
        super().__init__(name)
        random = rng(name, "floats")
        for linear in ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]:
            self.plain(BLOCK + linear)
            outputs = SHAPES[BLOCK + linear][0]
            self.tensors[f"{BLOCK}{linear}.bias"] = torch.from_numpy(random.normal(0, 0.3, outputs)).half()
        self.plain("lm_head")
        for tensor, shape in {"self_attn.sinks": (2,), "mlp.router.weight": (EXPERTS, HIDDEN), "mlp.router.bias": (EXPERTS,)}.items():
            self.tensors[BLOCK + tensor] = torch.from_numpy(random.normal(0, 0.8, shape)).half()
        # What is no linear of the checkpoint.
        self.stacks = {}

    def config(self):
        rope = dict(
            rope_type="yarn", rope_theta=150000.0, factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
            original_max_position_embeddings=64,
        )
        return GptOssConfig(
            **SIZES, num_local_experts=EXPERTS, num_experts_per_tok=CHOSEN, sliding_window=8, swiglu_limit=1.5, rope_parameters=rope,
        )

    def experts(self, linear, n, k):
        random, stack = rng(self.name, linear), f"{BLOCK}mlp.experts.{linear}"
        codes = random.integers(0, 16, (EXPERTS, n, k)).astype(np.uint8)
        blocks = torch.from_numpy(codes[..., 0::2] | codes[..., 1::2] << 4).reshape(EXPERTS, n, k // 32, 16)
        scales = torch.from_numpy(random.integers(120, 126, (EXPERTS, n, k // 32)).astype(np.uint8))
        self.tensors[stack + "_blocks"], self.tensors[stack + "_scales"] = blocks, scales
        self.tensors[stack + "_bias"] = torch.from_numpy(random.normal(0, 0.4, (EXPERTS, n))).half()
        values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
        values = torch.from_numpy(np.concatenate([values, -values])[codes])
        wide = torch.exp2(scales.float() - 127).repeat_interleave(32, 2)
        self.stacks[stack] = (values * wide).transpose(1, 2).contiguous()
        theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        assert torch.equal(theirs, self.stacks[stack]), f"{linear}: other floats than transformers'"
        for expert in range(EXPERTS):
            self.expected[f"{BLOCK}mlp.experts.{expert}.{linear}"] = values[expert] * wide[expert]

    def state(self, wanted):
        return {**{name: values for name, values in super().state(wanted).items() if name in wanted}, **self.stacks}


def mxfp4(out):
    folder = GptOss("mxfp4")
    folder.experts("gate_up_proj", 2 * FFN, HIDDEN)
    folder.experts("down_proj", HIDDEN, FFN)
    folder.write(out, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"]})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for case in [gptq, gptq_older, gptq_v2, awq, fp8, mxfp4]:
        case(arguments.out)
    compressed(arguments.out, arguments.check)


if __name__ == "__main__":
    main()
