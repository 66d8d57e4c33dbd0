//! What the process ends with. Wrong usage is 2; clap ends with it by itself.

/// The work failed.
pub const FAILED: u8 = 1;
/// Ctrl-C or a termination signal ended it: 128 + SIGINT, as shells expect.
pub const INTERRUPTED: u8 = 130;
