//! The server under load: many requests at once, and many that are broken. Each test has a small round that always runs and a large
//! one: `cargo test --release -p dualgrain-server --test load -- --ignored --nocapture`.

mod asked;
// Made for the tests of single requests, which use more of it.
#[allow(dead_code)]
#[path = "../http/client.rs"]
mod client;
mod faults;
mod same_bytes;
mod traces;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by each test: what one leaves in memory would count as another's.
fn by_itself() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
