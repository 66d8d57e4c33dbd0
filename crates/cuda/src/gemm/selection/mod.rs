//! Which configuration a product is run with: by formula, or by a table that was learned on the card.

mod analytic;
mod selection_table;

pub use analytic::Analytic;
pub use selection_table::{SELECTION_VARIABLE, SelectionError, SelectionTable, select};
