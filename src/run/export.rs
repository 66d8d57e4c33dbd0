//! `export`: a quantized folder in the format of another program.

use std::time::Instant;

use anyhow::{Context, Result};
use dualgrain_export::{ExportFormat, FoldingReport, Progress, Summary, Watch};
use serde::Serialize;

use crate::cli::arguments::{Export, Format};
use crate::cli::interruption::interrupt_flag;
use crate::cli::terminal::Terminal;
use crate::cli::units::{bytes, duration};
use crate::measure::machine;
use crate::run::model_folder;

#[derive(Serialize)]
struct Report {
    model: String,
    out: String,
    format: &'static str,
    time_s: f64,
    peak_resident_bytes: Option<u64>,
    #[serde(flatten)]
    summary: Summary,
}

/// Writes the folder.
pub fn run(arguments: &Export, terminal: &Terminal) -> Result<()> {
    let (model, out, format) = (&arguments.model, &arguments.out, format(arguments.format));
    model_folder::check_folder(model)?;
    let cancel = interrupt_flag()?;
    let started = Instant::now();
    let show = |p: Progress<'_>| terminal.progress("exporting", p.tensor, p.done, p.total);
    let written = dualgrain_export::export(model, out, format, Watch::new(&show, &cancel));
    terminal.finish();
    let summary = written.with_context(|| format!("exporting {}", model.display()))?;
    let report = Report {
        model: model.display().to_string(),
        out: out.display().to_string(),
        format: format.name(),
        time_s: started.elapsed().as_secs_f64(),
        peak_resident_bytes: machine::peak_resident_bytes(),
        summary,
    };
    terminal.result(&report, &text(&report))
}

fn format(format: Format) -> ExportFormat {
    match format {
        Format::Hf => ExportFormat::Hf,
        Format::CompressedTensors => ExportFormat::CompressedTensors,
        Format::CompressedTensorsW4a16 => ExportFormat::CompressedTensorsW4a16,
        Format::Gguf => ExportFormat::Gguf,
    }
}

fn text(report: &Report) -> String {
    let summary = &report.summary;
    let mut text = format!(
        "{}: {}, {} tensors, {}, in {}\n",
        report.out,
        report.format,
        summary.num_tensors,
        bytes(summary.size_bytes),
        duration(report.time_s)
    );
    text += &summary.folding.as_ref().map_or(String::new(), folding_text);
    for notice in &summary.notices {
        text += &format!("note: {notice}\n");
    }
    text
}

fn folding_text(folding: &FoldingReport) -> String {
    let mut text = format!(
        "both scales in one 16-bit float: relative error {:.2e} (root mean square), {:.2e} at most, of {} scales\n",
        folding.rms_relative_error, folding.max_relative_error, folding.num_scales
    );
    if let Some(linear) = &folding.first_subnormal {
        text += &format!(
            "note: {} scales lie below 6.1e-5, where 16-bit floats have fewer bits; the first is in `{linear}`\n",
            folding.num_subnormal
        );
    }
    text
}
