//! Connections: how they come, where their requests lead, how they end.

mod access;
mod hosts;
mod origins;
mod paths;
mod patience;
mod routes;
mod serve;
mod socket;
mod standing;
#[cfg(feature = "otel")]
mod traced;

pub use paths::{DOCUMENT, PATHS};
pub use serve::{Stage, listen, run, serve};
