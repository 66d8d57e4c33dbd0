//! Quantizes models in every way a user can choose and prints what each costs in quality: the table of the README.
//! Everything goes through the `dualgrain` command, so a row is what a user would get.
//!
//!     cargo build --release && cargo run --release --example quality_table -- \
//!         --calib c4.txt --text wikitext2_test.txt --csv bench/record/quality.csv MODEL_DIR ...
//!
//! `--second FILE` adds KL divergence on another text.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;

/// Name of a variant and the options that make it.
const VARIANTS: [(&str, &[&str]); 33] = [
    ("default", &[]),
    ("group 64", &["--group-size", "64"]),
    ("group 32", &["--group-size", "32"]),
    ("rotated", &["--rotate"]),
    ("rotated and transformed", &["--rotate", "--hadamard-down"]),
    (
        "rotated and transformed, group 64",
        &["--rotate", "--hadamard-down", "--group-size", "64"],
    ),
    (
        "rotated and transformed, group 32",
        &["--rotate", "--hadamard-down", "--group-size", "32"],
    ),
    ("transformed", &["--hadamard-down"]),
    ("4.25 bits", &["--bits", "4.25"]),
    (
        "rotated and transformed, 4.25 bits",
        &["--rotate", "--hadamard-down", "--bits", "4.25"],
    ),
    ("search alone", &["--method", "dgq"]),
    (
        "search alone, 128 windows",
        &["--method", "dgq", "--windows", "128"],
    ),
    (
        "search alone, group 64",
        &["--method", "dgq", "--group-size", "64"],
    ),
    (
        "search alone, group 32",
        &["--method", "dgq", "--group-size", "32"],
    ),
    ("32 windows", &["--windows", "32"]),
    ("without ordered rounding", &["--without", "ordered-rounding"]),
    ("without regrouping", &["--without", "regrouping"]),
    ("without the order by loudness", &["--without", "loudness-order"]),
    ("without descent", &["--without", "descent"]),
    ("without scale fits", &["--without", "scale-fits"]),
    ("without the choice of damping", &["--without", "damping-choice"]),
    ("without correction", &["--without", "correction"]),
    (
        "without correction of the stream",
        &["--without", "stream-correction"],
    ),
    ("f16 cache", &["--kv", "f16"]),
    ("int8 cache with static scales", &["--kv", "int8-static"]),
    ("head as it was", &["--lm-head", "float"]),
    ("W4A8 head", &["--lm-head", "w4a8"]),
    ("static activations", &["--activations", "static"]),
    ("smoothing at the paper's 99.5 %", &["--percentile", "99.5"]),
    (
        "smoothing v -> out too",
        &["--smooth-pairs", "norm-qkv,norm-up,up-down,v-out"],
    ),
    ("no smoothing", &["--smooth", "off"]),
    (
        "round to nearest, no smoothing",
        &["--search", "rtn", "--smooth", "off"],
    ),
    ("one scale a channel", &["--group-size", "channel"]),
];

/// Windows on which a variant is compared with its original (the first ones), and those of a second text.
const DIVERGENCE_WINDOWS: usize = 40;
const SECOND_WINDOWS: usize = 32;

/// Ticks a second in which the system counts processor time.
const TICKS_PER_S: f64 = 100.0;

