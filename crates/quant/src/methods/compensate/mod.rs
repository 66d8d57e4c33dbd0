//! Rounding with compensation: what one weight's rounding loses, the weights after it make up for.
//!
//! The error of a row's output is the quadratic form `e H e^T` of its weight errors `e` with the Gram matrix `H` of the
//! input. DGQ chooses scales by it and then rounds every weight for itself. Here the codes are chosen together, inside
//! the same grid: `ordered` rounds column after column and moves each error to the columns to come, `regroup` chooses a
//! group's scale, zero point and codes anew, `descent` changes single codes, `channel_scale` fits `s1`; `refine` runs the
//! three. `method` tries several beginnings and keeps for every row what leaves the least error. `target` moves the weights before all that.

pub mod method;
pub mod target;

mod block;
mod channel_scale;
mod damping;
mod descent;
mod factor;
mod ordered;
mod product;
mod refine;
mod regroup;
mod rows;
mod sweep;
#[cfg(test)]
mod twins;
