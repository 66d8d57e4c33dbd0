#!/usr/bin/env python3
"""Compares exported folders with the quantized folder that they were made from, by other programs' packages.

    python check_export.py weights QUANTIZED EXPORTED
    python check_export.py logits EXPORTED DUMP [--dtype float32|float16|bfloat16]

`weights` reads the quantized folder as docs/formats.md describes it, and the exported one by the package of its format: compressed-tensors
decompresses, gguf dequantizes, safetensors reads bf16. Printed are, over all linears: how far a weight is off at most and in the root mean
square, in steps (s1 * s2, the distance between neighbouring codes), and the largest error relative to a weight.

`logits` runs the exported folder with transformers on the CPU over the tokens in DUMP (safetensors: ids I64 [T], logits F32 [T, vocab]) and
prints the mean and the largest KL divergence from the logits there.

Each prints one JSON object. Needs numpy and safetensors; torch, transformers and compressed-tensors, or gguf, for folders of theirs.
"""

import argparse
import json
import pathlib

import numpy as np
from safetensors import safe_open


def tensors(folder, wanted=lambda name: True, framework="np"):
    """Tensors of a folder by name."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(path, framework) as file:
            found.update({name: file.get_tensor(name) for name in file.keys() if wanted(name)})
    return found


def nibbles(packed, count):
    """The first `count` nibbles of every row, the low one of a byte first."""
    both = np.stack([packed & 15, packed >> 4], axis=-1)
    return both.reshape(packed.shape[0], -1)[:, :count].astype(np.int32)


def config(folder):
    return json.loads((pathlib.Path(folder) / "config.json").read_text())


def quantized_linears(folder):
    """Name -> (weights, steps) in float64 of every linear in integers."""
    described = config(folder)["quantization_config"]
    # Only numbers of linears: numpy has no bf16.
    stored = tensors(folder, lambda name: name.rpartition(".")[2] in ("q", "zero", "s1", "s2", "w8"))
    for name, scheme in described["tensors"].items():
        s1 = stored[f"{name}.s1"].astype(np.float64)[:, None] if scheme != "float" else None
        if scheme == "w8":
            yield name, s1 * stored[f"{name}.w8"], np.broadcast_to(s1, stored[f"{name}.w8"].shape)
        elif scheme.startswith("w4"):
            size = scheme.partition("/")[2] or described["group_size"]
            s2 = stored[f"{name}.s2"].astype(np.float64)
            k = 2 * stored[f"{name}.q"].shape[1]
            group = np.arange(k) // (k if size == "channel" else int(size))
            zero = nibbles(stored[f"{name}.zero"], s2.shape[1])
            steps = s1 * s2[:, group]
            yield name, steps * (nibbles(stored[f"{name}.q"], k) - zero[:, group]), steps


def compressed_linears(folder):
    """What compressed-tensors makes of a folder: name -> weights."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.utils.match import match_name

    described = QuantizationConfig.model_validate(config(folder)["quantization_config"])
    stored = tensors(folder, framework="pt")
    names = {name.rpartition(".")[0] for name in stored if name.endswith(".weight_scale")}
    for name in names:
        groups = described.config_groups.values()
        scheme = next(g for g in groups if g.targets == ["Linear"] or any(match_name(name, t) for t in g.targets))
        parts = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape")
        of_linear = {part: stored[f"{name}.{part}"] for part in parts if f"{name}.{part}" in stored}
        # In 32-bit floats, so that the package's own rounding does not hide what the format holds.
        of_linear["weight_scale"] = of_linear["weight_scale"].to(torch.float32)
        compressor = BaseCompressor.get_value_from_registry(scheme.format or described.format)
        yield name, compressor.decompress(of_linear, scheme)["weight"].double().numpy()
    for name, tensor in stored.items():
        if name.endswith(".weight") and tensor.is_floating_point() and name.rpartition(".")[0] not in names:
            yield name.rpartition(".")[0], tensor.double().numpy()


def float_linears(folder):
    for name, tensor in tensors(folder, framework="pt").items():
        if name.endswith(".weight"):
            yield name.rpartition(".")[0], tensor.double().numpy()


GGUF_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}

# Parts that a file stacks for all experts: by architecture, what a folder calls those of one expert.
EXPERTS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}
MIXTRAL_EXPERTS = {"ffn_gate_exps": "w1", "ffn_up_exps": "w3", "ffn_down_exps": "w2"}


