//! The machine a set was measured on, as the manifest beside the rows states it.

use serde::{Deserialize, Serialize};

use crate::small_ops::SmallOpRates;

/// How rows are measured; a change of method raises it. Folders of different protocols are merged only as `merge` says.
///
/// 2: where a card is at its power limit, energy is measured over 10 movements of the counter instead of 2 (or what was asked
/// for), because the limiter swings once a second. Times are taken as by 1, and each row's `energy_window_s` tells.
pub const PROTOCOL: u32 = 2;
/// The oldest one whose rows are read.
pub const OLDEST_PROTOCOL: u32 = 1;

/// What kind of machine runs the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineKind {
    /// The processor's cores.
    Cpu,
    /// One NVIDIA GPU.
    Gpu,
}

/// What a prediction may know of a machine: its ceilings, measured where they can be.
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
    /// Last cache that all units share.
    pub cache_bytes: usize,
    /// Memory.
    pub memory_bytes: usize,
    /// Shared memory one block of a GPU may use; 0 on a CPU.
    pub shared_bytes: usize,
    /// Compute capability of a GPU, major times 10 plus minor; 0 on a CPU.
    pub capability: u32,
    /// Operations a second at best, multiply and add counted apart: 8-bit integers, measured.
    pub int8_ops_per_s: f64,
    /// The same for 16-bit floats.
    pub half_ops_per_s: f64,
    /// The same for 32-bit floats.
    pub float_ops_per_s: f64,
    /// What the machine draws when idle, where a counter shows it.
    pub idle_power_w: Option<f64>,
    /// What the machine may draw.
    pub power_limit_w: Option<f64>,
    /// What a language model's operations between products reach, where `profile` measures them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub small_ops: Option<SmallOpRates>,
}

/// What stands in `manifest.json` beside the rows: how, where and with what they were measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`PROTOCOL`] of the rows.
    pub protocol: u32,
    /// The machine.
    pub machine: Machine,
    /// Driver, compiler and libraries, in words.
    pub driver: String,
    /// `git describe` of the program that measured.
    pub version: String,
    /// Day of the first row, `YYYY-MM-DD`.
    pub date: String,
    /// How times, power and energy were taken, in words, with the counter's tick and the window.
    pub method: String,
    /// How operands were drawn.
    pub operands: String,
}
