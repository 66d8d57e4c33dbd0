//! Connections: how they come, where their requests lead, how they end.

mod access;
mod hosts;
mod patience;
mod routes;
mod serve;
mod standing;

pub use serve::{Stage, listen, run, serve};
