//! One row: one measured configuration, that is a kernel in one size on one product, with what it is and what it took.

use dualgrain_format::GroupSize;
use serde::{Deserialize, Serialize};

use crate::group_number;
use crate::product::{Layout, Product, ops};

/// An energy window is a number of ticks of a counter, and windows of equally many ticks differ by the jitter of the counter. Only
/// a window longer than another by this factor counts as longer.
const LONGER: f64 = 1.2;

/// Which tiles of a GPU kernel are cut along K, so that all multiprocessors share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// No tile.
    Whole,
    /// The tiles of the last, incomplete round.
    Tail,
    /// Every tile.
    All,
}

/// Why a row must not be learned from. Most rows have no flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QualityFlag {
    /// The product was wrong. Its time says nothing.
    Wrong,
    /// The repetitions were too short for the clock.
    BelowResolution,
    /// The repetitions differ by more than the protocol allows.
    Unsteady,
    /// The product does not fit the memory of the machine, or the time that was left.
    NotRun,
}

/// One measured configuration. Names end with their unit. An empty field means that nothing was measured. A number that a
/// kernel does not have is 0, as the tile of a library or the registers of a CPU kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The kernel, `op_types_arch`: `gemm_w4a8_sm90`, `cublas_bf16`, `sgemm_tiled`, `gemm_w4a8_avx2`.
    pub kernel: String,
    /// The configuration of the kernel, as its `Display` writes it; empty for a library.
    pub config: String,
    /// Tokens.
    pub m: usize,
    /// Output features.
    pub n: usize,
    /// Reduction.
    pub k: usize,
    /// Columns that share a group scale; the whole row where a kernel has no group scales. A file holds its number.
    #[serde(with = "group_number")]
    pub group_size: GroupSize,
    /// How the operands are stored.
    pub layout: Layout,
    /// Factor of the product.
    pub alpha: f64,
    /// Factor of what D held before.
    pub beta: f64,
    /// Type of D: `f32`, `f16`, `bf16`, `i32`.
    pub output: String,
    /// Tokens of a tile.
    pub tile_m: usize,
    /// Output features of a tile.
    pub tile_n: usize,
    /// Columns of K in a step.
    pub tile_k: usize,
    /// Slots of the shared-memory ring.
    pub stages: usize,
    /// Threads of a CTA; worker threads on a CPU.
    pub threads: usize,
    /// CTAs of a cluster.
    pub cluster: usize,
    /// CTAs (or warp groups) that share a tile's K by design.
    pub split_k: usize,
    /// Which tiles are cut along K in addition.
    pub cut: Cut,
    /// CTAs launched.
    pub ctas: usize,
    /// CTAs that a multiprocessor holds at once, as the driver counts them.
    pub ctas_per_sm: usize,
    /// Share of a multiprocessor's threads in use.
    pub occupancy: f64,
    /// Registers of a thread.
    pub registers: usize,
    /// Shared memory of a CTA.
    pub shared_bytes: usize,
    /// Rounds of CTAs: `ctas / (ctas_per_sm * multiprocessors)`.
    pub waves: f64,

    /// How the product was checked before it was timed: `freivalds` or `naive`; empty when it was not.
    pub verified: String,
    /// Why the row must not be learned from: the column `mark`.
    #[serde(rename = "mark")]
    pub flag: Option<QualityFlag>,
    /// Median seconds of a product.
    pub time_s: Option<f64>,
    /// Lower quartile.
    pub time_q1_s: Option<f64>,
    /// Upper quartile.
    pub time_q3_s: Option<f64>,
    /// Timed repetitions.
    pub runs: usize,
    /// Mean power of the machine while the product ran over and over, idle power included.
    pub power_w: Option<f64>,
    /// Energy of one product: `power_w` times the mean seconds of a product inside the energy window.
    pub energy_j: Option<f64>,
    /// Length of the window whose energy was read.
    pub energy_window_s: Option<f64>,
    /// Products in that window.
    pub energy_runs: usize,
    /// Clock of the multiprocessors at the end of the energy window, or of the timing where there is no window.
    pub sm_clock_hz: Option<f64>,
    /// Clock of the memory.
    pub memory_clock_hz: Option<f64>,
    /// Temperature of the chip.
    pub temperature_c: Option<f64>,
    /// The throttle bits of the driver at the same moment.
    pub throttle_reasons: Option<u64>,
}

