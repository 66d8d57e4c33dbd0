//! Choosing by a table that was learned from measurements: for each region of products on a card, the configuration that
//! was predicted to be best. Crate perf writes the text; it is read once, when a card is first asked for.
//!
//! ```text
//! dualgrain-selection 1
//! card 132 NVIDIA H200
//! m 1 2 4 8 ...                    the regions' centres, increasing
//! n 256 362 512 ...
//! k 256 362 512 ...
//! config m1n16k128_v16_d2_x2       numbered from 0 in this order
//! cell 128 1 256 0 0 4 ...         group (0 is one a row), m, n, then a configuration for each k
//! ```
//!
//! Tokens are rounded up to a centre: those just above a tile's height want another tile than those just below. Where N or K
//! lie between two centres, the formula ranks what their cells name (four at most). Every group that occurs has all its cells.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::OnceLock;

use dualgrain_format::GroupSize;
use flate2::read::GzDecoder;
use thiserror::Error;

use super::analytic::Analytic;
use super::candidates::enumerate_all;
use super::cost::Cost as _;
use crate::driver::GpuInfo;
use crate::gemm::kernels::{GemmConfig, TABLE};
use crate::gemm::problem::GemmProblem;

/// Names another table than the one that comes with the program, or `off`.
pub const SELECTION_VARIABLE: &str = "DUALGRAIN_SELECTION";

/// The first line.
const TITLE: &str = "dualgrain-selection 1";
/// Centres along a side, and groups, at most: a damaged file must not take all memory.
const MOST_CENTRES: usize = 64;

/// Tables that come with the program, packed by gzip.
const SHIPPED: [&[u8]; 1] = [include_bytes!("../../../selection/h200.txt.gz")];

/// A text that is no table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("selection table, line {line}: {what}")]
pub struct SelectionError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

/// Configurations by region, for one card.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectionTable {
    card: String,
    num_sms: usize,
    /// Centres of M, N and K.
    centres: [Vec<usize>; 3],
    configs: Vec<GemmConfig>,
    /// By group size: `[m][n][k]` numbers of configurations.
    cells: HashMap<GroupSize, Vec<u16>>,
}

impl SelectionTable {
    /// Reads a table.
    ///
    /// # Errors
    /// A line that does not fit, a configuration this program does not have, a region without one.
    pub fn parse(text: &str) -> Result<Self, SelectionError> {
        let mut table = Self {
            card: String::new(),
            num_sms: 0,
            centres: [const { Vec::new() }; 3],
            configs: Vec::new(),
            cells: HashMap::new(),
        };
        let mut lines = text.lines().enumerate();
        let fail = |line: usize, what: String| SelectionError { line: line + 1, what };
        match lines.next() {
            Some((_, TITLE)) => {}
            other => {
                return Err(fail(
                    0,
                    format!("{:?}, expected {TITLE:?}", other.map_or("", |(_, line)| line)),
                ));
            }
        }
        for (at, line) in lines {
            table.read_line(line).map_err(|what| fail(at, what))?;
        }
        table.check().map_err(|what| fail(text.lines().count(), what))?;
        Ok(table)
    }

    fn read_line(&mut self, line: &str) -> Result<(), String> {
        let (word, rest) = line
            .split_once(' ')
            .ok_or_else(|| format!("{line:?}, expected a word and values"))?;
        match word {
            "card" => {
                let (num_sms, card) = rest
                    .split_once(' ')
                    .ok_or("expected multiprocessors and a name")?;
                (self.num_sms, self.card) = (number(num_sms)?, card.to_owned());
            }
            "m" | "n" | "k" => {
                let centres = rest.split(' ').map(number).collect::<Result<Vec<_>, _>>()?;
                let increasing = centres.windows(2).all(|pair| pair[0] < pair[1]);
                if !self.cells.is_empty() {
                    return Err(format!("centres of {word} behind cells"));
                }
                if !increasing || centres[0] == 0 || centres.len() > MOST_CENTRES {
                    return Err(format!(
                        "centres of {word}: expected at most {MOST_CENTRES}, above 0, increasing"
                    ));
                }
                self.centres[usize::from(word != "m") + usize::from(word == "k")] = centres;
            }
            "config" => self.configs.push(named(rest)?),
            "cell" => self.read_cell(rest)?,
            other => return Err(format!("unknown word {other:?}")),
        }
        Ok(())
    }

