//! `profile`: measures what matrix products cost, and puts such measurements together.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use dualgrain::format::text::read_text;
use dualgrain_perf::{Space, SweepOptions, SweepSummary, Watch, merge, sweep_cpu};

use crate::cli::arguments::{Common, Profile, ProfileAction, ProfileMerge};
use crate::cli::interruption::interrupt_flag;
use crate::cli::output_file;
use crate::cli::terminal::Terminal;
use crate::cli::units::duration;
use crate::measure::machine;

/// What was built; a build that knows no tag calls itself by its version.
const VERSION: &str = match option_env!("DUALGRAIN_GIT_DESCRIBE") {
    Some(described) => described,
    None => env!("CARGO_PKG_VERSION"),
};

/// The terminal as a sweep sees it.
struct Watched<'a> {
    terminal: &'a Terminal,
    interrupted: Arc<AtomicBool>,
    last: RefCell<String>,
}

impl Watch for Watched<'_> {
    fn progress(&self, detail: &str, done: usize, total: usize) {
        detail.clone_into(&mut self.last.borrow_mut());
        self.terminal
            .progress("measuring", detail, done as u64, total as u64);
    }

    fn say(&self, line: &str) {
        self.terminal.say(line);
    }

    fn stops(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

/// Where products are measured.
enum On {
    Cpu,
    Card(usize),
}

/// Measures, checks the energy counter, or merges.
pub fn run(options: &Profile, common: &Common, terminal: &Terminal) -> Result<()> {
    if let Some(ProfileAction::Merge(merged)) = &options.action {
        return run_merge(merged, terminal);
    }
    let watch = Watched {
        terminal,
        interrupted: interrupt_flag()?,
        last: RefCell::default(),
    };
    let on = on(&options.device)?;
    if let Some(csv) = &options.check_energy {
        output_file::check(csv, output_file::COUNTER, options.replacing.replace)?;
        output_file::can_write(csv)?;
        return check_energy(&on, options, csv, &watch);
    }
    if let Some(budget) = options.budget {
        terminal.ends_within(budget);
    }
    let summary = measure(&on, &wanted(options, &on)?, common, &watch)?;
    terminal.result(&summary, &text(&summary, &watch, &options.out))?;
    ensure!(
        summary.wrong_rows == 0,
        "{} products were wrong; their rows are marked",
        summary.wrong_rows
    );
    // What was measured until then is kept; a script must see that it is not all.
    ensure!(
        summary.finished || !watch.stops(),
        "interrupted; the same command with --resume goes on where it stopped"
    );
    Ok(())
}

fn wanted(options: &Profile, on: &On) -> Result<SweepOptions> {
    Ok(SweepOptions {
        kernels: options.kernels.clone(),
        space: space(options, on)?,
        out: options.out.clone(),
        resume: options.resume,
        known: options.known.clone(),
        budget: options.budget,
        shard: options.shard,
        ticks: options.ticks,
        version: VERSION.to_owned(),
    })
}

fn measure(on: &On, wanted: &SweepOptions, common: &Common, watch: &Watched<'_>) -> Result<SweepSummary> {
    let On::Card(index) = on else {
        let name = machine::cpu_name().unwrap_or_else(|| "unknown CPU".to_owned());
        return Ok(sweep_cpu(&name, machine::threads(common.threads), wanted, watch)?);
    };
    on_card(*index, wanted, watch)
}

fn text(summary: &SweepSummary, watch: &Watched<'_>, out: &Path) -> String {
    let end = match (summary.finished, watch.stops()) {
        (true, _) => "everything is measured".to_owned(),
        (false, true) => format!("interrupted at {}", watch.last.borrow()),
        (false, false) => "the budget is spent".to_owned(),
    };
    format!(
        "{} rows in {}: {} new in {}, {} of them with energy, {} marked, {} were there; {end}",
        summary.rows,
        out.display(),
        summary.new_rows,
        duration(summary.time_s),
        summary.new_energy_rows,
        summary.flagged_rows,
        summary.skipped_rows
    )
}

fn on(device: &str) -> Result<On> {
    let card = device.strip_prefix("cuda");
    let index = card.map(|rest| {
        rest.strip_prefix(':')
            .unwrap_or(if rest.is_empty() { "0" } else { rest })
    });
    match (device, index.map(str::parse)) {
        ("cpu", _) => Ok(On::Cpu),
        (_, Some(Ok(index))) => Ok(On::Card(index)),
        _ => bail!("--device {device}: expected cpu, cuda or cuda:0"),
    }
}

fn space(options: &Profile, on: &On) -> Result<Space> {
    let mut space = space_of(options.space.as_deref(), on)?;
    space.energy_share = options.energy_share.unwrap_or(space.energy_share);
    Ok(space)
}

fn space_of(file: Option<&Path>, on: &On) -> Result<Space> {
    let of_device = match on {
        On::Cpu => Space::of_cpu(),
        On::Card(_) => Space::default(),
    };
    let Some(path) = file else {
        return Ok(of_device);
    };
    let text = read_text(path)?;
    let space = Space::from_json(&text, &of_device).with_context(|| path.display().to_string())?;
    Ok(space.validate(path)?)
}

fn run_merge(options: &ProfileMerge, terminal: &Terminal) -> Result<()> {
    let merged = merge(&options.folders, &options.without, &options.out)?;
    let text = format!(
        "{} rows in {}; {} more were of configurations that had one; {} left out",
        merged.rows,
        options.out.display(),
        merged.repeated,
        merged.left_out
    );
    terminal.result(&merged, &text)
}

#[cfg(feature = "cuda")]
fn on_card(index: usize, options: &SweepOptions, watch: &Watched<'_>) -> Result<SweepSummary> {
    Ok(dualgrain_perf::sweep_gpu(index, options, watch)?)
}

#[cfg(not(feature = "cuda"))]
fn on_card(_: usize, _: &SweepOptions, _: &Watched<'_>) -> Result<SweepSummary> {
    bail!("this dualgrain was built without GPUs (feature cuda)")
}

#[cfg(feature = "cuda")]
fn check_energy(on: &On, options: &Profile, csv: &Path, watch: &Watched<'_>) -> Result<()> {
    let samples = dualgrain_perf::samples_beside(csv);
    output_file::check(&samples, output_file::SAMPLES, options.replacing.replace)?;
    let On::Card(index) = on else {
        bail!("--check-energy is about a card's counter: add --device cuda:0");
    };
    let found = dualgrain_perf::check_energy_counter(*index, options.ticks, csv, VERSION, watch)?;
    let lines = found.iter().map(|truth| {
        format!(
            "{}: counter / samples {:.3}, {} repetitions within {:.1} %",
            truth.load,
            1.0 + truth.deviation(),
            truth.repeated_j.len(),
            100.0 * truth.spread()
        )
    });
    let comparisons = serde_json::json!({ "comparisons": &found });
    watch
        .terminal
        .result(&comparisons, &lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(not(feature = "cuda"))]
fn check_energy(_: &On, _: &Profile, _: &Path, _: &Watched<'_>) -> Result<()> {
    bail!("this dualgrain was built without GPUs (feature cuda)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_cpu_or_a_card() {
        assert!(matches!(on("cpu"), Ok(On::Cpu)));
        assert!(matches!(on("cuda"), Ok(On::Card(0))));
        assert!(matches!(on("cuda:3"), Ok(On::Card(3))));
        assert!(on("cuda:x").is_err() && on("tpu").is_err());
    }
}
