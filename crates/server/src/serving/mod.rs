//! Connections: how they come, where their requests lead, how they end.

mod patience;
mod routes;
mod serve;

pub use serve::{Stage, listen, run, serve};