    fn read_cell(&mut self, rest: &str) -> Result<(), String> {
        let values = rest.split(' ').map(number).collect::<Result<Vec<_>, _>>()?;
        let [ms, ns, ks] = &self.centres;
        let (Some(&[group, m, n]), Some(chosen)) = (values.first_chunk::<3>(), values.get(3..)) else {
            return Err("expected group, m, n and configurations".to_owned());
        };
        let (Ok(m), Ok(n)) = (ms.binary_search(&m), ns.binary_search(&n)) else {
            return Err(format!("{m}x{n} is no centre"));
        };
        if chosen.len() != ks.len() {
            return Err(format!("{} configurations, expected {}", chosen.len(), ks.len()));
        }
        if let Some(beyond) = chosen.iter().find(|&&number| number >= self.configs.len()) {
            return Err(format!("configuration {beyond} of {}", self.configs.len()));
        }
        let size = ms.len() * ns.len() * ks.len();
        if self.cells.len() >= MOST_CENTRES {
            return Err("too many groups".to_owned());
        }
        let cells = self
            .cells
            .entry(group_of(group))
            .or_insert_with(|| vec![u16::MAX; size]);
        let begin = (m * ns.len() + n) * ks.len();
        for (cell, &number) in cells[begin..].iter_mut().zip(chosen) {
            *cell = number as u16;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.card.is_empty() || self.cells.is_empty() {
            return Err("no card, or no cells".to_owned());
        }
        let incomplete = self.cells.iter().filter(|(_, cells)| cells.contains(&u16::MAX));
        match incomplete.map(|(&group, _)| Self::group_number(group)).min() {
            Some(group) => Err(format!("group {group} has no configuration in some region")),
            None => Ok(()),
        }
    }

    /// The number that stands for a group size in the text: its length, or 0 for one group a row.
    pub fn group_number(group: GroupSize) -> usize {
        match group {
            GroupSize::Along(len) => len,
            GroupSize::WholeRow => 0,
        }
    }

    /// The table in use for a card: that of the environment, else one that comes with the program.
    pub fn of(gpu: &GpuInfo) -> Option<&'static Self> {
        tables().iter().find(|table| table.is_for(gpu))
    }

    /// Whether it was made for a card.
    pub fn is_for(&self, gpu: &GpuInfo) -> bool {
        self.card == gpu.name && self.num_sms == gpu.num_sms
    }

    /// The configurations of the regions around a product, one to four; none for a group the table has not.
    pub fn candidates(&self, problem: &GemmProblem) -> Vec<GemmConfig> {
        let [ms, ns, ks] = &self.centres;
        let mut found = Vec::new();
        let Some(cells) = self.cells.get(&problem.group) else {
            return found;
        };
        let (_, m) = around(ms, problem.shape.m);
        let ((below_n, above_n), (below_k, above_k)) =
            (around(ns, problem.shape.n), around(ks, problem.shape.k));
        for n in [below_n, above_n] {
            for k in [below_k, above_k] {
                let number = cells.get((m * ns.len() + n) * ks.len() + k);
                let config = number.and_then(|&number| self.configs.get(usize::from(number)));
                found.extend(config.filter(|config| !found.contains(*config)).copied());
            }
        }
        found
    }

    /// The best by formula of a product's [`SelectionTable::candidates`] that run it on the card.
    pub fn choose(&self, problem: &GemmProblem, gpu: &GpuInfo) -> Option<GemmConfig> {
        if !self.is_for(gpu) {
            return None;
        }
        let runnable = enumerate_all(problem, gpu);
        let candidates = self.candidates(problem).into_iter();
        let ranked = candidates
            .filter(|config| runnable.contains(config))
            .map(|config| (Analytic.time_s(problem, &config, gpu), config));
        ranked
            .min_by(|left, right| left.0.total_cmp(&right.0))
            .map(|(_, config)| config)
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("{text:?}, expected a whole number"))
}

/// The group size that a number of the text stands for.
fn group_of(number: usize) -> GroupSize {
    match number {
        0 => GroupSize::WholeRow,
        len => GroupSize::Along(len),
    }
}

/// The configuration that writes itself so.
fn named(name: &str) -> Result<GemmConfig, String> {
    let all = TABLE.iter().flat_map(|&variant| {
        let splits = variant.splits().iter();
        splits.map(move |&split| GemmConfig { variant, split })
    });
    let mut all = all.filter(|config| config.to_string() == name);
    all.next()
        .ok_or_else(|| format!("this program has no configuration {name}; make the table again"))
}

/// The places of the centres at both sides of a size; twice the same where it is one of them, or beyond all.
fn around(centres: &[usize], size: usize) -> (usize, usize) {
    let above = centres.partition_point(|&centre| centre < size);
    let last = centres.len().saturating_sub(1);
    match centres.get(above) {
        Some(&centre) if centre > size => (above.saturating_sub(1), above),
        _ => (above.min(last), above.min(last)),
    }
}

