//! What `fit` and `report` take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::arguments::values::Replacing;

/// Options of `fit`.
#[derive(Debug, Args)]
pub struct Fit {
    /// Folders that `profile` wrote, all of one machine.
    #[arg(value_name = "DATA", required_unless_present = "paper_log")]
    pub data: Vec<PathBuf>,
    /// The model file to write; without it the fit is only judged.
    #[arg(long, value_name = "MODEL")]
    pub out: Option<PathBuf>,
    /// What may be written over.
    #[command(flatten)]
    pub replacing: Replacing,
    /// What learns.
    #[arg(long, value_enum, default_value_t = Learner::Boost)]
    pub learner: Learner,
    /// Seed of everything random; the same seed gives the same file.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Judge by GPPerf's own log and protocol instead (a CSV of its columns).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "out", "hold_out_peers"])]
    pub paper_log: Option<PathBuf>,
    /// Keep the products of a CSV (columns m, n, k, bf16_us) out of the fit and compare with it afterwards.
    #[arg(long, value_name = "FILE")]
    pub hold_out_peers: Option<PathBuf>,
}

/// What learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Learner {
    /// A random forest.
    Forest,
    /// Gradient boosting.
    Boost,
    /// Whichever has the lesser error on shapes it has not seen.
    Best,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Measured sets (folders that `profile` wrote on one machine), a fitted model (a file, or a machine's name), or both.
    #[arg(value_name = "DATA|MODEL", required = true)]
    pub sources: Vec<PathBuf>,
    /// The page to write; it opens without a network.
    #[arg(long, default_value = "report.html", value_name = "FILE")]
    pub out: PathBuf,
    /// What may be written over.
    #[command(flatten)]
    pub replacing: Replacing,
}
