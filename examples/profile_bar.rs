//! How true a short profile of this CPU is: profiles for three minutes, measures ten shapes that the profile has not seen, and sets `cost`
//! beside `bench` for the models named. Prints a table; CSV goes to a file.
//!
//!     cargo run --release --example profile_bar -- target/release/dualgrain FOLDER MODEL... --csv rows.csv
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dualgrain_perf::{Dataset, KernelCall, Model, Row};
use serde_json::{Value, json};

/// Tokens of a prompt, tokens to generate and sequences of `cost` and `bench`.
const PROMPT: usize = 512;
const GENERATE: usize = 64;
const BATCHES: [usize; 2] = [1, 4];

#[derive(Parser)]
struct Arguments {
    /// The program.
    program: PathBuf,
    /// New folder for the sets and the fitted model.
    folder: PathBuf,
    /// Model folders of 4-bit weights.
    models: Vec<PathBuf>,
    /// How long to profile.
    #[arg(long, default_value = "3m")]
    budget: String,
    /// Seed of the shapes that are not learned from.
    #[arg(long, default_value_t = 77)]
    seed: u64,
    /// How many.
    #[arg(long, default_value_t = 10)]
    shapes: usize,
    /// Write the rows here.
    #[arg(long)]
    csv: Option<PathBuf>,
}

/// A figure that was foretold, and what was measured.
struct Compared {
    what: String,
    name: String,
    size: String,
    said: f64,
    measured: f64,
    unit: &'static str,
}

impl Compared {
    fn error(&self) -> f64 {
        self.said / self.measured - 1.0
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.folder)?;
    let set = arguments.folder.join("set");
    let fitted = arguments.folder.join("machine.dgm");
    let program = |words: &[&str], paths: &[(&str, &Path)]| run(&arguments.program, words, paths);
    program(
        &["profile", "--device", "cpu", "--budget", &arguments.budget],
        &[("--out", &set)],
    )?;
    program(&["fit", &set.to_string_lossy()], &[("--out", &fitted)])?;
    let mut all = unseen(&arguments, &set, &fitted)?;
    for model in &arguments.models {
        all.extend(priced(&arguments.program, model, &fitted)?);
    }
    print!("{}", table(&all));
    if let Some(path) = &arguments.csv {
        std::fs::write(path, csv(&all, &Dataset::read(&set)?))?;
    }
    Ok(())
}

