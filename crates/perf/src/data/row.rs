//! One measured configuration: a kernel in one size on one product, what it was and what it took.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::product::{LONGEST_SIDE, Operands, Product};
use crate::roofline::peak;

/// Which operands are stored transposed. The first letter is A's, the second B's; the project's own products are `NT`:
/// `A[M,K]` row by row times `B[N,K]` row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Layout {
    /// `A[M,K]`, `B[K,N]`.
    Nn,
    /// `A[M,K]`, `B[N,K]`.
    Nt,
    /// `A[K,M]`, `B[K,N]`.
    Tn,
    /// `A[K,M]`, `B[N,K]`.
    Tt,
}

impl Layout {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Nn, Self::Nt, Self::Tn, Self::Tt];
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nn => "NN",
            Self::Nt => "NT",
            Self::Tn => "TN",
            Self::Tt => "TT",
        })
    }
}

/// Which tiles of a GPU kernel are cut along K, so that all multiprocessors share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cut {
    /// None.
    Whole,
    /// Those of the last, incomplete round.
    Tail,
    /// All.
    All,
}

/// Why a row must not be learned from; most rows have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// The product was wrong. Its time says nothing.
    Wrong,
    /// Too short for the clock that measured it.
    BelowResolution,
    /// Repetitions differ by more than the protocol allows.
    Unsteady,
    /// It does not fit the machine's memory, or the time left.
    NotRun,
}

/// What a configuration's numbers may be at most: far beyond any kernel's.
const MOST_SIZE: f64 = 65_536.0;
const MOST_COUNT: f64 = 4_294_967_296.0;
/// Times a machine's measured peak that a row may state: a peak can have been measured in a bad moment.
const RATES_OF_PEAK: f64 = 10.0;
/// What a measurement may be, least and most.
const SECONDS: (f64, f64) = (1e-9, 1e5);
const WATTS: (f64, f64) = (1e-3, 1e5);
const JOULES: (f64, f64) = (1e-12, 1e9);
const HERTZ: (f64, f64) = (1e3, 1e11);
const CELSIUS: (f64, f64) = (-50.0, 200.0);
/// Quartiles are interpolated, so equal ones differ by rounding.
const ROUNDING: f64 = 1e-9;
/// Products inside a region of energy may take so many times longer, or shorter, than those that were timed.
const MOST_DRIFT: f64 = 4.0;

/// Regions are whole ticks of a counter; those of one length differ by its jitter.
const LONGER: f64 = 1.2;

/// One measured configuration. Units end the names; an empty field means that nothing was measured.
///
/// Numbers of a configuration that a kernel does not have are 0 (a library's tile, a CPU kernel's registers).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `op_types_arch`, as everywhere: `gemm_w4a8_sm90`, `cublas_bf16`, `sgemm_tiled`, `gemm_w4a8_avx2`.
    pub kernel: String,
    /// The kernel's size, as its own `Display` writes it; empty for a library's.
    pub config: String,
    /// Tokens.
    pub m: usize,
    /// Output features.
    pub n: usize,
    /// Reduction.
    pub k: usize,
    /// Columns that share a group scale; 0 where there are no group scales (or one a row).
    pub group_size: usize,
    /// Storage of the operands.
    pub layout: Layout,
    /// Factor of the product.
    pub alpha: f64,
    /// Factor of what was in D.
    pub beta: f64,
    /// Type of D: `f32`, `f16`, `bf16`, `i32`.
    pub output: String,
    /// Tokens of a tile.
    pub tile_m: usize,
    /// Output features of a tile.
    pub tile_n: usize,
    /// Columns of K of a step.
    pub tile_k: usize,
    /// Slots of the shared-memory ring.
    pub stages: usize,
    /// Threads of a CTA; worker threads on a CPU.
    pub threads: usize,
    /// CTAs of a cluster.
    pub cluster: usize,
    /// CTAs (or warp groups) that share a tile's K by design.
    pub split_k: usize,
    /// Which tiles are cut along K besides.
    pub cut: Cut,
    /// CTAs launched.
    pub ctas: usize,
    /// CTAs a multiprocessor holds at once, as the driver counts it.
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
    /// Why the row must not be learned from.
    pub mark: Option<Mark>,
    /// Median seconds a product.
    pub time_s: Option<f64>,
    /// Lower quartile.
    pub time_q1_s: Option<f64>,
    /// Upper quartile.
    pub time_q3_s: Option<f64>,
    /// Timed repetitions.
    pub runs: usize,
    /// Mean power of the machine while the product ran over and over, idle power included.
    pub power_w: Option<f64>,
    /// Energy of one product: `power_w` times the seconds of one product inside the energy region.
    pub energy_j: Option<f64>,
    /// Length of the region whose energy was read.
    pub energy_window_s: Option<f64>,
    /// Products in that region.
    pub energy_runs: usize,
    /// Clock of the multiprocessors at the end of the region (of energy, else of time).
    pub sm_clock_hz: Option<f64>,
    /// Clock of the memory.
    pub memory_clock_hz: Option<f64>,
    /// Temperature of the chip.
    pub temperature_c: Option<f64>,
    /// The driver's throttle bits at the end of the region.
    pub throttle_reasons: Option<u64>,
}

