//! What the book says that the program, or a record, says too: pages and pictures are made again and compared with what is
//! committed. `DUALGRAIN_WRITE_BOOK=1 cargo test --release --workspace --test book` writes them anew.
//!
//! `commands`, `taken` and `metrics` ask the program, `records` lists what was measured, `charts` draws it and `figures` holds tables
//! of the book to it. The book itself is built and walked through by run.sh.

#[path = "../program/mod.rs"]
mod program;

mod bars;
mod charts;
mod commands;
mod committed;
mod csv;
mod figures;
mod metrics;
mod records;
mod server;
mod taken;
