//! Connections: how they come, where their requests lead, how they end.

mod access;
mod hosts;
mod paths;
mod patience;
mod routes;
mod serve;
mod standing;

pub use paths::{DOCUMENT, PATHS};
pub use serve::{Stage, listen, run, serve};