impl Row {
    /// Operations of the product, multiply and add counted apart.
    pub fn ops(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }

    /// Whether two rows measured the same thing: every field that was chosen, none that was measured.
    pub fn same_configuration(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    /// What identifies the configuration inside one machine's set.
    pub fn key(&self) -> String {
        format!(
            "{}|{}|{}x{}x{}|g{}|{:?}|{}|{}|{}|t{}",
            self.kernel,
            self.config,
            self.m,
            self.n,
            self.k,
            self.group_size,
            self.layout,
            self.alpha,
            self.beta,
            self.output,
            self.threads
        )
    }

    /// Whether the row tells more than another of its configuration: a sound time before a marked one, then energy, then
    /// energy over a clearly longer region.
    pub fn is_better_than(&self, other: &Self) -> bool {
        match (self.is_sound(), other.is_sound()) {
            (true, true) | (false, false) => {
                self.energy_window_s.unwrap_or(0.0) > LONGER * other.energy_window_s.unwrap_or(0.0)
            }
            (is_sound, _) => is_sound,
        }
    }

    /// Whether a model may learn the row's time.
    pub fn is_sound(&self) -> bool {
        self.mark.is_none() && !self.verified.is_empty() && self.time_s.is_some_and(|time| time > 0.0)
    }

    /// Refuses a row that no measurement can have: every number finite and in its range, quartiles around their median, energy
    /// that is power times time, and a check and a time, or a mark that says why there are none.
    ///
    /// # Errors
    /// The column, what it holds and what it may.
    pub fn check(&self) -> Result<(), String> {
        self.check_sizes()?;
        self.check_numbers()?;
        self.check_time()?;
        self.check_energy()?;
        let is_whole = !self.verified.is_empty() && self.time_s.is_some();
        match is_whole || self.mark.is_some() {
            true => Ok(()),
            false => Err(
                "neither checked and timed (verified, time_s) nor marked with the reason why not (mark)"
                    .to_owned(),
            ),
        }
    }

    /// Refuses a time in which the machine that measured cannot have done it.
    ///
    /// # Errors
    /// What the row says, and what the machine can.
    pub fn check_rate(&self, machine: &Machine) -> Result<(), String> {
        let (Some(time_s), Ok(operands)) = (self.time_s, Operands::of_kernel(&self.kernel)) else {
            return Ok(());
        };
        let rate = Product::of_row(self).ops() / time_s;
        let most = RATES_OF_PEAK * peak(operands.unit, machine);
        match rate <= most {
            true => Ok(()),
            false => Err(format!(
                "time_s is {time_s:e}: {rate:.3e} operations a second, expected at most {most:.3e}"
            )),
        }
    }

    fn check_sizes(&self) -> Result<(), String> {
        for (column, side) in [("m", self.m), ("n", self.n), ("k", self.k)] {
            within(column, side as f64, (1.0, LONGEST_SIDE as f64))?;
        }
        let sizes = [
            ("group_size", self.group_size),
            ("tile_m", self.tile_m),
            ("tile_n", self.tile_n),
            ("tile_k", self.tile_k),
            ("stages", self.stages),
            ("threads", self.threads),
            ("cluster", self.cluster),
            ("split_k", self.split_k),
            ("ctas_per_sm", self.ctas_per_sm),
            ("registers", self.registers),
        ];
        for (column, size) in sizes {
            within(column, size as f64, (0.0, MOST_SIZE))?;
        }
        let counts = [
            ("ctas", self.ctas),
            ("shared_bytes", self.shared_bytes),
            ("runs", self.runs),
            ("energy_runs", self.energy_runs),
        ];
        for (column, count) in counts {
            within(column, count as f64, (0.0, MOST_COUNT))?;
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), String> {
        within("alpha", self.alpha, (-f64::MAX, f64::MAX))?;
        within("beta", self.beta, (-f64::MAX, f64::MAX))?;
        within("occupancy", self.occupancy, (0.0, 1.0))?;
        within("waves", self.waves, (0.0, MOST_COUNT))?;
        let measured = [
            ("time_s", self.time_s, SECONDS),
            ("time_q1_s", self.time_q1_s, SECONDS),
            ("time_q3_s", self.time_q3_s, SECONDS),
            ("power_w", self.power_w, WATTS),
            ("energy_j", self.energy_j, JOULES),
            ("energy_window_s", self.energy_window_s, SECONDS),
            ("sm_clock_hz", self.sm_clock_hz, HERTZ),
            ("memory_clock_hz", self.memory_clock_hz, HERTZ),
            ("temperature_c", self.temperature_c, CELSIUS),
        ];
        for (column, value, range) in measured {
            value.map_or(Ok(()), |value| within(column, value, range))?;
        }
        Ok(())
    }

    fn check_time(&self) -> Result<(), String> {
        match (self.time_q1_s, self.time_s, self.time_q3_s) {
            (None, None, None) => Ok(()),
            (Some(q1), Some(median), Some(q3)) => {
                within("time_s", median, (q1 * (1.0 - ROUNDING), q3 * (1.0 + ROUNDING)))
            }
            _ => Err("time_s, time_q1_s and time_q3_s: expected all of them, or none".to_owned()),
        }
    }

    fn check_energy(&self) -> Result<(), String> {
        let (Some(power_w), Some(energy_j)) = (self.power_w, self.energy_j) else {
            return match self.power_w.is_none() && self.energy_j.is_none() {
                true => Ok(()),
                false => Err("power_w and energy_j: expected both, or none".to_owned()),
            };
        };
        let Some(time_s) = self.time_s else {
            return Ok(());
        };
        let expected_j = power_w * time_s;
        within(
            "energy_j (which is power_w times a product's time)",
            energy_j,
            (expected_j / MOST_DRIFT, expected_j * MOST_DRIFT),
        )
    }
}

/// Refuses what is no number, or lies outside what both ends allow.
fn within(column: &str, value: f64, (least, most): (f64, f64)) -> Result<(), String> {
    match value >= least && value <= most {
        true => Ok(()),
        false => Err(format!("{column} is {value}, expected {least} to {most}")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sound row with everything a card shows.
    pub fn row() -> Row {
        Row {
            kernel: "gemm_w4a8_sm90".to_owned(),
            config: "m64n128".to_owned(),
            m: 16,
            n: 4_096,
            k: 4_096,
            group_size: 128,
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
            mark: None,
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

    #[test]
    fn one_corrupt_number_is_told_by_its_column() {
        assert_eq!(row().check(), Ok(()));
        type Corrupt = fn(&mut Row);
        let cases: [(&str, Corrupt); 17] = [
            ("m is 0", |row| row.m = 0),
            ("k is", |row| row.k = usize::MAX),
            ("tile_m", |row| row.tile_m = 100_000_000_000_000),
            ("alpha", |row| row.alpha = f64::NAN),
            ("occupancy", |row| row.occupancy = 1.5),
            ("waves", |row| row.waves = f64::INFINITY),
            ("time_s", |row| row.time_s = Some(-1e-5)),
            ("time_s", |row| row.time_s = Some(f64::NAN)),
            ("time_s", |row| row.time_s = Some(1e30)),
            // In range, and yet not between its quartiles.
            ("time_s", |row| row.time_s = Some(1.0)),
            ("time_q3_s", |row| row.time_q3_s = None),
            ("power_w", |row| row.power_w = Some(0.0)),
            ("power_w", |row| row.power_w = Some(-5.0)),
            ("power_w", |row| row.power_w = None),
            ("energy_j", |row| row.energy_j = Some(-1.0)),
            ("energy_j", |row| row.energy_j = Some(1.0)),
            ("temperature_c", |row| row.temperature_c = Some(1e9)),
        ];
        for (column, corrupt) in cases {
            let mut row = row();
            corrupt(&mut row);
            let what = row.check().unwrap_err();
            assert!(what.contains(column), "{column}: {what}");
        }
    }

    #[test]
    fn row_without_a_time_says_why() {
        let untimed = Row {
            time_s: None,
            time_q1_s: None,
            time_q3_s: None,
            power_w: None,
            energy_j: None,
            ..row()
        };
        assert!(untimed.check().unwrap_err().contains("mark"));
        let marked = Row {
            mark: Some(Mark::NotRun),
            verified: String::new(),
            ..untimed
        };
        assert_eq!(marked.check(), Ok(()));
        let unchecked = Row {
            verified: String::new(),
            ..row()
        };
        assert!(unchecked.check().unwrap_err().contains("verified"));
    }
}
