//! Puts the report together: title, facts, contents, sections.

use super::findings::Findings;
use super::section::Section;
use super::sections::{
    accuracy, correlation, fit_scores, importance, layouts, regret, resources, roofline, tiles, time_energy,
};
use super::summary::{Summary, summarize};
use super::tile_study::study;
use crate::data::{Manifest, Row};
use crate::machine::Machine;
use crate::report::plot::{Document, absent, quantity};

/// The page's HTML, and its figures.
pub fn render(findings: &Findings<'_>) -> (String, Summary) {
    let rows: Vec<&Row> = findings.data.map_or_else(Vec::new, |data| {
        data.rows.iter().filter(|row| row.is_sound()).collect()
    });
    let machine = findings
        .data
        .map(|data| &data.manifest.machine)
        .or(findings.machine);
    let study = study(&rows);
    let sections = vec![
        accuracy::agreement(findings),
        accuracy::by_size(findings),
        fit_scores::fitted(findings.fit),
        regret::section(findings.choices),
        importance::section(findings.fit),
        correlation::heat(&rows, machine),
        tiles::section(&rows, study.as_ref()),
        resources::section(&rows),
        layouts::layouts(&rows),
        roofline::roofline(&rows, machine),
        time_energy::section(&rows),
    ];
    let summary = summarize(findings, &rows, machine, study, &sections);
    (assembled(findings, &summary, &sections), summary)
}

fn assembled(findings: &Findings<'_>, summary: &Summary, sections: &[Section]) -> String {
    let title = format!("Matrix products on {}", summary.machine);
    let manifest = findings.data.map(|data| &data.manifest);
    let contents: Vec<_> = sections
        .iter()
        .map(|section| (section.anchor, section.heading))
        .collect();
    let mut document = Document::new(&title)
        .facts(&facts(manifest, summary))
        .contents(&contents);
    for section in sections {
        let body = match &section.body {
            Ok(body) => body.clone(),
            Err(reason) => absent(reason),
        };
        document = document.section(section.anchor, section.heading, &section.explanation, &body);
    }
    document.html()
}

fn facts(manifest: Option<&Manifest>, summary: &Summary) -> Vec<(&'static str, String)> {
    let mut facts = vec![("machine", summary.machine.clone())];
    let Some(manifest) = manifest else {
        return facts;
    };
    facts.extend([
        ("ceilings", ceilings(&manifest.machine)),
        ("power", power(&manifest.machine)),
        ("rows", rows(summary)),
        ("date", manifest.date.clone()),
        ("driver", manifest.driver.clone()),
        ("version", manifest.version.clone()),
        ("method", manifest.method.clone()),
        ("operands", manifest.operands.clone()),
    ]);
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

fn ceilings(machine: &Machine) -> String {
    format!(
        "{} read, {} of 8-bit integers, {} of 16-bit and {} of 32-bit floats",
        quantity(machine.read_bytes_per_s, "B/s"),
        quantity(machine.int8_ops_per_s, "OPS"),
        quantity(machine.half_ops_per_s, "FLOPS"),
        quantity(machine.float_ops_per_s, "FLOPS"),
    )
}

/// Empty where the machine does not say its power.
fn power(machine: &Machine) -> String {
    let power = [("idle", machine.idle_power_w), ("limit", machine.power_limit_w)];
    let known = power
        .iter()
        .filter_map(|(name, watts)| Some(format!("{name} {}", quantity((*watts)?, "W"))));
    known.collect::<Vec<_>>().join(", ")
}

fn rows(summary: &Summary) -> String {
    let flagged: usize = summary.flags.values().sum();
    let flags = summary
        .flags
        .iter()
        .map(|(flag, count)| format!("{count} {flag}"));
    let left_out = match flagged {
        0 => String::new(),
        _ => format!("; marked and left out: {}", flags.collect::<Vec<_>>().join(", ")),
    };
    format!(
        "{} measured; {} verified, timed and drawn, {} of them with energy{left_out}",
        summary.rows, summary.sound_rows, summary.energy_rows
    )
}
