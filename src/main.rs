//! The `dualgrain` command.
#![forbid(unsafe_code)]
fn main() {}
