//! What is no interface of others: texts and tokens, cancelling, health and metrics, the page.

pub mod cancel;
pub mod observe;
pub mod texts;
pub mod ui;
