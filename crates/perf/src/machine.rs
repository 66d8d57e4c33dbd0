//! The machine that runs the products, with its ceilings: the rates that no product on it exceeds.

use serde::{Deserialize, Serialize};

use crate::error::PerfError;
use crate::operands::ArithmeticUnit;
use crate::small_ops::SmallOpRates;
use crate::timed_models::TimedModel;

/// What kind of machine runs the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineKind {
    /// The processor's cores.
    Cpu,
    /// One NVIDIA GPU.
    Gpu,
}

/// A machine as a prediction knows it: its ceilings, measured where they can be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor or card, as it names itself: `NVIDIA H200`.
    pub name: String,
    /// CPU or GPU.
    pub kind: MachineKind,
    /// Streaming multiprocessors of a GPU, cores of a CPU.
    pub num_units: usize,
    /// Highest clock of the units.
    pub clock_hz: f64,
    /// Bytes a second read from memory, measured.
    pub read_bytes_per_s: f64,
    /// The last cache level, which all units share.
    #[serde(rename = "cache_bytes")]
    pub last_level_cache_bytes: usize,
    /// Memory.
    pub memory_bytes: usize,
    /// Shared memory that one block of a GPU may use; 0 on a CPU.
    pub shared_bytes: usize,
    /// Compute capability of a GPU, major times 10 plus minor; 0 on a CPU.
    pub capability: u32,
    /// Most operations per second of 8-bit integers, measured; a multiplication and an addition count as two.
    pub int8_ops_per_s: f64,
    /// The same for 16-bit floats.
    pub half_ops_per_s: f64,
    /// The same for 32-bit floats.
    pub float_ops_per_s: f64,
    /// Power of the idle machine, where a counter shows it.
    pub idle_power_w: Option<f64>,
    /// Power that the machine may draw.
    pub power_limit_w: Option<f64>,
    /// Rates of a language model's operations between products, where `profile` measures them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub small_ops: Option<SmallOpRates>,
    /// Models that `profile` ran whole; sets of GPUs, and older ones, have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timed_models: Vec<TimedModel>,
}

impl Machine {
    /// Most operations per second of a unit.
    pub(crate) fn peak_ops_per_s(&self, unit: ArithmeticUnit) -> f64 {
        match unit {
            ArithmeticUnit::Int8 => self.int8_ops_per_s,
            ArithmeticUnit::Half => self.half_ops_per_s,
            ArithmeticUnit::Float => self.float_ops_per_s,
        }
    }

    /// Refuses a machine whose ceilings are not all above 0: predictions divide by them.
    pub(crate) fn check(&self) -> Result<(), PerfError> {
        for (what, got) in [
            ("read_bytes_per_s", self.read_bytes_per_s),
            ("int8_ops_per_s", self.int8_ops_per_s),
            ("half_ops_per_s", self.half_ops_per_s),
            ("float_ops_per_s", self.float_ops_per_s),
            ("clock_hz", self.clock_hz),
            ("num_units", self.num_units as f64),
        ] {
            if !(got.is_finite() && got > 0.0) {
                return Err(PerfError::TooLittle {
                    what: format!("{what} of {} in the manifest", self.name),
                    expected: "a number above 0".to_owned(),
                    got: got.to_string(),
                });
            }
        }
        match self.timed_models.iter().all(TimedModel::is_sound) {
            true => Ok(()),
            false => Err(PerfError::TooLittle {
                what: format!("timed_models of {} in the manifest", self.name),
                expected: "sizes and seconds above 0, the fewest sequences first".to_owned(),
                got: "others".to_owned(),
            }),
        }
    }
}
