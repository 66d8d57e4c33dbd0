//! Which configuration a product is run with: of the candidates the one of a table that was learned on the card, else the one
//! that costs least by formula, or by any other cost.

mod analytic;
mod candidates;
mod choice;
mod cost;
mod selection_table;

pub use analytic::Analytic;
pub use candidates::{enumerate, enumerate_all, stand_ins};
pub use choice::{choose, select};
pub use cost::Cost;
pub use selection_table::{SELECTION_VARIABLE, SelectionError, SelectionTable};
