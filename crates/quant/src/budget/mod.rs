//! More bits where they help most: a scheme for every linear under a budget of bits a weight.
//!
//! In order: windows that calibration does not touch (`calibrate/windows`), what each linear's rounding does to the model's
//! predictions on them ([`sensitivity`]), what other schemes would leave of it ([`level`]), and the choice ([`choice`]). [`spending`] is what a run
//! calls.

pub mod choice;
pub mod level;
pub mod sensitivity;
pub mod spending;
