//! Why a device refused a buffer or failed at an operation.

use thiserror::Error;

/// Why a device could not start, refused a buffer or failed at an operation.
#[derive(Debug, Clone, Error, PartialEq)]
pub enum DeviceError {
    /// A buffer does not have the length its shape asks for.
    #[error("{what} on {device}: expected {expected} elements, got {got}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Name of the device.
        device: String,
        /// Elements the shape asks for.
        expected: usize,
        /// Elements present.
        got: usize,
    },
    /// The sizes of a buffer do not fit memory or an index type.
    #[error("{what} of {sizes} is too large for {device}")]
    TooLarge {
        /// Which buffer.
        what: &'static str,
        /// Name of the device.
        device: String,
        /// The sizes it was asked for.
        sizes: String,
    },
    /// The system has no room for a buffer.
    #[error("no memory for the {what} on {device}: {size_bytes} bytes are needed")]
    OutOfMemory {
        /// Which buffer.
        what: &'static str,
        /// Name of the device.
        device: String,
        /// Its size.
        size_bytes: usize,
    },
    /// The instruction set asked for (by `DUALGRAIN_BACKEND`) is unknown or not on this machine.
    #[error("instruction set `{asked}` is not available here; available: {available}")]
    InstructionSet {
        /// The name asked for.
        asked: String,
        /// Names that would work.
        available: String,
    },
    /// An operation was begun and did not end well: a lost device, a launch that was refused.
    #[error("{operation} of {sizes} failed on {device}: {problem}")]
    Operation {
        /// Name of the operation, as the contract calls it.
        operation: &'static str,
        /// Name of the device.
        device: String,
        /// The sizes it was asked for.
        sizes: String,
        /// What the device said.
        problem: String,
    },
}
