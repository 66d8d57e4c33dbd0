//! Folders opened as commands open them, as far as they come without running a model.

use std::path::Path;

use dualgrain_cpu::CpuDevice;
use dualgrain_device::cases::Random;
use dualgrain_engine::chat::{ChatTemplate, Message};
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{ModelConfig, ModelFolder, SamplingDefaults};
use dualgrain_perf::{Dataset, Model, Objective, Product};
use dualgrain_quant::{QuantJob, plan};

/// What a folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model, original or quantized.
    Model,
    /// A measured set and a model fitted to one.
    Measurements,
}

/// Opens a folder as one of the commands that take its kind does.
///
/// # Errors
/// What the command would say.
pub fn open(kind: Kind, dir: &Path, random: &mut Random) -> Result<(), String> {
    match kind {
        Kind::Measurements => measurements(dir),
        Kind::Model => match random.below(100) {
            // Planning times the machine; the others do not.
            0 => quantize_plan(dir),
            1..30 => chat(dir),
            _ => run(dir),
        },
    }
}

fn said(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// generate, eval, bench, inspect: the folder is judged, its text is encoded and decoded, its sampling is read.
fn run(dir: &Path) -> Result<(), String> {
    let folder = ModelFolder::open(dir).map_err(said)?;
    let tokenizer = Tokenizer::load(dir, folder.config.vocab_size).map_err(said)?;
    let ids = tokenizer
        .encode("A ship, at sea: 12 knots.\n", true)
        .map_err(said)?;
    tokenizer.decode(&ids, false).map_err(said)?;
    SamplingDefaults::load(dir).map_err(said)?;
    for name in folder.weights.names() {
        folder.weights.raw(&name).map_err(said)?;
    }
    Ok(())
}

/// chat, serve: a conversation is written as the template says.
fn chat(dir: &Path) -> Result<(), String> {
    let config = ModelConfig::load(dir).map_err(said)?;
    let tokenizer = Tokenizer::load(dir, config.vocab_size).map_err(said)?;
    let template = ChatTemplate::load(dir).map_err(said)?;
    let turn = |role: &str, content: &str| Message {
        role: role.into(),
        content: content.into(),
    };
    let messages = [
        turn("system", "Be brief."),
        turn("user", "Who is there?"),
        turn("assistant", "I."),
        turn("user", "Who?"),
    ];
    let prompt = template.render(&messages, true).map_err(said)?;
    let tools = serde_json::json!([{"type": "function", "function": {"name": "look", "parameters": {}}}]);
    template
        .render_with_tools(&messages, Some(&tools), true)
        .map_err(said)?;
    tokenizer.encode(&prompt, false).map_err(said).map(drop)
}

/// quantize --plan.
fn quantize_plan(dir: &Path) -> Result<(), String> {
    let folder = ModelFolder::open(dir).map_err(said)?;
    if folder.config.quantization.is_some() {
        return Ok(());
    }
    let device = CpuDevice::new(1).map_err(said)?;
    let mut job = QuantJob::new(dir, dir.with_extension("out"));
    (job.options.num_windows, job.options.window_tokens) = (2, 32);
    plan(&device, &folder.config, &job, Some(5_000))
        .map_err(said)
        .map(drop)
}

/// report, fit, select, predict, cost: a set is read, a fitted model predicts.
fn measurements(dir: &Path) -> Result<(), String> {
    let set = Dataset::read(dir).map_err(said);
    let model = Model::read(&dir.join("fitted.dgm")).map_err(said)?;
    for kernel in model.kernels() {
        let _ = model.ranked(kernel, &Product::new(17, 4096, 512), Objective::Edp);
    }
    set.map(drop)
}
