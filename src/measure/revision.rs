//! Which sources the program was built from.

/// `git describe` of the checkout, `unknown` outside of one (`build.rs`).
pub const REVISION: &str = env!("DUALGRAIN_REVISION");