#[derive(Parser)]
struct Arguments {
    /// Calibration text.
    #[arg(long)]
    calib: PathBuf,
    /// Text to judge on.
    #[arg(long)]
    text: PathBuf,
    /// Another text, on which variants are compared with their original too.
    #[arg(long)]
    second: Option<PathBuf>,
    /// Only the first windows of the text.
    #[arg(long)]
    windows: Option<usize>,
    /// Only variants whose name contains one of these, separated by semicolons; `=` before a name asks for exactly it.
    #[arg(long, value_delimiter = ';')]
    only: Vec<String>,
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
        "| model | variant | bits | perplexity | against original | KL | top-1 | KL, second text | quantize s | processor s | peak MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for model in &arguments.models {
        // The original is judged once: its perplexity does not depend on the variant.
        let reference = number(&eval(&arguments, model)?, "perplexity");
        for (name, options) in VARIANTS
            .iter()
            .filter(|(name, _)| is_wanted(&arguments.only, name))
        {
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

fn is_wanted(only: &[String], name: &str) -> bool {
    let fits = |wanted: &String| match wanted.strip_prefix('=') {
        Some(whole) => name == whole,
        None => name.contains(wanted.as_str()),
    };
    only.is_empty() || only.iter().any(fits)
}

struct Row {
    reference: f64,
    quantized: Value,
    processor_s: f64,
    judged: Value,
    compared: Value,
    second: Option<Value>,
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
        .min(DIVERGENCE_WINDOWS);
    let before_s = processor_s();
    let quantized = json(&mut quantize)?;
    let processor_s = processor_s() - before_s;
    let compared = compare(out, model, &arguments.text, windows)?;
    let second = arguments.second.as_ref();
    Ok(Row {
        reference,
        quantized,
        processor_s,
        judged: match arguments.windows {
            // The comparison has seen the same windows.
            Some(asked) if asked == windows => compared.clone(),
            _ => eval(arguments, out)?,
        },
        compared,
        second: second
            .map(|text| compare(out, model, text, SECOND_WINDOWS))
            .transpose()?,
    })
}

/// Judges `model` against its original on the first `windows` of `text`.
fn compare(model: &Path, original: &Path, text: &Path, windows: usize) -> Result<Value> {
    let mut eval = command()?;
    eval.arg("eval").arg(model).arg("--reference").arg(original);
    eval.arg("--text")
        .arg(text)
        .args(["--windows", &windows.to_string()]);
    json(&mut eval)
}

/// Processor time of all commands that have ended, as Linux tells it; not a number elsewhere.
fn processor_s() -> f64 {
    // Behind the name in parentheses, the 14th and 15th fields are user and system time of children.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields.skip(13).take(2).flat_map(str::parse).collect();
    match ticks[..] {
        [user, system] => (user + system) / TICKS_PER_S,
        _ => f64::NAN,
    }
}

fn eval(arguments: &Arguments, model: &Path) -> Result<Value> {
    let mut eval = command()?;
    eval.arg("eval").arg(model).arg("--text").arg(&arguments.text);
    if let Some(windows) = arguments.windows {
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
    let second = row
        .second
        .as_ref()
        .map_or(f64::NAN, |second| number(second, "kl_divergence"));
    let model = model.file_name().unwrap_or_default().to_string_lossy();
    let cells = [
        model.to_string(),
        name.to_owned(),
        format!("{:.2}", number(&row.judged, "bits_per_weight")),
        format!("{perplexity:.3}"),
        format!("{:+.2} %", 100.0 * (perplexity / reference - 1.0)),
        format!("{:.4}", number(&row.compared, "kl_divergence")),
        format!("{:.2} %", 100.0 * number(&row.compared, "top1_agreement")),
        format!("{second:.4}"),
        format!("{:.1}", number(&row.quantized, "time_s")),
        format!("{:.1}", row.processor_s),
        format!("{:.0}", number(&row.quantized, "peak_resident_bytes") / 1e6),
    ];
    println!("| {} |", cells.join(" | "));
    let Some(path) = &arguments.csv else { return Ok(()) };
    let new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if new {
        writeln!(
            file,
            "model,variant,bits_per_weight,perplexity,perplexity_reference,kl_divergence,top1_agreement,kl_divergence_second,quantize_time_s,quantize_processor_s,peak_resident_bytes"
        )?;
    }
    writeln!(
        file,
        "{model},\"{name}\",{},{perplexity},{reference},{},{},{second},{},{},{}",
        number(&row.judged, "bits_per_weight"),
        number(&row.compared, "kl_divergence"),
        number(&row.compared, "top1_agreement"),
        number(&row.quantized, "time_s"),
        row.processor_s,
        number(&row.quantized, "peak_resident_bytes"),
    )?;
    Ok(())
}
