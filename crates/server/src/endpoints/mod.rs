//! What is no interface of others: texts and tokens, health and metrics, the page.

pub mod observe;
pub mod texts;
pub mod ui;
