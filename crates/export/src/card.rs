//! README.md of an exported folder: what it is, and what a reader must know before running it.

use std::path::Path;

use dualgrain_format::ActivationScheme;

use crate::formats::ExportFormat;
use crate::source::Source;

/// The card of a folder that was exported from `dir`.
pub fn text(source: &Source, dir: &Path, format: ExportFormat) -> String {
    let name = model_name(dir);
    let family = source.config.family.class_prefix();
    let body = match format {
        ExportFormat::Hf => HF.to_owned(),
        ExportFormat::CompressedTensors => {
            format!("{}{}{COMPRESSED_W4A8}", compressed(source), static_scales(source))
        }
        ExportFormat::CompressedTensorsW4a16 => format!("{}{COMPRESSED_W4A16}", compressed(source)),
        ExportFormat::Gguf => GGUF.to_owned(),
    };
    let made = match source.is_quantized() {
        true => " that dualgrain quantized",
        false => "",
    };
    format!(
        "# {name}, {format}\n\nA {family} model{made}, written with dualgrain {} by `dualgrain export --format {format}`.\n\n{body}",
        env!("CARGO_PKG_VERSION")
    )
}

/// What a folder's model is called: the name on the hub, where the folder is in its cache.
pub fn model_name(dir: &Path) -> String {
    let own = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let snapshots = dir.parent().filter(|parent| own(parent) == "snapshots");
    let of_hub = snapshots.and_then(Path::parent).map(own);
    match of_hub.as_deref().and_then(|name| name.strip_prefix("models--")) {
        Some(name) => name.replace("--", "/"),
        None => own(dir),
    }
}

const HF: &str = "Every quantized weight is here as the bfloat16 nearest to the number that its integers stand for. So this folder computes \
with 16-bit activations what the quantized one computes with 8-bit ones, takes 16 bits a weight, and runs wherever the original does.\n";

fn compressed(source: &Source) -> String {
    let head = match source.has_own_head() {
        true => " The output layer is stored in 16-bit floats.",
        false => "",
    };
    format!(
        "Weights are 4-bit integers with zero points, in the layout `pack-quantized` of compressed-tensors. Both scales of dualgrain are one \
         16-bit float scale for each group here.{head}\n\n\
         A program that runs the model in bfloat16 rounds the scales once more, by up to 0.4 %. `--dtype float16` (vLLM) or \
         `dtype=\"float16\"` (transformers) keeps them, where the model's activations stay below 65,504.\n\n\
         transformers 5.24 with compressed-tensors 0.20 reads packed zero points only with \
         `quantization_config=CompressedTensorsConfig(dequantize=True)`, in folders whose linears have one scheme.\n\n"
    )
}

fn static_scales(source: &Source) -> &'static str {
    let quantization = source.config.quantization.as_ref();
    match quantization.map(|quantization| quantization.activations) {
        Some(ActivationScheme::Static) => {
            "The calibrated activation scales of the quantized folder are left out: this one finds a scale for every token.\n\n"
        }
        _ => "",
    }
}

const COMPRESSED_W4A8: &str = "Inputs of linears become 8-bit integers while the model runs, with a scale for each token.\n\n\
**On Hopper cards vLLM takes a kernel with 16-bit activations for this folder, without a word.** It computes with integers there only \
when told:\n\n```console\n$ vllm serve FOLDER --linear-backend humming\n```\n";

const COMPRESSED_W4A16: &str = "Activations stay 16-bit floats.\n\n```console\n$ vllm serve FOLDER\n```\n";

const GGUF: &str = "`model.gguf` is for llama.cpp and programs built on it. 4-bit linears are Q4_1: each group of weights lies in blocks of 32 that \
repeat its scale and zero point. 8-bit ones are Q8_0. Everything else is as in the quantized folder.\n\n\
```console\n$ llama-cli -m model.gguf\n```\n";