/// Runs the program and gives its answer.
fn run(program: &Path, words: &[&str], paths: &[(&str, &Path)]) -> Result<Value> {
    let mut command = Command::new(program);
    command.args(words).arg("--json");
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| program.display().to_string())?;
    ensure!(output.status.success(), "{words:?}: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What the model says of products on shapes that it has not seen, in the kernels that programs run here.
fn unseen(arguments: &Arguments, set: &Path, fitted: &Path) -> Result<Vec<Compared>> {
    let (space, out) = (
        arguments.folder.join("space.json"),
        arguments.folder.join("unseen"),
    );
    let sample = json!({"seed": arguments.seed, "model_weights": [], "num_exhaustive": 0, "num_sampled": arguments.shapes});
    std::fs::write(&space, sample.to_string())?;
    let learned = Dataset::read(set)?;
    let kernels = first_kernels(&learned.rows).join(",");
    run(
        &arguments.program,
        &["profile", "--device", "cpu", "--kernels", &kernels],
        &[("--space", &space), ("--out", &out)],
    )?;
    let shape = |row: &Row| (row.m, row.n, row.k);
    let seen: Vec<_> = learned.rows.iter().map(shape).collect();
    let model = Model::read(fitted)?;
    let mut all = Vec::new();
    for row in Dataset::read(&out)?.rows {
        let (Some(time_s), false) = (row.time_s, seen.contains(&shape(&row))) else {
            continue;
        };
        let config = format!("t{}", row.threads);
        let call = KernelCall {
            config: &config,
            ..KernelCall::of_row(&row)
        };
        all.push(Compared {
            what: "product".to_owned(),
            name: format!("{} {config}", row.kernel),
            size: format!("{}x{}x{}", row.m, row.n, row.k),
            said: model.predict(&call)?.time_s.value,
            measured: time_s,
            unit: "s",
        });
    }
    Ok(all)
}

/// The kernel of each type that a sweep measures first: the one that programs run.
fn first_kernels(rows: &[Row]) -> Vec<&str> {
    let mut of_type: BTreeMap<&str, &str> = BTreeMap::new();
    for row in rows {
        if let Some((operands, _)) = row.kernel.rsplit_once('_') {
            of_type.entry(operands).or_insert(&row.kernel);
        }
    }
    of_type.into_values().collect()
}

/// What `cost` says of a model beside what `bench` measures.
fn priced(program: &Path, model: &Path, fitted: &Path) -> Result<Vec<Compared>> {
    let folder = model.to_string_lossy();
    let (prompt, generate) = (PROMPT.to_string(), GENERATE.to_string());
    let batches = BATCHES.map(|batch| batch.to_string()).join(",");
    let sizes = ["--batch", &batches];
    let asked = [
        &["cost", &folder, "--prompt", &prompt, "--generate", &generate][..],
        &sizes,
    ]
    .concat();
    let said = run(program, &asked, &[("--model", fitted)])?;
    let timed = [&["bench", &folder, "-p", &prompt, "-n", &generate][..], &sizes].concat();
    let measured = run(program, &timed, &[])?;
    let mut all = Vec::new();
    for (at, batch) in BATCHES.into_iter().enumerate() {
        let (said, measured) = (&said["batches"][at], &measured["rows"][at]);
        let first_s = said["time_to_first_token_s"]["value"].as_f64();
        let figures = [
            (
                "prompt",
                first_s.map(|seconds| (batch * PROMPT) as f64 / seconds),
                "prefill_tokens_per_s",
            ),
            (
                "decode",
                said["decode_tokens_per_s"]["value"].as_f64(),
                "decode_tokens_per_s",
            ),
        ];
        for (what, said, key) in figures {
            all.push(Compared {
                what: what.to_owned(),
                name: model
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                size: format!("{batch} sequences"),
                said: said.context("no such figure in the answer of cost")?,
                measured: measured[key]
                    .as_f64()
                    .context("no such figure in the answer of bench")?,
                unit: "tokens/s",
            });
        }
    }
    Ok(all)
}

/// A line for each figure, then the median error of the products.
fn table(all: &[Compared]) -> String {
    let mut text = String::new();
    for one in all {
        let _ = writeln!(
            text,
            "{:8} {:26} {:16} {:12.4e} {:12.4e} {:9} {:+7.1} %",
            one.what,
            one.name,
            one.size,
            one.said,
            one.measured,
            one.unit,
            100.0 * one.error()
        );
    }
    for start in ["", "gemm_w4a8", "gemm_w8a8", "gemm_bf16", "gemm_f32"] {
        let of_start = all
            .iter()
            .filter(|one| one.what == "product" && one.name.starts_with(start));
        let mut errors: Vec<f64> = of_start.map(|one| one.error().abs()).collect();
        errors.sort_by(f64::total_cmp);
        if let Some(median) = errors.get(errors.len() / 2) {
            let name = if start.is_empty() { "all products" } else { start };
            let _ = writeln!(
                text,
                "{name}: median error {:.1} % of {}",
                100.0 * median,
                errors.len()
            );
        }
    }
    text
}

/// The rows, below a line that says where they come from.
fn csv(all: &[Compared], set: &Dataset) -> String {
    let machine = &set.manifest.machine;
    let mut text = format!(
        "# {} ({} threads, {}), {}, dualgrain {}: {} rows learned from; seconds of products, tokens per second of models\n\
         # cargo run --release --example profile_bar -- target/release/dualgrain FOLDER MODEL... --csv FILE\n\
         what,name,size,said,measured,unit,error\n",
        machine.name,
        machine.num_units,
        set.manifest.driver,
        set.manifest.date,
        set.manifest.version,
        set.rows.len()
    );
    for one in all {
        let _ = writeln!(
            text,
            "{},{},{},{:.6e},{:.6e},{},{:.4}",
            one.what,
            one.name,
            one.size,
            one.said,
            one.measured,
            one.unit,
            one.error()
        );
    }
    text
}
