//! What `profile` and `profile merge` take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::arguments::values::{Replacing, budget, count, number, shard};

/// Options of `profile`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub struct Profile {
    /// Something other than measuring.
    #[command(subcommand)]
    pub action: Option<ProfileAction>,
    /// Where to measure: cpu, or a card as cuda:0.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Kernels whose names begin so, separated by commas (gemm_w4a8, cublas, sgemm_tiled) [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub kernels: Vec<String>,
    /// What to measure, as JSON (shapes, ranges, numbers) [default: real models' shapes and a sample].
    #[arg(long, value_name = "FILE")]
    pub space: Option<PathBuf>,
    /// Folder for rows.csv and manifest.json.
    #[arg(long, default_value = "profile", value_name = "DIR")]
    pub out: PathBuf,
    /// Folders of the same machine, separated by commas: what they hold is not measured again, but for energy that they lack
    /// (merge puts both together).
    #[arg(long, value_delimiter = ',', value_name = "DIRS")]
    pub known: Vec<PathBuf>,
    /// Share of the rows whose energy is measured; of rows that are there without it, too [default: the space's].
    #[arg(long, value_name = "SHARE", value_parser = |text: &str| number(text, 0.0, 1.0))]
    pub energy_share: Option<f64>,
    /// End after this time (90s, 20m, 2h), between two rows.
    #[arg(long, value_name = "TIME", value_parser = budget)]
    pub budget: Option<Duration>,
    /// Go on with a folder that has rows; what it holds is not measured again, but for energy that it lacks.
    #[arg(long)]
    pub resume: bool,
    /// Measure one part of several: 0/2 on one machine, 1/2 on another of its kind.
    #[arg(long, default_value = "0/1", value_name = "PART/PARTS", value_parser = shard)]
    pub shard: (usize, usize),
    /// Movements of the energy counter that a region of energy lasts; at a card's power limit it lasts 10.
    #[arg(long, default_value_t = 2, value_name = "COUNT", value_parser = count(1, 1000))]
    pub ticks: usize,
    /// Measure nothing but how true the energy counter is, and write that to a CSV file.
    #[arg(long, value_name = "FILE")]
    pub check_energy: Option<PathBuf>,
    /// What may be written over.
    #[command(flatten)]
    pub replacing: Replacing,
}

/// What `profile` does besides measuring.
#[derive(Debug, Subcommand)]
pub enum ProfileAction {
    /// Put folders of rows together: shards, or further runs on machines of the same kind.
    #[command(after_help = "Example:\n  dualgrain profile merge shard0 shard1 --out h200")]
    Merge(ProfileMerge),
}

/// Options of `profile merge`.
#[derive(Debug, Args)]
pub struct ProfileMerge {
    /// Folders that `profile` wrote.
    #[arg(required = true, value_name = "DIRS")]
    pub folders: Vec<PathBuf>,
    /// New folder for all rows.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Leave out rows of kernels, or kernel/config, that begin so, separated by commas (gemm_w4a8_sm90/m16n448).
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub without: Vec<String>,
}