impl Row {
    /// A row of which nothing is known but the product.
    pub(crate) fn blank(kernel: &str, (m, n, k): (usize, usize, usize)) -> Self {
        Self {
            kernel: kernel.to_owned(),
            config: String::new(),
            m,
            n,
            k,
            group_size: GroupSize::WholeRow,
            layout: Layout::Nt,
            alpha: 1.0,
            beta: 0.0,
            output: String::new(),
            tile_m: 0,
            tile_n: 0,
            tile_k: 0,
            stages: 0,
            threads: 0,
            cluster: 0,
            split_k: 0,
            cut: Cut::Whole,
            ctas: 0,
            ctas_per_sm: 0,
            occupancy: 0.0,
            registers: 0,
            shared_bytes: 0,
            waves: 0.0,
            verified: String::new(),
            flag: None,
            time_s: None,
            time_q1_s: None,
            time_q3_s: None,
            runs: 0,
            power_w: None,
            energy_j: None,
            energy_window_s: None,
            energy_runs: 0,
            sm_clock_hz: None,
            memory_clock_hz: None,
            temperature_c: None,
            throttle_reasons: None,
        }
    }

    /// The product that was measured.
    pub fn product(&self) -> Product<'_> {
        Product {
            m: self.m,
            n: self.n,
            k: self.k,
            group_size: self.group_size,
            layout: self.layout,
            alpha: self.alpha,
            beta: self.beta,
            output: &self.output,
        }
    }

    /// Operations of the product; a multiplication and an addition count as two.
    pub fn ops(&self) -> f64 {
        ops((self.m, self.n, self.k))
    }

    /// Whether two rows measured the same configuration: all fields that were chosen are equal, whatever was measured.
    pub fn same_configuration(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    /// The text that identifies the configuration within the set of one machine.
    pub fn key(&self) -> String {
        format!(
            "{}|{}|{}x{}x{}|g{}|{:?}|{}|{}|{}|t{}",
            self.kernel,
            self.config,
            self.m,
            self.n,
            self.k,
            group_number::of(self.group_size),
            self.layout,
            self.alpha,
            self.beta,
            self.output,
            self.threads
        )
    }

    /// Whether the row tells more than another row of its configuration: a sound time comes first, then energy, then energy
    /// over a clearly longer window.
    pub fn is_better_than(&self, other: &Self) -> bool {
        match (self.is_sound(), other.is_sound()) {
            (true, true) | (false, false) => {
                self.energy_window_s.unwrap_or(0.0) > LONGER * other.energy_window_s.unwrap_or(0.0)
            }
            (is_sound, _) => is_sound,
        }
    }

    /// Whether a model may learn from the row.
    pub fn is_sound(&self) -> bool {
        self.flag.is_none() && !self.verified.is_empty() && self.time_s.is_some_and(|time| time > 0.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sound row with everything a card shows.
    pub fn sound_row() -> Row {
        Row {
            kernel: "gemm_w4a8_sm90".to_owned(),
            config: "m64n128".to_owned(),
            m: 16,
            n: 4_096,
            k: 4_096,
            group_size: GroupSize::Along(128),
            layout: Layout::Nt,
            alpha: 1.0,
            beta: 0.0,
            output: "bf16".to_owned(),
            tile_m: 64,
            tile_n: 128,
            tile_k: 128,
            stages: 12,
            threads: 384,
            cluster: 1,
            split_k: 1,
            cut: Cut::Whole,
            ctas: 32,
            ctas_per_sm: 1,
            occupancy: 0.1875,
            registers: 168,
            shared_bytes: 218_344,
            waves: 0.25,
            verified: "freivalds".to_owned(),
            flag: None,
            time_s: Some(1.25e-5),
            time_q1_s: Some(1.2e-5),
            time_q3_s: Some(1.3e-5),
            runs: 9,
            power_w: Some(400.0),
            energy_j: Some(400.0 * 1.25e-5),
            energy_window_s: Some(0.2),
            energy_runs: 16_000,
            sm_clock_hz: Some(1.98e9),
            memory_clock_hz: Some(3.2e9),
            temperature_c: Some(45.0),
            throttle_reasons: Some(4),
        }
    }
}
