//! The CPU as a device.
//!
//! `cpu_device` holds an instruction set and threads, `linear` packed layers; `row_tasks` shares rows out; `contract` is the
//! list of operations, each checked and handed on to the room that does it.

mod contract;
pub(crate) mod cpu_device;
pub(crate) mod linear;
mod mixture;
mod row_tasks;
mod statistics;
