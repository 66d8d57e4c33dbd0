//! The manifest of a set: how, where and with what its rows were measured.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// How rows are measured; a change of method raises it. Folders of different protocols are merged only as `merge` says.
///
/// 2: where a card is at its power limit, energy is measured over 10 movements of the counter instead of 2 (or what was asked
/// for), because the limiter swings once a second. Times are taken as by 1, and each row's `energy_window_s` tells.
pub const PROTOCOL: u32 = 2;

/// The oldest one whose rows are read.
pub const OLDEST_PROTOCOL: u32 = 1;

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
