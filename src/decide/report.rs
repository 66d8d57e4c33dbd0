//! `report`: one page of pictures of a measured set, of the model fitted to it, or of both.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dualgrain_perf::report::{Choice, Findings, Summary, render};
use dualgrain_perf::{Dataset, HeldOut, Machine, Model, Objective};
use serde::Serialize;

use crate::cli::arguments::{Common, Report as Options};
use crate::cli::output_file;
use crate::cli::terminal::Terminal;
use crate::cli::units::bytes;
use crate::decide::learning;

/// Kernels, or types, that come in several configurations.
const CHOSEN_FROM: [&str; 2] = ["w4a8", "sgemm_tiled"];

#[derive(Serialize)]
struct Report {
    out: PathBuf,
    size_bytes: u64,
    #[serde(flatten)]
    summary: Summary,
}

/// Reads what was named, draws, writes.
pub fn run(options: &Options, common: &Common, terminal: &Terminal) -> Result<()> {
    output_file::check(&options.out, output_file::PAGE, options.replacing.replace)?;
    let (data, model) = read(&options.sources)?;
    let learned = data
        .as_ref()
        .map(|data| learn(data, model.is_none(), common, terminal));
    let learned = learned.unwrap_or_default();
    let model = model.or(learned.model);
    let findings = Findings {
        data: data.as_ref(),
        machine: model.as_ref().map(Model::machine),
        held_out: &learned.held_out,
        fit: model.as_ref().map(Model::fit_summary),
        choices: &learned.choices,
    };
    let (html, summary) = render(&findings);
    let out = &options.out;
    std::fs::write(out, &html).with_context(|| format!("writing {}", out.display()))?;
    let report = Report {
        out: out.clone(),
        size_bytes: html.len() as u64,
        summary,
    };
    terminal.result(&report, &text(&report))
}

/// The measured sets that were named, together, and the fitted model.
fn read(sources: &[PathBuf]) -> Result<(Option<Dataset>, Option<Model>)> {
    let (folders, others): (Vec<_>, Vec<_>) = sources.iter().cloned().partition(|source| source.is_dir());
    let model = match &others[..] {
        [] => None,
        [source] => Some(read_model(source)?),
        [_, second, ..] => bail!("{}: only one fitted model can be reported on", second.display()),
    };
    let data = match folders.is_empty() {
        true => None,
        false => Some(Dataset::read_all(&folders)?),
    };
    if let (Some(data), Some(model)) = (&data, &model) {
        let (measured, fitted) = (&data.manifest.machine, model.machine());
        let alike = |one: &Machine, two: &Machine| {
            (&one.name, one.kind, one.num_units) == (&two.name, two.kind, two.num_units)
        };
        if !alike(measured, fitted) {
            let words = |machine: &Machine| format!("{} with {} units", machine.name, machine.num_units);
            bail!(
                "the set was measured on {}, the model fitted on {}",
                words(measured),
                words(fitted)
            );
        }
    }
    Ok((data, model))
}

/// A file, or the name of a machine whose model comes with the program.
fn read_model(source: &Path) -> Result<Model> {
    let neither = || {
        format!(
            "{}: neither a folder with a measured set nor a fitted model",
            source.display()
        )
    };
    if source.is_file() {
        return Ok(Model::read(source)?);
    }
    match source.to_str().filter(|name| !name.contains(['/', '\\', '.'])) {
        Some(machine) => Model::shipped(machine).with_context(neither),
        None => bail!(neither()),
    }
}

/// What fitting the set says.
#[derive(Default)]
struct Learned {
    model: Option<Model>,
    held_out: Vec<HeldOut>,
    choices: Vec<Choice>,
}

/// Fits the set for what the page shows of predictions. A set that teaches nothing is still drawn.
fn learn(data: &Dataset, fit: bool, common: &Common, terminal: &Terminal) -> Learned {
    let how = learning::options(common);
    let held_out = match learning::held_out(data, &how, terminal) {
        Ok(held_out) => held_out,
        Err(error) => {
            terminal.say(&format!("nothing can be learned from this set: {error}"));
            return Learned::default();
        }
    };
    Learned {
        model: fit.then(|| Model::fit_with(data, &how).ok()).flatten(),
        choices: choices(data, &held_out, common, terminal),
        held_out,
    }
}

/// Among which kernels there is something to choose, and what choosing by prediction loses there, as `select --regret` judges it.
fn choices(data: &Dataset, held_out: &[HeldOut], common: &Common, terminal: &Terminal) -> Vec<Choice> {
    let goals = [("time", Objective::Time), ("energy", Objective::Energy)];
    let all = CHOSEN_FROM
        .iter()
        .flat_map(|&kernel| goals.map(|(name, by)| (kernel, name, by)));
    // Too few products in too few configurations: the page does without, and nothing is learned once more for it.
    let all = all.filter(|&(kernel, _, by)| learning::regrets(data, held_out, kernel, by).is_ok());
    let all: Vec<_> = all.collect();
    if all.is_empty() {
        return Vec::new();
    }
    let Ok(held_out) = learning::held_out(data, &learning::choice_options(common), terminal) else {
        return Vec::new();
    };
    let choice = |(kernel, by_name, by): (&str, _, _)| {
        let regrets = learning::regrets(data, &held_out, kernel, by).ok()?;
        Some(Choice {
            by: by_name,
            kernel: kernel.to_owned(),
            regrets,
        })
    };
    all.into_iter().filter_map(choice).collect()
}

fn text(report: &Report) -> String {
    let summary = &report.summary;
    let mut text = format!(
        "{}: {} rows of {}, {} of them drawn, {} with energy; {}\n",
        report.out.display(),
        summary.rows,
        summary.machine,
        summary.sound_rows,
        summary.energy_rows,
        bytes(report.size_bytes)
    );
    for (target, errors) in &summary.held_out {
        text += &format!(
            "{target}: mean error {:.1} %, median {:.1} %, {:.1} % inside their 90 % interval, on shapes never seen\n",
            errors.mean_percent_error,
            errors.median_percent_error,
            100.0 * errors.coverage.unwrap_or(f64::NAN)
        );
    }
    for (section, reason) in &summary.absent {
        text += &format!("no {section}: {reason}\n");
    }
    text
}