/// Tables that come with the program or are named in the environment, read once.
fn tables() -> &'static [SelectionTable] {
    static TABLES: OnceLock<Vec<SelectionTable>> = OnceLock::new();
    TABLES.get_or_init(|| match std::env::var(SELECTION_VARIABLE) {
        Ok(off) if off == "off" => Vec::new(),
        Ok(path) => match std::fs::read_to_string(&path).map_err(|error| error.to_string()) {
            Ok(text) => SelectionTable::parse(&text).map_or_else(
                |error| {
                    eprintln!("{SELECTION_VARIABLE}: {path}: {error}; configurations are chosen by formula");
                    Vec::new()
                },
                |table| vec![table],
            ),
            Err(error) => {
                eprintln!("{SELECTION_VARIABLE}: {path}: {error}; configurations are chosen by formula");
                Vec::new()
            }
        },
        Err(_) => SHIPPED
            .iter()
            .filter_map(|packed| SelectionTable::parse(&unpacked(packed)?).ok())
            .collect(),
    })
}

/// The text of a table that comes with the program.
fn unpacked(packed: &[u8]) -> Option<String> {
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use dualgrain_format::GemmShape;

    use super::*;
    use crate::gemm::problem::Output;

    const TEXT: &str = "dualgrain-selection 1\ncard 132 NVIDIA H200\nm 1 64\nn 1024 8192\nk 4096\n\
        config m1n16k128_v16_d2_x2\nconfig m64n128k128_w2x1_c1_k2\nconfig m64n64k128_w1x1_c1_k1_all\n\
        cell 128 1 1024 0\ncell 128 1 8192 0\ncell 128 64 1024 2\ncell 128 64 8192 1\n";

    fn problem(m: usize, n: usize, k: usize) -> GemmProblem {
        GemmProblem {
            shape: GemmShape { m, n, k },
            group: GroupSize::Along(128),
            output: Output::Bf16,
        }
    }

    #[test]
    fn tokens_round_up_and_the_formula_ranks_what_stands_around_a_product() {
        let table = SelectionTable::parse(TEXT).unwrap();
        let names = |m, n| -> Vec<String> {
            let candidates = table.candidates(&problem(m, n, 4096));
            candidates.iter().map(GemmConfig::to_string).collect()
        };
        assert_eq!(names(1, 4096), ["m1n16k128_v16_d2_x2"]);
        // A strip of one token cannot hold three: they take what 64 take.
        assert_eq!(names(3, 9000), ["m64n128k128_w2x1_c1_k2"]);
        assert_eq!(names(64, 1024), ["m64n64k128_w1x1_c1_k1_all"]);
        let between = ["m64n64k128_w1x1_c1_k1_all", "m64n128k128_w2x1_c1_k2"];
        assert_eq!(names(64, 2000), between);
        let gpu = GpuInfo::h200();
        let among = problem(64, 2000, 4096);
        let cost = |config: &GemmConfig| Analytic.time_s(&among, config, &gpu);
        let chosen = table.choose(&among, &gpu).unwrap();
        assert!(
            table
                .candidates(&among)
                .iter()
                .all(|other| cost(&chosen) <= cost(other))
        );
        let other = GpuInfo {
            num_sms: 114,
            ..GpuInfo::h200()
        };
        assert_eq!(table.choose(&problem(1, 4096, 4096), &other), None);
    }

    #[test]
    fn texts_that_are_no_tables_are_refused_with_their_line() {
        for (from, to, line, words) in [
            ("selection 1", "selection 2", 1, "expected"),
            ("m 1 64", "m 64 1", 3, "increasing"),
            ("m 1 64", "m 0 64", 3, "above 0"),
            ("w2x1_c1_k2", "w9x9_c1_k2", 7, "no configuration"),
            ("cell 128 1 8192 0\n", "", 12, "no configuration in some region"),
            ("8192 1\n", "8192 7\n", 12, "configuration 7 of 3"),
            ("1024 2\n", "1024 2 2\n", 11, "2 configurations, expected 1"),
            ("cell 128 1 1024 0", "cell 128 5 1024 0", 9, "no centre"),
            ("card 132", "card many", 2, "whole number"),
            (
                "cell 128 64 1024 2",
                "m 1\ncell 128 64 1024 2",
                11,
                "behind cells",
            ),
        ] {
            let error = SelectionTable::parse(&TEXT.replacen(from, to, 1)).unwrap_err();
            assert!(error.what.contains(words), "{from} -> {to}: {error}");
            assert!(error.line.abs_diff(line) <= 1, "{from} -> {to}: {error}");
        }
        // Cut anywhere it is an error or a whole table, never a panic.
        (0..TEXT.len()).for_each(|end| drop(SelectionTable::parse(&TEXT[..end])));
    }

    #[test]
    fn shipped_tables_are_whole_and_name_configurations_that_exist() {
        for packed in SHIPPED {
            let table = SelectionTable::parse(&unpacked(packed).unwrap()).unwrap();
            assert!(!table.cells.is_empty());
        }
    }
}