def gguf_linears(folder):
    import gguf

    reader = gguf.GGUFReader(pathlib.Path(folder) / "model.gguf")
    architecture = reader.get_field("general.architecture").contents()
    heads = reader.get_field(f"{architecture}.attention.head_count").contents()
    kv_heads = reader.get_field(f"{architecture}.attention.head_count_kv").contents()
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
        if tensor.name == "output.weight":
            yield "lm_head", weights
        if not tensor.name.startswith("blk.") or weights.ndim < 2:
            continue
        _, layer, part, _ = tensor.name.split(".")
        if architecture == "llama" and part in ("attn_q", "attn_k"):
            of_heads = heads if part == "attn_q" else kv_heads
            pairs = weights.reshape(of_heads, weights.shape[0] // of_heads // 2, 2, -1)
            weights = pairs.swapaxes(1, 2).reshape(weights.shape)
        if part.startswith("ffn_gate_inp"):
            continue
        if part in EXPERTS:
            folder_part = f"block_sparse_moe.experts.%d.{MIXTRAL_EXPERTS[part]}" if architecture == "llama" else f"mlp.experts.%d.{EXPERTS[part]}"
            for expert, of_expert in enumerate(weights):
                yield f"model.layers.{layer}.{folder_part % expert}", of_expert
            continue
        name = next(name for name, short in GGUF_PARTS.items() if short == part)
        yield f"model.layers.{layer}.{name}", weights


def exported_linears(folder):
    if (pathlib.Path(folder) / "model.gguf").exists():
        return gguf_linears(folder)
    return compressed_linears(folder) if "quantization_config" in config(folder) else float_linears(folder)


def check_weights(quantized, exported):
    found = dict(exported_linears(exported))
    worst = squares = count = relative = 0.0
    linears = 0
    is_tied = config(quantized).get("tie_word_embeddings", False)
    for name, weights, steps in quantized_linears(quantized):
        if name == "lm_head" and name not in found and is_tied:
            continue
        error = np.abs(found[name] - weights)
        nonzero = steps > 0
        in_steps = error[nonzero] / steps[nonzero]
        worst = max(worst, float(in_steps.max()))
        squares += float(np.square(in_steps).sum())
        count += in_steps.size
        some = weights != 0
        relative = max(relative, float((error[some] / np.abs(weights[some])).max()))
        linears += 1
    return {
        "linears": linears,
        "max_error_steps": worst,
        "rms_error_steps": (squares / count) ** 0.5,
        "max_relative_error": relative,
    }


def load_by_transformers(exported, dtype):
    """Decompressed as it is loaded. transformers 5.24 with compressed-tensors 0.20 has no place for packed zero points otherwise."""
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    described = CompressedTensorsConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(exported, dtype=dtype, quantization_config=described)


def load_decompressed(exported, dtype):
    """A plain model with the weights that compressed-tensors makes: `dequantize` of transformers knows one group alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    described = AutoConfig.from_pretrained(exported)
    del described.quantization_config
    model = AutoModelForCausalLM.from_config(described).to(dtype)
    state = {name: tensor for name, tensor in tensors(exported, framework="pt").items() if tensor.is_floating_point()}
    state.update({f"{name}.weight": torch.from_numpy(weights) for name, weights in compressed_linears(exported)})
    if described.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    wanted = model.state_dict()
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted})
    return model.eval()


def load_gguf(exported, dtype):
    """transformers 5.24 does not read how wide experts are."""
    import gguf
    from transformers import AutoConfig, AutoModelForCausalLM

    described = AutoConfig.from_pretrained(exported, gguf_file="model.gguf")
    fields = gguf.GGUFReader(pathlib.Path(exported) / "model.gguf").fields
    widths = {"expert_feed_forward_length": "moe_intermediate_size", "expert_shared_feed_forward_length": "shared_expert_intermediate_size"}
    for field in fields.values():
        width = widths.get(field.name.rpartition(".")[2])
        if width:
            setattr(described, width, field.contents())
    return AutoModelForCausalLM.from_pretrained(exported, gguf_file="model.gguf", config=described, dtype=dtype)


def loader_of(exported):
    if (pathlib.Path(exported) / "model.gguf").exists():
        return load_gguf
    groups = config(exported).get("quantization_config", {}).get("config_groups", {})
    return load_by_transformers if len(groups) == 1 else load_decompressed


def check_logits(exported, dump, dtype):
    import torch

    with safe_open(dump, "pt") as file:
        ids, ours = file.get_tensor("ids"), file.get_tensor("logits").double()
    model = loader_of(exported)(exported, getattr(torch, dtype))
    with torch.no_grad():
        theirs = model(ids[None]).logits[0].double()
    ours, theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
    divergence = (ours.exp() * (ours - theirs)).sum(-1)
    agree = (ours.argmax(-1) == theirs.argmax(-1)).double()
    return {
        "tokens": len(ids),
        "dtype": dtype,
        "mean_kl": float(divergence.mean()),
        "max_kl": float(divergence.max()),
        "same_best": float(agree.mean()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    weights = actions.add_parser("weights")
    weights.add_argument("quantized")
    weights.add_argument("exported")
    logits = actions.add_parser("logits")
    logits.add_argument("exported")
    logits.add_argument("dump")
    logits.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    if options.action == "weights":
        print(json.dumps(check_weights(options.quantized, options.exported)))
    else:
        print(json.dumps(check_logits(options.exported, options.dump, options.dtype)))


if __name__ == "__main__":
    main()
