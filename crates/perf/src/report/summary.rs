//! The figures of a report, as `report --json` prints them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::findings::Findings;
use super::section::Section;
use super::sections::{ChoiceSummary, accuracy, regret};
use super::tile_study::TileStudy;
use crate::data::Row;
use crate::machine::Machine;
use crate::predict::Score;

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
    #[serde(rename = "marks")]
    pub flags: BTreeMap<String, usize>,
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

pub(crate) fn summarize(
    findings: &Findings<'_>,
    rows: &[&Row],
    machine: Option<&Machine>,
    tiles: Option<TileStudy>,
    sections: &[Section],
) -> Summary {
    let mut flags = BTreeMap::new();
    for flag in findings
        .data
        .iter()
        .flat_map(|data| &data.rows)
        .filter_map(|row| row.flag)
    {
        let name = serde_json::to_value(flag).ok();
        let name = name.and_then(|name| name.as_str().map(str::to_owned));
        *flags.entry(name.unwrap_or_default()).or_default() += 1;
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
        flags,
        kernels,
        held_out: accuracy::scores(findings),
        tiles,
        regret: regret::summaries(findings.choices),
        absent: absent.collect(),
    }
}
