//! `report`: one page of pictures of a measured set, of the model fitted to it, or of both.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dualgrain_perf::report::{Findings, Summary, page};
use dualgrain_perf::{Dataset, Model};
use serde::Serialize;

use crate::arguments_perf::Report as Options;
use crate::terminal::{Terminal, bytes};

#[derive(Serialize)]
struct Report {
    out: PathBuf,
    size_bytes: u64,
    #[serde(flatten)]
    summary: Summary,
}

/// Reads what was named, draws, writes.
pub fn run(options: &Options, terminal: &Terminal) -> Result<()> {
    let (mut data, mut model) = (None, None);
    for source in &options.sources {
        match read(source)? {
            Source::Data(set) if data.is_none() => data = Some(set),
            Source::Model(fitted) if model.is_none() => model = Some(fitted),
            _ => bail!(
                "{}: one measured set and one fitted model at most",
                source.display()
            ),
        }
    }
    if let (Some(data), Some(model)) = (&data, &model) {
        let (measured, fitted) = (&data.manifest.machine.name, &model.machine().name);
        if measured != fitted {
            bail!("the set was measured on {measured}, the model fitted on {fitted}");
        }
    }
    let findings = Findings {
        data: data.as_deref(),
        machine: model.as_ref().map(|model| model.machine()),
        ..Findings::default()
    };
    let (html, summary) = page(&findings);
    let out = &options.out;
    std::fs::write(out, &html).with_context(|| format!("writing {}", out.display()))?;
    let report = Report {
        out: out.clone(),
        size_bytes: html.len() as u64,
        summary,
    };
    terminal.result(&report, &text(&report))
}

/// What a path (or the name of a machine) stands for.
enum Source {
    Data(Box<Dataset>),
    Model(Box<Model>),
}

fn read(source: &Path) -> Result<Source> {
    if source.is_dir() {
        return Ok(Source::Data(Box::new(Dataset::read(source)?)));
    }
    if source.is_file() {
        return Ok(Source::Model(Box::new(Model::read(source)?)));
    }
    match source.to_str().filter(|name| !name.contains(['/', '\\', '.'])) {
        Some(machine) => Ok(Source::Model(Box::new(Model::shipped(machine).with_context(
            || format!("{machine}: neither a folder with a measured set nor a fitted model"),
        )?))),
        None => bail!(
            "{}: neither a folder with a measured set nor a fitted model",
            source.display()
        ),
    }
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
            "{target}: mean error {:.1} %, median {:.1} %, {:.1} % inside their interval, on shapes never seen\n",
            errors.mean_percent_error,
            errors.median_percent_error,
            100.0 * errors.coverage
        );
    }
    for (section, reason) in &summary.absent {
        text += &format!("no {section}: {reason}\n");
    }
    text
}
