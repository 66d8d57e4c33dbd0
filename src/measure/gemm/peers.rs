//! `bench gemm --peers FILE`: how the chosen configurations stand against kernels timed elsewhere, another day.
//!
//! The file has the columns shape, m, bf16_us and any number of others that end in _us. Days and cards are bridged by
//! cuBLAS: (peer / bf16) of the file over (ours / bf16) of the run; above 1 ours is faster.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use dualgrain::format::text::read_text;

use crate::cli::columns::Columns;
use crate::cli::table::table;

/// The column everything is divided by.
const BRIDGE: &str = "bf16_us";

/// One chosen configuration of the run.
pub struct Ours<'a> {
    /// Name of the shape.
    pub shape: &'a str,
    /// Tokens.
    pub m: usize,
    /// Seconds.
    pub time_s: f64,
    /// Seconds of cuBLAS bf16 in the same run.
    pub bf16_s: f64,
}

/// Times of a file: (shape, m) and then seconds by column.
pub struct Peers {
    columns: Vec<String>,
    cells: BTreeMap<(String, usize), BTreeMap<String, f64>>,
}

impl Peers {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let file = Columns::parse(text)?;
        let (shape, m) = (file.place("shape")?, file.place("m")?);
        file.place(BRIDGE)?;
        let mut cells = BTreeMap::new();
        for fields in &file.rows {
            // A kernel that does not run a shape has an empty cell.
            let times = file.header.iter().zip(fields).filter_map(|(column, field)| {
                let micros: f64 = field.parse().ok()?;
                (column.ends_with("_us") && micros > 0.0).then(|| ((*column).to_owned(), micros * 1e-6))
            });
            let tokens: usize = fields[m]
                .parse()
                .with_context(|| format!("{}: m", fields.join(",")))?;
            cells.insert((fields[shape].to_owned(), tokens), times.collect());
        }
        let others = file.header.iter().filter(|c| c.ends_with("_us") && **c != BRIDGE);
        Ok(Self {
            columns: others.map(|column| (*column).to_owned()).collect(),
            cells,
        })
    }

    /// (peer / bf16) over (ours / bf16), and the plain peer / ours; `None` where the file has no such cell.
    fn ratios(&self, column: &str, ours: &Ours<'_>) -> Option<(f64, f64)> {
        let cell = self.cells.get(&(ours.shape.to_owned(), ours.m))?;
        let (peer_s, bf16_s) = (cell.get(column)?, cell.get(BRIDGE)?);
        Some((
            (peer_s / bf16_s) / (ours.time_s / ours.bf16_s),
            peer_s / ours.time_s,
        ))
    }

    /// A table: for each number of tokens and peer the geometric mean, the worst cell and the plain mean.
    pub fn text(&self, ours: &[Ours<'_>]) -> String {
        let mut tokens: Vec<usize> = ours.iter().map(|cell| cell.m).collect();
        tokens.sort_unstable();
        tokens.dedup();
        let mut rows = Vec::new();
        for m in tokens {
            for column in &self.columns {
                let cells = ours.iter().filter(|cell| cell.m == m);
                let ratios: Vec<_> = cells
                    .filter_map(|cell| Some((self.ratios(column, cell)?, cell.shape)))
                    .collect();
                let Some(worst) = ratios.iter().min_by(|a, b| a.0.0.total_cmp(&b.0.0)) else {
                    continue;
                };
                rows.push(vec![
                    m.to_string(),
                    column.trim_end_matches("_us").to_owned(),
                    ratios.len().to_string(),
                    format!("{:.2}", mean(ratios.iter().map(|(ratio, _)| ratio.0))),
                    format!("{:.2}", worst.0.0),
                    worst.1.to_owned(),
                    format!("{:.2}", mean(ratios.iter().map(|(ratio, _)| ratio.1))),
                ]);
            }
        }
        table(
            &["m", "peer", "cells", "x faster", "worst", "where", "plain"],
            &rows,
        )
    }
}

/// Geometric mean.
fn mean(ratios: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = ratios.clone().count().max(1) as f64;
    (ratios.map(f64::ln).sum::<f64>() / count).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "shape,m,n,k,bf16_us,fast_us,slow_us\nA,1,8,8,20,10,40\nB,1,8,8,20,5,\n";

    #[test]
    fn another_card_is_bridged_by_cublas() {
        let peers = Peers::parse(FILE).unwrap();
        // Everything takes twice as long here: as fast as `fast`, half as slow as it seems.
        let ours = Ours {
            shape: "A",
            m: 1,
            time_s: 20e-6,
            bf16_s: 40e-6,
        };
        let (bridged, plain) = peers.ratios("fast_us", &ours).unwrap();
        assert!((bridged - 1.0).abs() < 1e-12 && (plain - 0.5).abs() < 1e-12);
    }

    #[test]
    fn missing_cells_are_left_out_of_the_mean() {
        let peers = Peers::parse(FILE).unwrap();
        let ours = ["A", "B", "C"].map(|shape| Ours {
            shape,
            m: 1,
            time_s: 10e-6,
            bf16_s: 20e-6,
        });
        let text = peers.text(&ours);
        let row = |peer: &str| {
            let line = text.lines().skip(2).find(|line| line.contains(peer)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("fast"), ["1", "fast", "2", "0.71", "0.50", "B", "0.71"]);
        assert_eq!(row("slow"), ["1", "slow", "1", "4.00", "4.00", "A", "4.00"]);
    }

    #[test]
    fn broken_files_are_refused_with_the_line() {
        assert!(Peers::parse("").is_err());
        assert!(Peers::parse("shape,m\nA,1\n").is_err());
        let error = Peers::parse("shape,m,bf16_us\nA,1\n").err().unwrap();
        assert!(error.to_string().contains("A,1"), "{error}");
    }
}
