//! Everything a person wants to see of a measured set and of the model fitted to it, on one page that opens offline.
//!
//! Each section is a file; one that has no data says so in its place.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sections::{accuracy, correlation, importance, regret, resources, roofline, tiles, time_energy};
use crate::data::{Dataset, Row};
use crate::learn::{FitReport, HeldOut};
use crate::machine::{Machine, Manifest};
use crate::predict::Score;
use crate::report::plot::{Page, Series, absent, quantity};
use crate::report::sections::{Choice, ChoiceSummary, TileStudy};

/// What a page is made of; what is absent is said to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Findings<'a> {
    /// Measurements.
    pub data: Option<&'a Dataset>,
    /// The machine, where there are no measurements to tell.
    pub machine: Option<&'a Machine>,
    /// Predictions of rows of `data`, each by a model that never saw the row's shape.
    pub held_out: &'a [HeldOut],
    /// How the fitted model came about and what it leans on.
    pub fit: Option<&'a FitReport>,
    /// What was lost by choosing by prediction, on shapes the model never saw.
    pub choices: &'a [Choice],
}

/// The page in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The machine, as it names itself.
    pub machine: String,
    /// Rows of the set.
    pub rows: usize,
    /// Those that were verified, timed and not marked.
    pub sound_rows: usize,
    /// Those of them with energy.
    pub energy_rows: usize,
    /// Rows that carry a mark, by mark.
    pub marks: BTreeMap<String, usize>,
    /// Sound rows by kernel.
    pub kernels: BTreeMap<String, usize>,
    /// Agreement on shapes the model never saw, by target.
    pub held_out: BTreeMap<String, Score>,
    /// The paper's questions about tiles, answered.
    pub tiles: Option<TileStudy>,
    /// What was lost by choosing by prediction.
    pub regret: Vec<ChoiceSummary>,
    /// Sections that could not be drawn, and why.
    pub absent: BTreeMap<&'static str, String>,
}

/// A part of the page.
pub(crate) struct Section {
    pub(crate) anchor: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) explanation: String,
    /// The HTML, or why there is none.
    pub(crate) body: Result<String, String>,
}

/// The page's HTML, and its figures.
pub fn page(findings: &Findings<'_>) -> (String, Summary) {
    let rows: Vec<&Row> = findings.data.map_or_else(Vec::new, |data| {
        data.rows.iter().filter(|row| row.is_sound()).collect()
    });
    let machine = findings
        .data
        .map(|data| &data.manifest.machine)
        .or(findings.machine);
    let study = tiles::study(&rows);
    let sections = vec![
        accuracy::agreement(findings),
        accuracy::by_size(findings),
        accuracy::fitted(findings.fit),
        regret::section(findings.choices),
        importance::section(findings.fit),
        correlation::heat(&rows, machine),
        tiles::section(&rows, study.as_ref()),
        resources::section(&rows),
        resources::layouts(&rows),
        roofline::roofline(&rows, machine),
        time_energy::section(&rows),
    ];
    let summary = summary(findings, &rows, machine, study, &sections);
    (assembled(findings, &summary, &sections), summary)
}

fn summary(
    findings: &Findings<'_>,
    rows: &[&Row],
    machine: Option<&Machine>,
    tiles: Option<TileStudy>,
    sections: &[Section],
) -> Summary {
    let mut marks = BTreeMap::new();
    for mark in findings
        .data
        .iter()
        .flat_map(|data| &data.rows)
        .filter_map(|row| row.mark)
    {
        let name = serde_json::to_value(mark).ok();
        let name = name.and_then(|name| name.as_str().map(str::to_owned));
        *marks.entry(name.unwrap_or_default()).or_default() += 1;
    }
    let mut kernels = BTreeMap::new();
    for row in rows {
        *kernels.entry(row.kernel.clone()).or_default() += 1;
    }
    let absent = sections
        .iter()
        .filter_map(|section| Some((section.anchor, section.body.as_ref().err()?.clone())));
    Summary {
        machine: machine.map_or_else(String::new, |machine| machine.name.clone()),
        rows: findings.data.map_or(0, |data| data.rows.len()),
        sound_rows: rows.len(),
        energy_rows: rows.iter().filter(|row| row.energy_j.is_some()).count(),
        marks,
        kernels,
        held_out: accuracy::scores(findings),
        tiles,
        regret: regret::summaries(findings.choices),
        absent: absent.collect(),
    }
}

fn assembled(findings: &Findings<'_>, summary: &Summary, sections: &[Section]) -> String {
    let title = format!("Matrix products on {}", summary.machine);
    let manifest = findings.data.map(|data| &data.manifest);
    let contents: Vec<_> = sections
        .iter()
        .map(|section| (section.anchor, section.heading))
        .collect();
    let mut page = Page::new(&title)
        .facts(&facts(manifest, summary))
        .contents(&contents);
    for section in sections {
        let body = match &section.body {
            Ok(body) => body.clone(),
            Err(reason) => absent(reason),
        };
        page = page.section(section.anchor, section.heading, &section.explanation, &body);
    }
    page.html()
}

fn facts(manifest: Option<&Manifest>, summary: &Summary) -> Vec<(&'static str, String)> {
    let mut facts = vec![("machine", summary.machine.clone())];
    let Some(manifest) = manifest else {
        return facts;
    };
    let machine = &manifest.machine;
    facts.push((
        "ceilings",
        format!(
            "{} read, {} of 8-bit integers, {} of 16-bit and {} of 32-bit floats",
            quantity(machine.read_bytes_per_s, "B/s"),
            quantity(machine.int8_ops_per_s, "OPS"),
            quantity(machine.half_ops_per_s, "FLOPS"),
            quantity(machine.float_ops_per_s, "FLOPS"),
        ),
    ));
    let power = [("idle", machine.idle_power_w), ("limit", machine.power_limit_w)];
    let power: Vec<_> = power
        .iter()
        .filter_map(|(name, watts)| Some(format!("{name} {}", quantity((*watts)?, "W"))))
        .collect();
    facts.push(("power", power.join(", ")));
    let marked: usize = summary.marks.values().sum();
    let marks: Vec<_> = summary
        .marks
        .iter()
        .map(|(mark, count)| format!("{count} {mark}"))
        .collect();
    facts.push((
        "rows",
        format!(
            "{} measured; {} verified, timed and drawn, {} of them with energy{}",
            summary.rows,
            summary.sound_rows,
            summary.energy_rows,
            if marked > 0 {
                format!("; marked and left out: {}", marks.join(", "))
            } else {
                String::new()
            }
        ),
    ));
    facts.extend([
        ("date", manifest.date.clone()),
        ("driver", manifest.driver.clone()),
        ("version", manifest.version.clone()),
        ("method", manifest.method.clone()),
        ("operands", manifest.operands.clone()),
    ]);
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// How a row's configuration is called when it is pointed at.
pub(crate) fn called(row: &Row) -> String {
    let mut name = row.kernel.clone();
    if !row.config.is_empty() {
        name += &format!(" {}", row.config);
    }
    format!("{name}, {} x {} x {} {}", row.m, row.n, row.k, row.layout)
}

/// Kernels in the order of their first letters with a series for each; those beyond the last series share it.
pub(crate) fn kernel_series(rows: &[&Row]) -> Vec<(Series, String)> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.kernel.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| (Series(index), name.to_owned()))
        .collect()
}
