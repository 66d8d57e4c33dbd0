//! Where a quantized model's divergence from its original comes from: each part computed in integers alone, everything else in floats.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dualgrain::engine::evaluate::{Windows, divergence};
use dualgrain::engine::{InFloats, Model, ModelConfig};
use dualgrain::{AnyDevice, CacheFormat, model_in_floats};
use serde::Serialize;

use crate::cli::arguments::{Eval, EvalKv};
use crate::cli::interruption::was_interrupted;
use crate::cli::table::table;
use crate::cli::terminal::Terminal;
use crate::run::model_folder::Opened;

/// Windows that causes are measured on at most: shares of the divergence need fewer than the divergence itself.
pub const MOST_WINDOWS: usize = 8;

/// What a part adds to the divergence.
#[derive(Debug, Clone, Serialize)]
pub struct Cause {
    /// The part that is computed as the folder says.
    part: &'static str,
    /// KL(original || model) with that part alone in integers, nats; weights are rounded in every row.
    kl_divergence: f64,
    /// What the part adds to the rounded weights alone; for the weights, all of it.
    added: f64,
}

/// Everything in floats: the weights as they are stored, in f32, and the cache in f32.
const FLOATS: InFloats = InFloats {
    blocks: true,
    head: true,
};

/// Parts and how a model is loaded to have that part alone in integers; whether it keeps the cache that its folder names.
const PARTS: [(&str, InFloats, bool); 4] = [
    ("rounded weights", FLOATS, false),
    (
        "INT8 inputs of the blocks' linears",
        InFloats {
            blocks: false,
            ..FLOATS
        },
        false,
    ),
    (
        "INT8 input of the output layer",
        InFloats {
            head: false,
            ..FLOATS
        },
        false,
    ),
    ("KV cache", FLOATS, true),
];
/// The model as it runs.
const WHOLE: &str = "all of them, as the model runs";

/// Measures the folder that `options` name on `windows`, part by part and then whole, as `opened` has it, against `original`.
pub fn causes(
    options: &Eval,
    device: &Arc<AnyDevice>,
    (opened, original): (&Opened, &Opened),
    windows: &Windows,
    terminal: &Terminal,
) -> Result<Vec<Cause>> {
    let dir = options.model.as_path();
    let measured = |part: &'static str, model: &Arc<Model<AnyDevice>>| {
        let mut show = |done: usize, total: usize| {
            terminal.progress("where it comes from", part, done as u64, total as u64);
        };
        divergence(&original.model, model, windows, device.pool(), &mut show)
    };
    let mut divergences = Vec::new();
    for (part, floats, own_cache) in PARTS {
        ensure!(!was_interrupted(), "interrupted");
        let cache = match own_cache {
            true => options.kv.map(EvalKv::format),
            false => Some(CacheFormat::F32),
        };
        let model = model_in_floats(dir, device, cache, floats).with_context(|| {
            format!(
                "loading {} with its linears in floats, for --causes",
                dir.display()
            )
        })?;
        divergences.push((part, measured(part, &Arc::new(model))?.kl_divergence));
    }
    divergences.push((WHOLE, measured(WHOLE, &opened.model)?.kl_divergence));
    let weights = divergences.first().map_or(0.0, |&(_, divergence)| divergence);
    let cause = |(idx, (part, kl_divergence)): (usize, (&'static str, f64))| Cause {
        part,
        kl_divergence,
        added: if idx == 0 {
            kl_divergence
        } else {
            kl_divergence - weights
        },
    };
    Ok(divergences.into_iter().enumerate().map(cause).collect())
}

/// Refuses `--causes` where there is nothing to tell: a model in floats, or no text.
pub fn check_causes(options: &Eval) -> Result<()> {
    if !options.causes {
        return Ok(());
    }
    ensure!(
        options.tasks.is_empty() || options.text.is_some(),
        "--causes belongs to a text: give one with --text, or leave --tasks out"
    );
    ensure!(
        ModelConfig::load(&options.model)?.quantization.is_some(),
        "--causes: {} has nothing in integers: give a quantized folder",
        options.model.display()
    );
    Ok(())
}

/// The table of a terminal.
pub fn causes_text(causes: &[Cause]) -> String {
    let cells = |cause: &Cause| {
        vec![
            cause.part.to_owned(),
            format!("{:.5}", cause.kl_divergence),
            format!("{:+.5}", cause.added),
        ]
    };
    let rows: Vec<_> = causes.iter().map(cells).collect();
    let header = ["in integers, the rest in floats", "KL", "added"];
    format!("\nwhere the divergence comes from:\n{}", table(&header, &rows))
}

/// A section of a report page: a bar for every part.
pub fn causes_section(causes: &[Cause]) -> String {
    let largest = causes.iter().map(|cause| cause.added.abs()).fold(1e-12, f64::max);
    let row = |cause: &Cause| {
        format!(
            "<tr><td style=\"text-align:left\">{}</td><td>{:.5}</td><td style=\"width:45%\"><div style=\"background:var(--qkv);height:.9rem;\
             width:{:.1}%\"></div></td></tr>",
            cause.part,
            cause.added,
            100.0 * cause.added.max(0.0) / largest,
        )
    };
    let rows: String = causes.iter().map(row).collect();
    format!(
        "<h2>Where the divergence comes from</h2><p class=\"note\">KL divergence from the original, in nats, that each part adds when it \
         alone is computed in integers and everything else in floats. Parts that are added up need not give the whole.</p>\
         <div class=\"scroll\"><table><thead><tr><th>part</th><th>adds</th><th></th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}
