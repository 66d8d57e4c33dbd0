//! Quantizes models in every way a user can choose and prints what each costs in quality: the table of the README.
//! Everything goes through the `dualgrain` command, so a row is what a user would get.
//!
//!     cargo build --release && cargo run --release --example quality_table -- \
//!         --calib c4.txt --text wikitext2_test.txt --csv bench/record/quality.csv MODEL_DIR ...
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;

/// Name of a variant and the options that make it.
const VARIANTS: [(&str, &[&str]); 16] = [
    ("dual-grained, smoothed, f16 cache", &["--kv", "f16"]),
    ("dual-grained, smoothed, int8 cache", &[]),
    ("  head as it was", &["--lm-head", "float"]),
    ("  W4A8 head", &["--lm-head", "w4a8"]),
    ("  group 32", &["--group-size", "32"]),
    ("  int8 cache with static scales", &["--kv", "int8-static"]),
    ("  static activations", &["--activations", "static"]),
    ("  smoothing at the paper's 99.5 %", &["--percentile", "99.5"]),
    (
        "  smoothing v -> out too",
        &["--smooth-pairs", "norm-qkv,norm-up,up-down,v-out"],
    ),
    ("  smoothing norms only", &["--smooth-pairs", "norm-qkv,norm-up"]),
    ("  no smoothing", &["--smooth", "off"]),
    ("  SmoothQuant's alpha 0.5", &["--smooth", "alpha"]),
    (
        "  round to nearest, no smoothing",
        &["--search", "rtn", "--smooth", "off"],
    ),
    ("  one scale a channel", &["--group-size", "channel"]),
    ("compensated", &["--method", "compensate"]),
    (
        "compensated, 128 windows",
        &["--method", "compensate", "--windows", "128"],
    ),
];

/// Windows on which a variant is compared with its original (the first ones).
const DIVERGENCE_WINDOWS: usize = 40;

#[derive(Parser)]
struct Arguments {
    /// Calibration text.
    #[arg(long)]
    calib: PathBuf,
    /// Text to judge on.
    #[arg(long)]
    text: PathBuf,
    /// Only the first windows of the text.
    #[arg(long)]
    windows: Option<usize>,
    /// Only variants whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// File to append rows to.
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Folders of the original models.
    #[arg(required = true)]
    models: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scratch = std::env::temp_dir().join(format!("dualgrain-quality-{}", std::process::id()));
    println!(
        "| model | variant | bits | perplexity | against original | KL | top-1 | quantize s | peak MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for model in &arguments.models {
        // The original is judged once: its perplexity does not depend on the variant.
        let reference = number(&eval(&arguments, model, &[])?, "perplexity");
        for (name, options) in VARIANTS.iter().filter(|(name, _)| name.contains(&arguments.only)) {
            let row = measure(&arguments, model, reference, options, &scratch);
            std::fs::remove_dir_all(&scratch).ok();
            print(
                &arguments,
                model,
                name,
                &row.with_context(|| format!("{}: {name}", model.display()))?,
            )?;
        }
    }
    Ok(())
}

struct Row {
    reference: f64,
    quantized: Value,
    judged: Value,
    compared: Value,
}

fn measure(arguments: &Arguments, model: &Path, reference: f64, options: &[&str], out: &Path) -> Result<Row> {
    let mut quantize = command()?;
    quantize
        .arg("quantize")
        .arg(model)
        .arg("--out")
        .arg(out)
        .arg("--calib")
        .arg(&arguments.calib)
        .args(options);
    let windows = arguments
        .windows
        .unwrap_or(DIVERGENCE_WINDOWS)
        .min(DIVERGENCE_WINDOWS)
        .to_string();
    let original = model.to_str().context("the model's path is not UTF-8")?;
    Ok(Row {
        reference,
        quantized: json(&mut quantize)?,
        judged: eval(arguments, out, &[])?,
        compared: eval(arguments, out, &["--reference", original, "--windows", &windows])?,
    })
}

fn eval(arguments: &Arguments, model: &Path, more: &[&str]) -> Result<Value> {
    let mut eval = command()?;
    eval.arg("eval")
        .arg(model)
        .arg("--text")
        .arg(&arguments.text)
        .args(more);
    if let (Some(windows), true) = (arguments.windows, more.is_empty()) {
        eval.args(["--windows", &windows.to_string()]);
    }
    json(&mut eval)
}

fn number(value: &Value, field: &str) -> f64 {
    value[field].as_f64().unwrap_or(f64::NAN)
}

/// The command built beside this example.
fn command() -> Result<Command> {
    let example = std::env::current_exe()?;
    let folder = example
        .ancestors()
        .nth(2)
        .context("the example lies in target/release/examples")?;
    let path = folder.join("dualgrain");
    ensure!(
        path.is_file(),
        "{} is missing: cargo build --release makes it",
        path.display()
    );
    Ok(Command::new(path))
}

fn json(command: &mut Command) -> Result<Value> {
    let output = command.arg("--json").output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn print(arguments: &Arguments, model: &Path, name: &str, row: &Row) -> Result<()> {
    let (perplexity, reference) = (number(&row.judged, "perplexity"), row.reference);
    let model = model.file_name().unwrap_or_default().to_string_lossy();
    let cells = [
        model.to_string(),
        name.to_owned(),
        format!("{:.2}", number(&row.judged, "bits_per_weight")),
        format!("{perplexity:.3}"),
        format!("{:+.2} %", 100.0 * (perplexity / reference - 1.0)),
        format!("{:.4}", number(&row.compared, "kl_divergence")),
        format!("{:.2} %", 100.0 * number(&row.compared, "top1_agreement")),
        format!("{:.1}", number(&row.quantized, "time_s")),
        format!("{:.0}", number(&row.quantized, "peak_resident_bytes") / 1e6),
    ];
    println!("| {} |", cells.join(" | "));
    let Some(path) = &arguments.csv else { return Ok(()) };
    let new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if new {
        writeln!(
            file,
            "model,variant,bits_per_weight,perplexity,perplexity_reference,kl_divergence,top1_agreement,quantize_time_s,peak_resident_bytes"
        )?;
    }
    writeln!(
        file,
        "{model},\"{}\",{},{perplexity},{reference},{},{},{},{}",
        name.trim(),
        number(&row.judged, "bits_per_weight"),
        number(&row.compared, "kl_divergence"),
        number(&row.compared, "top1_agreement"),
        number(&row.quantized, "time_s"),
        number(&row.quantized, "peak_resident_bytes"),
    )?;
    Ok(())
}
