//! The manifest of a set: how, where and with what its rows were measured.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// The number of the way in which rows are measured. A change of the method raises it.
///
/// Protocol 2 measures energy at a card's power limit over 10 ticks of the counter. Protocol 1 took 2 ticks, or as many as were
/// asked for, there too. The limiter swings once a second, so 2 ticks are too few. Both take times alike.
pub const PROTOCOL: u32 = 2;

/// The oldest protocol whose rows are read.
pub const OLDEST_PROTOCOL: u32 = 1;

/// The contents of `manifest.json`: how, where and with what the rows beside it were measured.
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
    /// How times, power and energy were taken, in words.
    pub method: String,
    /// How operands were drawn.
    pub operands: String,
}
